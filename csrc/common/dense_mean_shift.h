// Arguments of dense_mean_shift, shared by the bindings, the launcher and the kernels of every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.h"

namespace spectrafuse {

// One iteration of all images, forward (grad is null) or backward.
struct DenseIteration {
    std::int64_t batch, pixels, dim;
    double bandwidth;
    const void* state;    // (B, N, D): z before the iteration
    void* totals;         // (B, N): sum_j w_ij + epsilon, written forward and read backward
    const void* shifted;  // backward: (B, N, D), z after the iteration
    const void* grad;     // backward: (B, N, D), dL/dz after the iteration
    void* result;         // (B, N, D): forward z after the iteration, backward dL/dz before it
    void* workspace;      // as many bytes as dense_mean_shift_workspace() returns, aligned to 64
};

// Pixels are numbered in blocks of `kBlock`; a pair of blocks is the unit of work.
constexpr std::int64_t kDenseBlock = 64;

// Kernels of one instruction set and floating-point type.
struct DenseMeanShiftKernels {
    std::size_t (*workspace)(const DenseIteration&);
    std::size_t scratch;  // bytes a thread needs, aligned to 64
    // Finds a point amid the state of an image.
    void (*origin)(const DenseIteration&, std::int64_t image);
    // Lays a block out for `pair`, and clears its sums.
    void (*prepare)(const DenseIteration&, std::int64_t image, std::int64_t block);
    // Adds the pairs of pixels of two blocks to the sums of both, of equal ones once. Returns the pairs' part of
    // sum_i<j u_ij x_ij (see the kernel's file); 0 forward.
    double (*pair)(const DenseIteration&, std::int64_t image, std::int64_t one, std::int64_t other, void* scratch);
    // Writes the block's `result`, forward also its `totals`.
    void (*finish)(const DenseIteration&, std::int64_t image, std::int64_t block);
};

// Index 0 is float32, 1 is float64; then forward, backward.
SPECTRAFUSE_DECLARE(DenseMeanShiftKernels dense_mean_shift_kernels[2][2])

std::size_t dense_mean_shift_workspace(const DenseIteration& arguments, int dtype);
// Runs one iteration; returns its part of dL/dbandwidth, 0 forward.
double dense_mean_shift_iteration(const DenseIteration& arguments, int dtype, int threads);

}  // namespace spectrafuse
