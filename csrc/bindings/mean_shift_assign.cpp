#include "../common/mean_shift_assign.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

MeanShiftShape shape_of(const std::array<std::int64_t, 5>& sizes, int iterations, int window, double bandwidth,
                        double temperature) {
    if (window < 1 || window > 11 || window % 2 == 0) throw std::invalid_argument("window must be 1, 3, .. 11");
    return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], iterations, window, bandwidth, temperature};
}

void bound_forward(int dtype, const std::array<std::int64_t, 5>& sizes, const std::array<std::int64_t, 4>& stride,
                   int iterations, int window, double bandwidth, double temperature, Address embeddings,
                   Address centers, Address shifted, Address probs, Address previous, Address weight_sum,
                   Address labels, int threads) {
    const MeanShiftForward arguments{
        shape_of(sizes, iterations, window, bandwidth, temperature),
        pointer(embeddings),
        {stride[0], stride[1], stride[2], stride[3]},
        pointer(centers),
        pointer(shifted),
        pointer(probs),
        pointer(previous),
        pointer(weight_sum),
        pointer<std::int64_t>(labels),
    };
    const py::gil_scoped_release release;
    mean_shift_forward(arguments, dtype, threads);
}

double bound_backward(int dtype, const std::array<std::int64_t, 5>& sizes, const std::array<std::int64_t, 4>& stride,
                      int window, double bandwidth, double temperature, Address embeddings, Address centers,
                      Address shifted, Address probs, Address previous, Address weight_sum, Address grad_shifted,
                      Address grad_probs, Address upstream, Address upstream_dot, Address grad_embeddings,
                      Address grad_centers, int threads) {
    const MeanShiftBackward arguments{
        shape_of(sizes, 1, window, bandwidth, temperature),
        pointer(embeddings),
        {stride[0], stride[1], stride[2], stride[3]},
        pointer(centers),
        pointer(shifted),
        pointer(probs),
        pointer(previous),
        pointer(weight_sum),
        pointer(grad_shifted),
        pointer(grad_probs),
        pointer(upstream),
        pointer(upstream_dot),
        pointer(grad_embeddings),
    };
    double grad_bandwidth = 0;
    const py::gil_scoped_release release;
    mean_shift_backward(arguments, dtype, threads, pointer<double>(grad_centers), &grad_bandwidth);
    return grad_bandwidth;
}

}  // namespace

void bind_mean_shift_assign(py::module_& m) {
    m.def("mean_shift_forward", &bound_forward);
    m.def("mean_shift_backward", &bound_backward);
}

}  // namespace spectrafuse
