// Arguments of gated_mixture, shared by the bindings, the launchers and the kernels of host and device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"
#include "isa.h"

namespace spectrafuse {

// A pool of components and how spectra are made of them.
struct MixturePool {
    std::int64_t batch, components, bands;
    bool non_negative;
    int norm;                   // 0, 1 or 2
    const void* concentration;  // (B, N)
    const void* select_prob;    // (B, N)
    const void* raw;            // (N, d)
};

struct GatedMixture {
    MixturePool pool;
    void* mixture;  // (B, d)
};

struct GatedMixtureBackward {
    MixturePool pool;
    const void* grad;          // (B, d), of the mixture
    void* grad_concentration;  // (B, N)
    void* grad_select_prob;    // (B, N)
    void* grad_raw;            // (N, d)
};

// c s^2 over the length of its component: the weight of a component in a mixture.
template <class T>
SPECTRAFUSE_SHARED T mixing_weight(T concentration, T select_prob, T length) {
    return concentration * select_prob * select_prob / length;
}

// Derivative of a mixture's loss by one raw component value: `along_spectrum` is the derivative by the spectrum, which
// is |V| (or V) over its length; `along_length` by the length. A zero row has the length 1 and no derivative by it.
template <class T>
SPECTRAFUSE_SHARED T raw_gradient(T raw, T along_spectrum, T along_length, T length, bool non_negative, int norm) {
    const T sign = raw > T(0) ? T(1) : raw < T(0) ? T(-1) : T(0);
    const T direct = non_negative ? sign * along_spectrum : along_spectrum;
    return direct + along_length * (norm == 2 ? raw / length : norm == 1 ? sign : T(0));
}

// Components are taken in blocks. The mixture is summed in a block and then over blocks, and the number of blocks does
// not depend on the number of threads: neither do results.
constexpr std::int64_t kMixtureRows = 32, kMostMixtureBlocks = 16;

SPECTRAFUSE_HOST_DEVICE inline std::int64_t mixture_block_rows(std::int64_t components) {
    const std::int64_t groups = (components + kMixtureRows - 1) / kMixtureRows;
    return (groups + kMostMixtureBlocks - 1) / kMostMixtureBlocks * kMixtureRows;
}

struct GatedMixtureKernels {
    // Bytes of a partial mixture or a packed gradient (samples and bands rounded up), and of scratch memory.
    std::size_t (*partial_size)(const MixturePool&);
    std::size_t (*scratch)(const MixturePool&);
    // Mixture of components [begin, end), into `partial`.
    void (*run)(const GatedMixture&, std::int64_t begin, std::int64_t end, void* partial, void* scratch);
    // Adds `blocks` partial mixtures, for samples [begin, end).
    void (*add)(const MixturePool&, const void* partials, std::int64_t blocks, std::int64_t begin, std::int64_t end,
                void* mixture);
    void (*pack)(const MixturePool&, const void* grad, void* packed);
    void (*backward)(const GatedMixtureBackward&, std::int64_t begin, std::int64_t end, const void* packed,
                     void* scratch);
};

SPECTRAFUSE_DECLARE(GatedMixtureKernels gated_mixture_kernels[2])

void gated_mixture_forward(const GatedMixture& arguments, int dtype, int threads);
void gated_mixture_backward(const GatedMixtureBackward& arguments, int dtype, int threads);

}  // namespace spectrafuse
