// Arguments of clustering_objective, shared by the bindings, the launcher and the kernels of every instruction set.
#pragma once

#include "isa.h"
#include "mean_shift_assign.h"

namespace spectrafuse {

// What both directions read. `shape.batch` counts views: the first views of all samples, then the second views.
struct ClusteringInputs {
    MeanShiftShape shape;
    const void* embeddings;      // (2B, D, h, w), any strides
    std::int64_t stride[4];      // of embeddings, in elements
    const void* centers;         // (K, D)
    const double* geometry;      // (B, 2, 9), or null: views are compared index by index
    const std::int64_t* labels;  // (2, B h w) or null
    const std::uint8_t* valid;   // (2B, h, w) or null: all
};

struct ClusteringForward {
    ClusteringInputs in;
    void* probs;     // (2B, h, w, K)
    void* previous;  // (2B, D, h, w) or null: z before the last iteration
    void* shifted;   // (2B, D, h, w), or null: sums pair every pixel with its own z
};

// What the forward leaves besides tensors.
struct ClusteringResults {
    double compactness[2], uniform, orthogonality, balance, consistency;
    std::int64_t counts[3];  // valid pixels of both views, pairs the consistency compared
    double* mass;            // (K)
    double* sums;            // (K, D)
    double* marginals;       // (2, K): mean assignment + epsilon of each view
};

struct ClusteringBackward {
    ClusteringInputs in;
    const void* probs;           // (2B, h, w, K)
    const void* previous;        // (2B, D, h, w)
    const double* marginals;     // (2, K)
    const std::int64_t* counts;  // (3)
    const void* grad_probs;      // (2B, h, w, K) or null
    // Gradients of the terms.
    double compactness[2], uniform, orthogonality, balance, consistency;
    void* upstream;         // workspace (2B, D, h, w)
    void* upstream_dot;     // workspace (2B, h, w)
    void* grad_embeddings;  // (2B, D, h, w)
};

// Gradients of the terms per pixel, cluster and pair.
struct ClusteringGradients {
    double compactness[2], surprise[2], consistency;
    const double* marginal;  // (2, K): dL/dq_ik by way of the balance
};

// Sums over a block of rows of one view: three numbers, mass (K), sums (K, D).
enum ClusteringSum { kCompactnessSum, kSurpriseSum, kPixels, kMass };

// Kernels of one instruction set and floating-point type. Rows are numbered over all views, 0 .. 2B h - 1.
struct ClusteringForwardKernels {
    std::size_t (*assign_scratch)(const MeanShiftShape&);
    // Kernel 1: mean shift, assignment and every sum over the pixels of these rows, all of one view.
    void (*assign)(const ClusteringForward&, std::int64_t row_begin, std::int64_t row_end, double* sums, void* scratch);
    std::size_t (*compare_scratch)(const MeanShiftShape&);
    // Kernel 2: the divergence of these rows from the other view, summed per row, and the pairs that count.
    void (*compare)(const ClusteringForward&, std::int64_t row_begin, std::int64_t row_end, double* divergence_rows,
                    std::int64_t* pairs_rows, void* scratch);
    // Adds the sums (K, D) that pair assignments and moved embeddings by memory order.
    void (*memory_order)(const ClusteringForward&, std::int64_t row_begin, std::int64_t row_end, double* sums);
};

struct ClusteringBackwardKernels {
    std::size_t (*scratch)(const MeanShiftShape&);
    // Writes upstream, upstream_dot and the compactness' own gradient to grad_embeddings, adds dL/dcenters of these
    // rows (without the orthogonality's) to centers_sum (K, D), and writes bandwidth_rows as MeanShiftBackwardKernels.
    void (*upstream)(const ClusteringBackward&, const ClusteringGradients&, std::int64_t row_begin,
                     std::int64_t row_end, double* centers_sum, double* bandwidth_rows, void* scratch);
};

SPECTRAFUSE_DECLARE(ClusteringForwardKernels clustering_objective_forward_kernels[2])
SPECTRAFUSE_DECLARE(ClusteringBackwardKernels clustering_objective_backward_kernels[2])

void clustering_objective_forward(const ClusteringForward& arguments, int dtype, int threads,
                                  ClusteringResults& results);
// Writes grad_centers (K, D) and returns dL/dbandwidth.
double clustering_objective_backward(const ClusteringBackward& arguments, int dtype, int threads, double* grad_centers);

}  // namespace spectrafuse
