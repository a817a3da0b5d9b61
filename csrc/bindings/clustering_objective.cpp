#include "../common/clustering_objective.h"

#include "mean_shift_shape.h"

namespace spectrafuse::clustering_objective_binding {

// Addresses: embeddings, centers, geometry, labels, valid.
static ClusteringInputs inputs_of(const Sizes<5>& sizes, const Sizes<4>& stride, int iterations, int window,
                                  double bandwidth, double temperature, const Addresses<5>& addresses) {
    return {mean_shift_shape(sizes, iterations, window, bandwidth, temperature),
            addresses[0],
            {stride[0], stride[1], stride[2], stride[3]},
            addresses[1],
            addresses[2],
            addresses[3],
            addresses[4]};
}

// Returns compactness of both views, uniform, orthogonality, balance, consistency.
static std::array<double, 6> forward(int dtype, const Sizes<5>& sizes, const Sizes<4>& stride, int iterations,
                                     int window, double bandwidth, double temperature, const Addresses<5>& inputs,
                                     Address probs, Address previous, Address shifted, Address mass, Address sums,
                                     Address marginals, Address counts, int threads) {
    ClusteringResults results{};
    results.mass = mass;
    results.sums = sums;
    results.marginals = marginals;
    clustering_objective_forward(
        {inputs_of(sizes, stride, iterations, window, bandwidth, temperature, inputs), probs, previous, shifted}, dtype,
        threads, results);
    std::copy_n(results.counts, 3, static_cast<std::int64_t*>(counts));
    return {results.compactness[0], results.compactness[1], results.uniform,
            results.orthogonality,  results.balance,        results.consistency};
}

// `terms` are the gradients of the six numbers that forward() returns; `workspace` upstream and upstream_dot.
static double backward(int dtype, const Sizes<5>& sizes, const Sizes<4>& stride, int window, double bandwidth,
                       double temperature, const Addresses<5>& inputs, Address probs, Address previous,
                       Address marginals, Address counts, Address grad_probs, const std::array<double, 6>& terms,
                       const Addresses<2>& workspace, Address grad_embeddings, Address grad_centers, int threads) {
    return clustering_objective_backward({inputs_of(sizes, stride, 1, window, bandwidth, temperature, inputs),
                                          probs,
                                          previous,
                                          marginals,
                                          counts,
                                          grad_probs,
                                          {terms[0], terms[1]},
                                          terms[2],
                                          terms[3],
                                          terms[4],
                                          terms[5],
                                          workspace[0],
                                          workspace[1],
                                          grad_embeddings},
                                         dtype, threads, grad_centers);
}

SPECTRAFUSE_BIND(clustering_objective) {
    m.def("clustering_objective_forward", &forward);
    m.def("clustering_objective_backward", &backward);
}

}  // namespace spectrafuse::clustering_objective_binding
