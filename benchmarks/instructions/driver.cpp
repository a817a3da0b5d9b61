// Runs one kernel some times, on small inputs that are always the same, without Python or torch: what callgrind counts.
//
//     kernel_driver                 names of all cases, a line each
//     kernel_driver CASE            runs a case, of which only `measured` is to be counted; prints how many bytes the
//                                   kernel held for itself at most
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "adamw_outer.h"
#include "address.h"
#include "ambiguity_penalty.h"
#include "clustering_objective.h"
#include "component_penalty.h"
#include "counted.h"
#include "dense_mean_shift.h"
#include "gate.h"
#include "gated_descent.h"
#include "gated_mixture.h"
#include "held_memory.h"
#include "mean_shift_assign.h"
#include "random_fill.h"
#include "skinny_linear.h"
#include "sparse_gated_mixture.h"
#include "spectral_compactness.h"

namespace {

using namespace spectrafuse;

constexpr int kFloat = 0, kThreads = 1;

// ---- DGC: two pairs of crops of 16 x 16 pixels, 16 dimensions, 4 clusters
constexpr std::int64_t kViews = 4, kDim = 16, kSide = 16, kClusters = 4, kPixels = kViews * kSide * kSide, kBands = 40;
const MeanShiftShape kShape{kViews, kDim, kSide, kSide, kClusters, 5, 5, 1.0, 0.05};

MeanShiftForward shift_forward() {
    return {kShape,
            floats(kPixels * kDim),
            {kDim * kSide * kSide, kSide * kSide, kSide, 1},
            floats(kClusters * kDim),
            floats(kPixels * kDim),
            floats(kPixels * kClusters),
            floats(kPixels * kDim),
            floats(kPixels),
            nullptr};
}

Run mean_shift_assign_forward() {
    const MeanShiftForward a = shift_forward();
    return [a] { mean_shift_assign_forward(a, kFloat, kThreads); };
}

Run mean_shift_assign_backward() {
    const MeanShiftForward f = shift_forward();
    mean_shift_assign_forward(f, kFloat, kThreads);
    const MeanShiftBackward a{f.shape,
                              f.embeddings,
                              {f.stride[0], f.stride[1], f.stride[2], f.stride[3]},
                              f.centers,
                              f.shifted,
                              f.probs,
                              f.previous,
                              f.weight_sum,
                              floats(kPixels * kDim),
                              floats(kPixels * kClusters),
                              floats(kPixels * kDim),
                              floats(kPixels),
                              floats(kPixels * kDim)};
    double *grad_centers = numbers<double>(kClusters * kDim), *grad_bandwidth = numbers<double>(1);
    return [=] { mean_shift_assign_backward(a, kFloat, kThreads, grad_centers, grad_bandwidth); };
}

ClusteringForward clustering() {
    double* geometry = numbers<double>(kViews * 9);
    for (std::int64_t view = 0; view < kViews; ++view) {
        const double corner = static_cast<double>(view % 2) * 4, row[9] = {corner, corner, 1, 0, 0, 0, 1, 0, 0};
        std::memcpy(geometry + view * 9, row, sizeof(row));
    }
    return {{kShape,
             floats(kPixels * kDim),
             {kDim * kSide * kSide, kSide * kSide, kSide, 1},
             floats(kClusters * kDim),
             geometry,
             nullptr,
             nullptr},
            floats(kPixels * kClusters),
            floats(kPixels * kDim),
            nullptr};
}

ClusteringResults* clustering_results() {
    static ClusteringResults results{};
    results.mass = numbers<double>(kClusters);
    results.sums = numbers<double>(kClusters * kDim);
    results.marginals = numbers<double>(2 * kClusters);
    return &results;
}

Run clustering_objective_forward() {
    const ClusteringForward a = clustering();
    ClusteringResults* results = clustering_results();
    return [=] { clustering_objective_forward(a, kFloat, kThreads, *results); };
}

Run clustering_objective_backward() {
    const ClusteringForward f = clustering();
    ClusteringResults* results = clustering_results();
    clustering_objective_forward(f, kFloat, kThreads, *results);
    const ClusteringBackward a{f.in,
                               f.probs,
                               f.previous,
                               results->marginals,
                               results->counts,
                               nullptr,
                               {1, 1},
                               1,
                               1,
                               1,
                               1,
                               floats(kPixels * kDim),
                               floats(kPixels),
                               floats(kPixels * kDim)};
    double* grad_centers = numbers<double>(kClusters * kDim);
    return [=] { clustering_objective_backward(a, kFloat, kThreads, grad_centers); };
}

SpectralCompactness spectral() {
    constexpr std::int64_t area = kSide * kSide;
    return {kViews,
            kBands,
            area,
            kClusters,
            floats(kViews * kBands * area),
            {kBands * area, 1, kBands},
            floats(kPixels * kClusters, 0, 1),
            nullptr,
            floats(kBands),
            floats(kBands * kClusters),
            floats(kPixels),
            1.0,
            floats(kPixels * kClusters)};
}

Run spectral_compactness_forwards() {
    const SpectralCompactness a = spectral();
    return [a] { spectral_compactness_forward(a, kFloat, kThreads); };
}

Run spectral_compactness_backwards() {
    const SpectralCompactness a = spectral();
    spectral_compactness_forward(a, kFloat, kThreads);
    return [a] { spectral_compactness_backward(a, kFloat, kThreads); };
}

template <bool backward>
Run dense_mean_shift() {
    constexpr std::int64_t pixels = 256;
    DenseIteration a{
        1, pixels, kDim, 0.5, floats(pixels * kDim), floats(pixels), nullptr, nullptr, floats(pixels * kDim), nullptr};
    a.workspace = floats(static_cast<std::int64_t>(dense_mean_shift_workspace(a, kFloat) / sizeof(float)) + 1);
    if (!backward) return [a] { dense_mean_shift_iteration(a, kFloat, kThreads); };
    dense_mean_shift_iteration(a, kFloat, kThreads);
    DenseIteration b = a;
    b.shifted = a.result, b.grad = floats(pixels * kDim), b.result = floats(pixels * kDim);
    b.workspace = floats(static_cast<std::int64_t>(dense_mean_shift_workspace(b, kFloat) / sizeof(float)) + 1);
    return [b] { dense_mean_shift_iteration(b, kFloat, kThreads); };
}

// ---- EB-gMCR: batches of 16 spectra of 128 channels, a pool of 96 components
constexpr std::int64_t kBatch = 16, kPool = 96, kChannels = 128;

Run adamw() {
    constexpr std::int64_t rows = 20 * kAdamwTileRows, columns = kChannels;
    const AdamwOuter a{kBatch,
                       rows,
                       columns,
                       floats(kBatch * columns),
                       floats(kBatch * rows),
                       floats(rows * columns),
                       floats(rows * columns),
                       floats(rows * columns, 0, 1)};
    return [a] { adamw_outer(&a, 1, {1e-3, 0.9, 0.995, 1e-8, 1e-3}, 5, kFloat, kThreads); };
}

Run skinny_forward() {
    const SkinnyLinear a{kBatch,
                         kChannels,
                         kPool,
                         Activation::tanh,
                         floats(kBatch * kChannels),
                         floats(kPool * kChannels),
                         floats(kPool),
                         floats(kBatch * kPool),
                         nullptr};
    return [a] { skinny_linear_forward(a, kFloat, kThreads); };
}

Run skinny_backward() {
    const SkinnyLinearBackward a{
        kBatch, kChannels, kPool, floats(kPool * kChannels), floats(kBatch * kPool), floats(kBatch * kChannels)};
    return [a] { skinny_linear_backward(a, kFloat, kThreads); };
}

Run gates() {
    const Gate a{kBatch,
                 kPool,
                 1.6,
                 0.5,
                 -1.0,
                 0.5,
                 floats(kBatch * kPool * 2),
                 floats(kBatch * kPool),
                 false,
                 floats(kBatch * kPool * 2),
                 floats(kBatch * kPool),
                 floats(kBatch * kPool * 2),
                 {floats(1), floats(1), floats(1)},
                 numbers<bool>(kPool)};
    return [a] { gate_forward(a, kFloat, kThreads); };
}

Run gates_backward() {
    const GateBackward a{kBatch,
                         kPool,
                         0.5,
                         false,
                         floats(kBatch * kPool, 0, 1),
                         floats(kBatch * kPool * 2),
                         floats(kBatch * kPool),
                         nullptr,
                         {nullptr, floats(1), floats(1)},
                         floats(kBatch * kPool * 2)};
    return [a] { gate_backward(a, kFloat, kThreads); };
}

MixturePool pool() {
    return {kBatch,
            kPool,
            kChannels,
            true,
            2,
            floats(kBatch * kPool, 0, 1),
            floats(kBatch * kPool, 0, 1),
            floats(kPool * kChannels)};
}

Run mixture() {
    const GatedMixture a{pool(), floats(kBatch * kChannels)};
    return [a] { gated_mixture_forward(a, kFloat, kThreads); };
}

Run mixture_backward() {
    const GatedMixtureBackward a{pool(), floats(kBatch * kChannels), floats(kBatch * kPool), floats(kBatch * kPool),
                                 floats(kPool * kChannels)};
    return [a] { gated_mixture_backward(a, kFloat, kThreads); };
}

SparsityGates sparsity() {
    return {floats(kPool * kChannels * 2), numbers<std::int64_t>(2, 1, 9), nullptr, false, nullptr, 1.6, 0.5657, 0.5};
}

Run sparse_mixture() {
    const SparseGatedMixture a{pool(), sparsity(), floats(kBatch * kChannels), floats(1), floats(1)};
    return [a] { sparse_gated_mixture_forward(a, kFloat, kThreads); };
}

Run sparse_mixture_backward() {
    const SparseGatedMixtureBackward a{pool(),
                                       sparsity(),
                                       floats(kBatch * kChannels),
                                       nullptr,
                                       floats(1),
                                       floats(kBatch * kPool),
                                       floats(kBatch * kPool),
                                       floats(kPool * kChannels),
                                       floats(kPool * kChannels * 2)};
    return [a] { sparse_gated_mixture_backward(a, kFloat, kThreads); };
}

template <PairKind kind>
Run penalty() {
    AmbiguityPenalty a{
        kPool,  kChannels, {kind, 2, 1.0, 0.5, 2.8}, floats(kPool * kChannels, 0, 0.2), floats(kPool * kChannels),
        nullptr};
    a.workspace = floats(static_cast<std::int64_t>(ambiguity_penalty_workspace(a, kFloat) / sizeof(float)) + 1);
    return [a] { ambiguity_penalty(a, kFloat, kThreads); };
}

Run component_penalties() {
    bool* used = numbers<bool>(kPool, 1, 1);
    const ComponentPenalty a{pool(), used, {PairKind::rbf, 2, 1.0, 0.5, 2.8}, 1e-10, floats(kPool * kChannels)};
    return [a] { component_penalty(a, kFloat, kThreads); };
}

// A sweep over concentrations and one over components, of 64 spectra of which each holds a quarter of 24 components.
Run descent() {
    constexpr std::int64_t samples = 64, components = 24, channels = 80;
    double* const spectra = numbers<double>(samples * channels, 0, 1);
    double* const shapes = numbers<double>(components * channels, 0, 1);
    double* const start = numbers<double>(samples * components, -3, 1);
    for (std::int64_t i = 0; i < samples * components; ++i) start[i] = start[i] > 0 ? start[i] : 0;
    double* const overlap = numbers<double>(components * components, 0, 1);
    for (std::int64_t k = 0; k < components; ++k) overlap[k * components + k] = 2;
    const double* along = numbers<double>(samples * components, 0, 1);
    const double* smallest = numbers<double>(components, 0.1, 0.2);
    double* const found = numbers<double>(samples * components);
    double* const moved = numbers<double>(components * channels);
    const std::uint8_t* held = numbers<std::uint8_t>(components);
    return [=] {
        std::copy(start, start + samples * components, found);
        descend_concentrations({samples, components, along, overlap, found, smallest, 1, 0.0}, kThreads);
        std::copy(shapes, shapes + components * channels, moved);
        const Mixture mixture{samples, channels, components, spectra, start, moved};
        descend_components({mixture, moved, held, true, 0.0, nullptr, nullptr, nullptr, nullptr}, kThreads);
    };
}

Run random_normals() {
    const RandomFill a{Distribution::normal, 7, 3, 4096, 0.0, 1.0, floats(4096)};
    return [a] { random_fill(a, kFloat, kThreads); };
}

const Cases kCases{
    {"adamw_outer forward", adamw},
    {"ambiguity_penalty laplacian both", penalty<PairKind::laplacian>},
    {"ambiguity_penalty rbf both", penalty<PairKind::rbf>},
    {"clustering_objective backward", clustering_objective_backward},
    {"clustering_objective forward", clustering_objective_forward},
    {"component_penalty both", component_penalties},
    {"dense_mean_shift backward", dense_mean_shift<true>},
    {"dense_mean_shift forward", dense_mean_shift<false>},
    {"gate backward", gates_backward},
    {"gate forward", gates},
    {"gated_descent forward", descent},
    {"gated_mixture backward", mixture_backward},
    {"gated_mixture forward", mixture},
    {"mean_shift_assign backward", mean_shift_assign_backward},
    {"mean_shift_assign forward", mean_shift_assign_forward},
    {"random_fill normal forward", random_normals},
    {"skinny_linear backward", skinny_backward},
    {"skinny_linear forward", skinny_forward},
    {"sparse_gated_mixture backward", sparse_mixture_backward},
    {"sparse_gated_mixture forward", sparse_mixture},
    {"spectral_compactness backward", spectral_compactness_backwards},
    {"spectral_compactness forward", spectral_compactness_forwards},
};

}  // namespace

// callgrind counts from this function's beginning to its end.
extern "C" __attribute__((noinline)) void measured(const Run& run) {
    // Often enough that a share of the work repeated in some calls (SPECTRAFUSE_SLOWER_PERCENT) is seen.
    for (int i = 0; i < 20; ++i) run();
}

int main(int count, char** arguments) {
    Cases& cases = cases_of_files();
    cases.insert(kCases.begin(), kCases.end());
    if (count < 2) {
        for (const auto& named : cases) std::puts(named.first.c_str());
        return 0;
    }
    const auto found = cases.find(arguments[1]);
    if (found == cases.end()) {
        std::fprintf(stderr, "no such case: %s\n", arguments[1]);
        return 2;
    }
    const Run run = found->second();
    run();  // what is chosen and allocated once is not counted
    const std::int64_t before = bytes_held;
    bytes_most = before;
    measured(run);
    std::printf("%lld\n", static_cast<long long>(bytes_most - before));
    return 0;
}
