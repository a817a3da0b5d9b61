#include "../common/clustering_objective.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

using Sizes = std::array<std::int64_t, 5>;
using Strides = std::array<std::int64_t, 4>;

// embeddings, centers, geometry, labels, valid
using InputAddresses = std::array<Address, 5>;

ClusteringInputs inputs_of(const Sizes& sizes, const Strides& stride, int iterations, int window, double bandwidth,
                           double temperature, const InputAddresses& addresses) {
    if (window < 1 || window > 11 || window % 2 == 0) throw std::invalid_argument("window must be 1, 3, .. 11");
    return {
        {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], iterations, window, bandwidth, temperature},
        pointer(addresses[0]),
        {stride[0], stride[1], stride[2], stride[3]},
        pointer(addresses[1]),
        pointer<double>(addresses[2]),
        pointer<std::int64_t>(addresses[3]),
        pointer<std::uint8_t>(addresses[4]),
    };
}

// Returns compactness of both views, uniform, orthogonality, balance, consistency.
std::array<double, 6> bound_forward(int dtype, const Sizes& sizes, const Strides& stride, int iterations, int window,
                                    double bandwidth, double temperature, const InputAddresses& inputs, Address probs,
                                    Address previous, Address shifted, Address mass, Address sums, Address marginals,
                                    Address counts, int threads) {
    const ClusteringForward arguments{
        inputs_of(sizes, stride, iterations, window, bandwidth, temperature, inputs),
        pointer(probs),
        pointer(previous),
        pointer(shifted),
    };
    ClusteringResults results{};
    results.mass = pointer<double>(mass);
    results.sums = pointer<double>(sums);
    results.marginals = pointer<double>(marginals);
    const py::gil_scoped_release release;
    clustering_forward(arguments, dtype, threads, results);
    for (int i = 0; i < 3; ++i) pointer<std::int64_t>(counts)[i] = results.counts[i];
    return {results.compactness[0], results.compactness[1], results.uniform,
            results.orthogonality,  results.balance,        results.consistency};
}

// `terms` are the gradients of the six numbers that bound_forward returns; `workspace` upstream and upstream_dot.
double bound_backward(int dtype, const Sizes& sizes, const Strides& stride, int window, double bandwidth,
                      double temperature, const InputAddresses& inputs, Address probs, Address previous,
                      Address marginals, Address counts, Address grad_probs, const std::array<double, 6>& terms,
                      const std::array<Address, 2>& workspace, Address grad_embeddings, Address grad_centers,
                      int threads) {
    const ClusteringBackward arguments{
        inputs_of(sizes, stride, 1, window, bandwidth, temperature, inputs),
        pointer(probs),
        pointer(previous),
        pointer<double>(marginals),
        pointer<std::int64_t>(counts),
        pointer(grad_probs),
        {terms[0], terms[1]},
        terms[2],
        terms[3],
        terms[4],
        terms[5],
        pointer(workspace[0]),
        pointer(workspace[1]),
        pointer(grad_embeddings),
    };
    const py::gil_scoped_release release;
    return clustering_backward(arguments, dtype, threads, pointer<double>(grad_centers));
}

}  // namespace

void bind_clustering_objective(py::module_& m) {
    m.def("clustering_forward", &bound_forward);
    m.def("clustering_backward", &bound_backward);
}

}  // namespace spectrafuse
