#include "mean_shift_shape.h"

namespace spectrafuse::mean_shift_assign_binding {

static MeanShiftForward forward_arguments(const Sizes<5>& sizes, const Sizes<4>& stride, int iterations, int window,
                                          double bandwidth, double temperature, Address embeddings, Address centers,
                                          Address shifted, Address probs, Address previous, Address weight_sum,
                                          Address labels) {
    return {mean_shift_shape(sizes, iterations, window, bandwidth, temperature),
            embeddings,
            {stride[0], stride[1], stride[2], stride[3]},
            centers,
            shifted,
            probs,
            previous,
            weight_sum,
            labels};
}

static double backward(int dtype, const Sizes<5>& sizes, const Sizes<4>& stride, int window, double bandwidth,
                       double temperature, Address embeddings, Address centers, Address shifted, Address probs,
                       Address previous, Address weight_sum, Address grad_shifted, Address grad_probs, Address upstream,
                       Address upstream_dot, Address grad_embeddings, Address grad_centers, int threads) {
    double grad_bandwidth = 0;
    mean_shift_assign_backward({mean_shift_shape(sizes, 1, window, bandwidth, temperature),
                                embeddings,
                                {stride[0], stride[1], stride[2], stride[3]},
                                centers,
                                shifted,
                                probs,
                                previous,
                                weight_sum,
                                grad_shifted,
                                grad_probs,
                                upstream,
                                upstream_dot,
                                grad_embeddings},
                               dtype, threads, grad_centers, &grad_bandwidth);
    return grad_bandwidth;
}

SPECTRAFUSE_BIND(mean_shift_assign) {
    m.def("mean_shift_assign_forward", on_cpu(forward_arguments, mean_shift_assign_forward));
    m.def("mean_shift_assign_backward", &backward);
}

}  // namespace spectrafuse::mean_shift_assign_binding
