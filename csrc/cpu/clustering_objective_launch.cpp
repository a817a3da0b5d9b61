// Spreads the rows of the training objective over threads, sums in a fixed order, and finishes the terms.
#include <algorithm>
#include <cmath>
#include <vector>

#include "../common/clustering_objective.h"
#include "../common/isa.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

constexpr double kMarginalEpsilon = 1e-6;

// Rows of each view in at most 32 blocks, whose sums are added in their order: the same bits for any thread count.
struct Blocks {
    explicit Blocks(const MeanShiftShape& s)
        : view_rows(s.batch / 2 * s.height),
          rows(std::max<std::int64_t>(1, (view_rows + 31) / 32)),
          per_view((view_rows + rows - 1) / rows),
          count(2 * per_view) {}

    std::int64_t begin(std::int64_t block) const { return block / per_view * view_rows + block % per_view * rows; }
    std::int64_t end(std::int64_t block) const {
        return std::min(begin(block) + rows, (block / per_view + 1) * view_rows);
    }

    std::int64_t view_rows, rows, per_view, count;
};

// C C^T - I of centers (K, D), and its squared entries summed.
template <class T>
std::vector<double> gram_deviation(const void* centers, const MeanShiftShape& s, double& squares) {
    const T* c = static_cast<const T*>(centers);
    const std::size_t clusters = static_cast<std::size_t>(s.clusters), dim = static_cast<std::size_t>(s.dim);
    std::vector<double> deviation(clusters * clusters, 0.0), transposed(dim * clusters);
    for (std::size_t k = 0; k < clusters; ++k)
        for (std::size_t d = 0; d < dim; ++d) transposed[d * clusters + k] = static_cast<double>(c[k * dim + d]);
    squares = 0;
    for (std::size_t i = 0; i < clusters; ++i) {
        double* row = deviation.data() + i * clusters;
        for (std::size_t d = 0; d < dim; ++d)
            for (std::size_t j = 0; j < clusters; ++j)
                row[j] += transposed[d * clusters + i] * transposed[d * clusters + j];
        row[i] -= 1;
        for (std::size_t j = 0; j < clusters; ++j) squares += row[j] * row[j];
    }
    return deviation;
}

std::vector<double> gram_deviation(const void* centers, const MeanShiftShape& s, int dtype, double& squares) {
    return dtype == 0 ? gram_deviation<float>(centers, s, squares) : gram_deviation<double>(centers, s, squares);
}

template <class T>
void add_orthogonality(const void* centers, const MeanShiftShape& s, const std::vector<double>& deviation,
                       double gradient, double* grad_centers) {
    const T* c = static_cast<const T*>(centers);
    for (std::int64_t i = 0; i < s.clusters; ++i)
        for (std::int64_t j = 0; j < s.clusters; ++j) {
            const double factor = 4 * gradient * deviation[static_cast<std::size_t>(i * s.clusters + j)];
            for (std::int64_t d = 0; d < s.dim; ++d)
                grad_centers[i * s.dim + d] += factor * static_cast<double>(c[j * s.dim + d]);
        }
}

double per(double value, std::int64_t count) { return value / static_cast<double>(std::max<std::int64_t>(count, 1)); }

}  // namespace

void clustering_objective_forward(const ClusteringForward& a, int dtype, int threads, ClusteringResults& results) {
    const ClusteringForwardKernels& kernels = SPECTRAFUSE_SELECT(clustering_objective_forward_kernels[dtype]);
    const MeanShiftShape& s = a.in.shape;
    const Blocks blocks(s);
    const std::int64_t products = s.clusters * s.dim, width = kMass + s.clusters + products;
    std::vector<double> sums(static_cast<std::size_t>(blocks.count * width), 0.0);
    const ThreadScratch scratch(std::max(kernels.assign_scratch(s), kernels.compare_scratch(s)), threads);
    parallel_shares(blocks.count, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i)
            kernels.assign(a, blocks.begin(i), blocks.end(i), sums.data() + i * width, scratch.of(thread));
    });
    if (a.shifted != nullptr)
        parallel_shares(blocks.count, threads, [&](std::int64_t begin, std::int64_t end, int) {
            for (std::int64_t i = begin; i < end; ++i)
                kernels.memory_order(a, blocks.begin(i), blocks.end(i), sums.data() + i * width + kMass + s.clusters);
        });
    // Index by index both directions are one.
    const std::int64_t rows = blocks.view_rows * (a.in.geometry == nullptr ? 1 : 2);
    std::vector<double> divergence(static_cast<std::size_t>(rows), 0.0);
    std::vector<std::int64_t> pairs(static_cast<std::size_t>(rows), 0);
    parallel_shares(rows, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels.compare(a, begin, end, divergence.data(), pairs.data(), scratch.of(thread));
    });

    std::vector<double> view_sums(static_cast<std::size_t>(2 * width), 0.0);
    for (std::int64_t i = 0; i < blocks.count; ++i)
        for (std::int64_t j = 0; j < width; ++j) view_sums[i / blocks.per_view * width + j] += sums[i * width + j];
    results.uniform = results.balance = 0;
    for (int view = 0; view < 2; ++view) {
        const double* of_view = view_sums.data() + view * width;
        const std::int64_t pixels = static_cast<std::int64_t>(of_view[kPixels]);
        results.counts[view] = pixels;
        results.compactness[view] = per(of_view[kCompactnessSum], pixels);
        results.uniform += 0.5 * per(of_view[kSurpriseSum], pixels);
        for (std::int64_t k = 0; k < s.clusters; ++k) {
            const double marginal = per(of_view[kMass + k], pixels) + kMarginalEpsilon;
            results.marginals[view * s.clusters + k] = marginal;
            if (pixels > 0) results.balance -= 0.5 * marginal * std::log(marginal);
        }
    }
    for (std::int64_t k = 0; k < s.clusters; ++k) results.mass[k] = view_sums[kMass + k] + view_sums[width + kMass + k];
    for (std::int64_t j = kMass + s.clusters; j < width; ++j)
        results.sums[j - kMass - s.clusters] = view_sums[j] + view_sums[width + j];
    double total = 0;
    results.counts[2] = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
        total += divergence[row];
        results.counts[2] += pairs[row];
    }
    results.consistency = per(total, results.counts[2]);
    gram_deviation(a.in.centers, s, dtype, results.orthogonality);
}

double clustering_objective_backward(const ClusteringBackward& a, int dtype, int threads, double* grad_centers) {
    const ClusteringBackwardKernels& kernels = SPECTRAFUSE_SELECT(clustering_objective_backward_kernels[dtype]);
    const MeanShiftShape& s = a.in.shape;
    const Blocks blocks(s);
    const std::int64_t products = s.clusters * s.dim;
    std::vector<double> marginal(static_cast<std::size_t>(2 * s.clusters), 0.0);
    ClusteringGradients g{};
    for (int view = 0; view < 2; ++view) {
        g.compactness[view] = per(a.compactness[view], a.counts[view]);
        g.surprise[view] = per(0.5 * a.uniform, a.counts[view]);
        for (std::int64_t k = view * s.clusters; k < (view + 1) * s.clusters; ++k)
            marginal[k] = per(-0.5 * a.balance * (std::log(a.marginals[k]) + 1), a.counts[view]);
    }
    g.consistency = per(a.consistency, a.counts[2]);
    g.marginal = marginal.data();

    std::vector<double> center_blocks(static_cast<std::size_t>(blocks.count * products), 0.0);
    std::vector<double> bandwidth_rows(static_cast<std::size_t>(2 * blocks.view_rows), 0.0);
    const ThreadScratch scratch(kernels.scratch(s), threads);
    parallel_shares(blocks.count, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i)
            kernels.upstream(a, g, blocks.begin(i), blocks.end(i), center_blocks.data() + i * products,
                             bandwidth_rows.data(), scratch.of(thread));
    });
    std::fill(grad_centers, grad_centers + products, 0.0);
    for (std::int64_t i = 0; i < blocks.count; ++i)
        for (std::int64_t j = 0; j < products; ++j) grad_centers[j] += center_blocks[i * products + j];
    if (a.orthogonality != 0) {
        double squares = 0;
        const std::vector<double> deviation = gram_deviation(a.in.centers, s, dtype, squares);
        (dtype == 0 ? add_orthogonality<float> : add_orthogonality<double>)(a.in.centers, s, deviation, a.orthogonality,
                                                                            grad_centers);
    }
    const MeanShiftGather gather{s,
                                 a.in.embeddings,
                                 {a.in.stride[0], a.in.stride[1], a.in.stride[2], a.in.stride[3]},
                                 a.previous,
                                 a.upstream,
                                 a.upstream_dot,
                                 a.grad_embeddings,
                                 true};
    return mean_shift_gather(gather, dtype, threads, bandwidth_rows.data());
}

}  // namespace spectrafuse
