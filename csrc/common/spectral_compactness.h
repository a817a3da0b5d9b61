// Arguments of spectral_compactness, shared by the bindings, the launcher and the kernels of every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.h"

namespace spectrafuse {

struct SpectralCompactness {
    std::int64_t batch, bands, pixels, clusters;
    const void* spectra;        // (B, C, N), any strides
    std::int64_t stride[3];     // of spectra, in elements
    const void* probs;          // (B, N, K)
    const std::uint8_t* valid;  // (B, N) or null: all pixels take part
    void* origin;               // (C): what the spectra are taken around
    void* means;                // (C, K): mean spectra of the clusters around the origin
    void* squared_norm;         // (B, N): |x - origin|^2, 0 where a pixel takes no part
    double scale;               // backward: what the squared distances are multiplied by
    void* grad_probs;           // backward: (B, N, K)
};

// Sums over pixels, of one block of tiles.
struct SpectralSums {
    double* products;  // (C, K): sum_i q_ik (x_i - origin)
    double* mass;      // (K): sum_i q_ik
    double* total;     // (): sum_ik q_ik |x_i - origin|^2
};

// Kernels of one instruction set and floating-point type. A tile is a run of pixels of one sample; tiles are
// independent of each other. `scratch` holds the number of bytes that `scratch` returns, aligned to 64.
struct SpectralCompactnessKernels {
    std::int64_t tile;  // pixels
    void (*origin)(const SpectralCompactness&);
    std::size_t (*scratch)(const SpectralCompactness&);
    // Adds to the sums and writes `squared_norm`.
    void (*forward)(const SpectralCompactness&, std::int64_t tile_begin, std::int64_t tile_end,
                    const SpectralSums& sums, void* scratch);
    // Writes `grad_probs`.
    void (*backward)(const SpectralCompactness&, std::int64_t tile_begin, std::int64_t tile_end, void* scratch);
};

SPECTRAFUSE_DECLARE(SpectralCompactnessKernels spectral_compactness_kernels[2])

// Writes `origin`, `means` and `squared_norm`, and returns sum_ik q_ik |x_i - mu_k|^2 / (number of pixels * C).
double spectral_compactness_forward(const SpectralCompactness& arguments, int dtype, int threads);
// Writes `grad_probs` for the gradient `arguments.scale` of the value.
void spectral_compactness_backward(SpectralCompactness arguments, int dtype, int threads);

}  // namespace spectrafuse
