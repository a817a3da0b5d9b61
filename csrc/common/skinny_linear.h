// Arguments and arithmetic of skinny_linear, shared by the bindings, the launchers and the kernels of host and device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"
#include "isa.h"

namespace spectrafuse {

enum class Activation : int { none, tanh, relu, abs };

constexpr float kSmallTanh = 0.625f;

// tanh(x) for |x| < kSmallTanh, within 2 ulp (Cephes); V is T or a vector of T.
template <class V>
SPECTRAFUSE_SHARED V small_tanh(V x, float) {
    const V z = x * x;
    V p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    return p * z * x + x;
}

template <class V>
SPECTRAFUSE_SHARED V small_tanh(V x, double) {
    const V z = x * x;
    V p = z * -9.64399179425052238628e-1 - 9.92877231001918586564e1;
    p = p * z - 1.61468768441708447952e3;
    V q = z + 1.12811678491632931402e2;
    q = q * z + 2.23548839060100448583e3;
    q = q * z + 4.84406305325125486048e3;
    return x + x * z * (p / q);
}

struct SkinnyLinear {
    std::int64_t batch, inputs, outputs;
    Activation activation;
    const void* x;       // (B, I)
    const void* weight;  // (O, I)
    const void* bias;    // (O) or null
    void* y;             // (B, O)
    void* before;        // (B, O) or null: values before the activation
};

struct SkinnyLinearBackward {
    std::int64_t batch, inputs, outputs;
    const void* weight;  // (O, I)
    const void* grad_y;  // (B, O), before the activation
    void* grad_x;        // (B, I)
};

// Groups of outputs are independent of each other. The input gradient is the sum of what parts of the outputs give,
// added in their order: neither result depends on how they are spread over threads, and a thread reads the same rows of
// the weight in both directions.
constexpr std::int64_t kLinearGroup = 8, kLinearColumns = 256, kLinearParts = 8, kLinearPartRows = 128;

// Outputs of each part but the last: whole groups.
inline std::int64_t linear_part_rows(std::int64_t outputs) {
    const std::int64_t rows =
        (outputs + kLinearParts * kLinearGroup - 1) / (kLinearParts * kLinearGroup) * kLinearGroup;
    return rows < kLinearPartRows ? kLinearPartRows : rows;
}

struct SkinnyLinearForwardKernels {
    std::size_t (*packed_size)(const SkinnyLinear&);
    // x as (I, B), the samples of an input next to each other and rounded up to whole vectors: inputs [begin, end).
    void (*pack)(const SkinnyLinear&, std::int64_t begin, std::int64_t end, void* packed);
    void (*run)(const SkinnyLinear&, std::int64_t group_begin, std::int64_t group_end, const void* packed);
};

struct SkinnyLinearBackwardKernels {
    std::size_t (*scratch)(const SkinnyLinearBackward&);
    // What outputs [begin, end) give, into grad_x (B, I).
    void (*run)(const SkinnyLinearBackward&, std::int64_t begin, std::int64_t end, void* grad_x, void* scratch);
    // Elements [begin, end) of the sum of `parts` such arrays, one after the other.
    void (*add)(const SkinnyLinearBackward&, const void* partials, std::int64_t parts, std::int64_t begin,
                std::int64_t end);
};

SPECTRAFUSE_DECLARE(SkinnyLinearForwardKernels skinny_linear_forward_kernels[2])
SPECTRAFUSE_DECLARE(SkinnyLinearBackwardKernels skinny_linear_backward_kernels[2])

void skinny_linear_forward(const SkinnyLinear& arguments, int dtype, int threads);
void skinny_linear_backward(const SkinnyLinearBackward& arguments, int dtype, int threads);

}  // namespace spectrafuse
