// Chooses the instruction set, spreads rows over threads, and sums what the backward reduces in a fixed order.
#include <algorithm>
#include <vector>

#include "../common/mean_shift_assign.h"
#include "isa.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

// Centre gradients are summed within blocks of rows and then over blocks: the same sums for any number of threads.
constexpr std::int64_t kMostBlocks = 64;

const MeanShiftForwardKernels& forward_kernels(int dtype) {
#if defined(SPECTRAFUSE_X86_KERNELS)
    if (selected_isa() == Isa::avx512) return avx512::mean_shift_forward_kernels[dtype];
    if (selected_isa() == Isa::avx2) return avx2::mean_shift_forward_kernels[dtype];
#endif
    return baseline::mean_shift_forward_kernels[dtype];
}

const MeanShiftBackwardKernels& backward_kernels(int dtype) {
#if defined(SPECTRAFUSE_X86_KERNELS)
    if (selected_isa() == Isa::avx512) return avx512::mean_shift_backward_kernels[dtype];
    if (selected_isa() == Isa::avx2) return avx2::mean_shift_backward_kernels[dtype];
#endif
    return baseline::mean_shift_backward_kernels[dtype];
}

}  // namespace

void mean_shift_forward(const MeanShiftForward& a, int dtype, int threads) {
    const MeanShiftForwardKernels& kernels = forward_kernels(dtype);
    const ThreadScratch scratch(kernels.scratch(a.shape), threads);
    parallel_shares(a.shape.batch * a.shape.height, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels.run(a, begin, end, scratch.of(thread));
    });
}

void mean_shift_backward(const MeanShiftBackward& a, int dtype, int threads, double* grad_centers,
                         double* grad_bandwidth) {
    const MeanShiftBackwardKernels& kernels = backward_kernels(dtype);
    const MeanShiftShape& s = a.shape;
    const std::int64_t rows = s.batch * s.height,
                       block = std::max<std::int64_t>(1, (rows + kMostBlocks - 1) / kMostBlocks);
    const std::int64_t blocks = (rows + block - 1) / block, centers = s.clusters * s.dim;
    std::vector<double> center_blocks(static_cast<std::size_t>(blocks * centers), 0.0);
    std::vector<double> bandwidth_rows(static_cast<std::size_t>(rows), 0.0);

    const ThreadScratch scratch(std::max(kernels.upstream_scratch(s), kernels.gather_scratch(s)), threads);
    parallel_shares(blocks, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i)
            kernels.upstream(a, i * block, std::min(rows, (i + 1) * block), center_blocks.data() + i * centers,
                             bandwidth_rows.data(), scratch.of(thread));
    });
    parallel_shares(rows, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels.gather(a, begin, end, bandwidth_rows.data(), scratch.of(thread));
    });

    std::fill(grad_centers, grad_centers + centers, 0.0);
    for (std::int64_t i = 0; i < blocks; ++i)
        for (std::int64_t j = 0; j < centers; ++j) grad_centers[j] += center_blocks[i * centers + j];
    double along_bandwidth = 0;
    for (double row : bandwidth_rows) along_bandwidth += row;
    *grad_bandwidth = along_bandwidth / (s.bandwidth * s.bandwidth * s.bandwidth);
}

}  // namespace spectrafuse
