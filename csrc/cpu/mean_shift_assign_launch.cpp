// Chooses the instruction set, spreads rows over threads, and sums what the backward reduces in a fixed order.
#include <algorithm>
#include <vector>

#include "../common/isa.h"
#include "../common/mean_shift_assign.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

// Center gradients are summed within blocks of rows and then over blocks: the same sums for any number of threads.
constexpr std::int64_t kMostBlocks = 64;

}  // namespace

void mean_shift_assign_forward(const MeanShiftForward& a, int dtype, int threads) {
    const MeanShiftForwardKernels& kernels = SPECTRAFUSE_SELECT(mean_shift_assign_forward_kernels[dtype]);
    const ThreadScratch scratch(kernels.scratch(a.shape), threads);
    parallel_shares(a.shape.batch * a.shape.height, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels.run(a, begin, end, scratch.of(thread));
    });
}

double mean_shift_gather(const MeanShiftGather& a, int dtype, int threads, double* bandwidth_rows) {
    const MeanShiftGatherKernels& kernels = SPECTRAFUSE_SELECT(mean_shift_gather_kernels[dtype]);
    const std::int64_t rows = a.shape.batch * a.shape.height;
    const ThreadScratch scratch(kernels.scratch(a.shape), threads);
    parallel_shares(rows, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels.run(a, begin, end, bandwidth_rows, scratch.of(thread));
    });
    double along_bandwidth = 0;
    for (std::int64_t row = 0; row < rows; ++row) along_bandwidth += bandwidth_rows[row];
    return along_bandwidth / (a.shape.bandwidth * a.shape.bandwidth * a.shape.bandwidth);
}

void mean_shift_assign_backward(const MeanShiftBackward& a, int dtype, int threads, double* grad_centers,
                                double* grad_bandwidth) {
    const MeanShiftBackwardKernels& kernels = SPECTRAFUSE_SELECT(mean_shift_assign_backward_kernels[dtype]);
    const MeanShiftShape& s = a.shape;
    const std::int64_t rows = s.batch * s.height,
                       block = std::max<std::int64_t>(1, (rows + kMostBlocks - 1) / kMostBlocks);
    const std::int64_t blocks = (rows + block - 1) / block, centers = s.clusters * s.dim;
    std::vector<double> center_blocks(static_cast<std::size_t>(blocks * centers), 0.0);
    std::vector<double> bandwidth_rows(static_cast<std::size_t>(rows), 0.0);

    const ThreadScratch scratch(kernels.upstream_scratch(s), threads);
    parallel_shares(blocks, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i)
            kernels.upstream(a, i * block, std::min(rows, (i + 1) * block), center_blocks.data() + i * centers,
                             bandwidth_rows.data(), scratch.of(thread));
    });
    std::fill(grad_centers, grad_centers + centers, 0.0);
    for (std::int64_t i = 0; i < blocks; ++i)
        for (std::int64_t j = 0; j < centers; ++j) grad_centers[j] += center_blocks[i * centers + j];
    const MeanShiftGather gather{s,
                                 a.embeddings,
                                 {a.stride[0], a.stride[1], a.stride[2], a.stride[3]},
                                 a.previous,
                                 a.upstream,
                                 a.upstream_dot,
                                 a.grad_embeddings,
                                 false};
    *grad_bandwidth = mean_shift_gather(gather, dtype, threads, bandwidth_rows.data());
}

}  // namespace spectrafuse
