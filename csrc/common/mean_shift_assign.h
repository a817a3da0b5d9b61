// Arguments of mean_shift_assign, shared by the bindings, the launcher and the kernels of every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.h"

namespace spectrafuse {

struct MeanShiftShape {
    std::int64_t batch, dim, height, width, clusters;
    int iterations, window;
    double bandwidth, temperature;
};

struct MeanShiftForward {
    MeanShiftShape shape;
    const void* embeddings;  // (B, D, H, W), any strides
    std::int64_t stride[4];  // of embeddings, in elements
    const void* centers;     // (K, D)
    void* shifted;           // (B, D, H, W) or null
    void* probs;             // (B, H, W, K) or null
    void* previous;          // (B, D, H, W) or null: z before the last iteration
    void* weight_sum;        // (B, H, W) or null: sum of the last weights + epsilon
    std::int64_t* labels;    // (B, H, W) or null
};

struct MeanShiftBackward {
    MeanShiftShape shape;
    const void* embeddings;  // (B, D, H, W), any strides
    std::int64_t stride[4];
    const void* centers;       // (K, D)
    const void* shifted;       // (B, D, H, W)
    const void* probs;         // (B, H, W, K)
    const void* previous;      // (B, D, H, W)
    const void* weight_sum;    // (B, H, W)
    const void* grad_shifted;  // (B, D, H, W) or null
    const void* grad_probs;    // (B, H, W, K) or null
    void* upstream;            // workspace (B, D, H, W): G = dL/dy / weight_sum
    void* upstream_dot;        // workspace (B, H, W): G . (y - previous)
    void* grad_embeddings;     // (B, D, H, W)
};

// The gather that ends every backward through mean shift; see cpu/mean_shift_gather.cpp.
struct MeanShiftGather {
    MeanShiftShape shape;
    const void* embeddings;  // (B, D, H, W), any strides
    std::int64_t stride[4];
    const void* previous;      // (B, D, H, W)
    const void* upstream;      // (B, D, H, W)
    const void* upstream_dot;  // (B, H, W)
    void* grad_embeddings;     // (B, D, H, W)
    bool add;                  // to what grad_embeddings holds
};

// Kernels of one instruction set and floating-point type. A row is one image row of one sample, numbered 0 .. B * H -
// 1; rows are independent of each other, so results do not depend on how they are spread over threads. `scratch` holds
// the number of bytes that the `_scratch` function returns, aligned to 64.
struct MeanShiftForwardKernels {
    std::size_t (*scratch)(const MeanShiftShape&);
    void (*run)(const MeanShiftForward&, std::int64_t row_begin, std::int64_t row_end, void* scratch);
};

struct MeanShiftBackwardKernels {
    std::size_t (*upstream_scratch)(const MeanShiftShape&);
    // Writes `upstream` and `upstream_dot`, adds dL/dcenters of these rows to centers_sum (K, D), and writes the part
    // of dL/dbandwidth that comes from neighbours outside the image to bandwidth_rows[row].
    void (*upstream)(const MeanShiftBackward&, std::int64_t row_begin, std::int64_t row_end, double* centers_sum,
                     double* bandwidth_rows, void* scratch);
};

struct MeanShiftGatherKernels {
    std::size_t (*scratch)(const MeanShiftShape&);
    // Writes `grad_embeddings` and adds dL/dbandwidth of the pairs inside the image to bandwidth_rows[row]; both parts
    // of dL/dbandwidth lack the factor 1 / bandwidth^3.
    void (*run)(const MeanShiftGather&, std::int64_t row_begin, std::int64_t row_end, double* bandwidth_rows,
                void* scratch);
};

SPECTRAFUSE_DECLARE(MeanShiftForwardKernels mean_shift_assign_forward_kernels[2])
SPECTRAFUSE_DECLARE(MeanShiftBackwardKernels mean_shift_assign_backward_kernels[2])
SPECTRAFUSE_DECLARE(MeanShiftGatherKernels mean_shift_gather_kernels[2])

void mean_shift_assign_forward(const MeanShiftForward& arguments, int dtype, int threads);
void mean_shift_assign_backward(const MeanShiftBackward& arguments, int dtype, int threads, double* grad_centers,
                                double* grad_bandwidth);
// Runs the gather and returns dL/dbandwidth; `bandwidth_rows` holds what the neighbours outside the image gave.
double mean_shift_gather(const MeanShiftGather& arguments, int dtype, int threads, double* bandwidth_rows);

}  // namespace spectrafuse
