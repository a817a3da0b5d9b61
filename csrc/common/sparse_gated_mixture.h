// Arguments of sparse_gated_mixture and one gate of it, shared by the launchers and the kernels of host and device.
#pragma once

#include "gate.h"
#include "gated_mixture.h"
#include "philox.h"

namespace spectrafuse {

// Gates (B, N, d): drawn inside from `rng`, made of given numbers, or without noise and then shared by all samples.
struct SparsityGates {
    const void* energy;        // (N, d, 2)
    const std::int64_t* rng;   // seed and step, or null
    const void* gumbel;        // (B, N, d), (B, N, d, 2) or null
    bool gumbel_of_both;       // gumbel is (B, N, d, 2)
    const void* langevin;      // (B, N, d, 2) or null
    double shift, noise, tau;  // shift and noise of the refinement, the latter for numbers drawn inside
};

struct SparseGatedMixture {
    MixturePool pool;
    SparsityGates gates;
    void* mixture;            // (B, d)
    void* energy_sum;         // ()
    void* energy_square_sum;  // ()
};

struct SparseGatedMixtureBackward {
    MixturePool pool;
    SparsityGates gates;
    const void* grad;             // (B, d), of the mixture
    const void* grad_sum;         // () or null
    const void* grad_square_sum;  // () or null
    void* grad_concentration;     // (B, N)
    void* grad_select_prob;       // (B, N)
    void* grad_raw;               // (N, d)
    void* grad_energy;            // (N, d, 2)
};

template <class T>
struct DrawOptions {
    GateOptions<T> gate;
    T noise;  // of the refinement; 0: none is drawn
    std::uint64_t seed, step;
};

// The gate of elements `index` = n d + j of a sample, its numbers drawn: block `index` of the stream (seed, step +
// (sample + 1) 2^32). Words 0 and 1 make the refinement's pair, word 2 the logistic number; word 3 is not used.
template <class A>
SPECTRAFUSE_SHARED GateNumbers<A> drawn_gate(const DrawOptions<typename A::Number>& options, std::int64_t sample,
                                             const typename A::Wide& index, typename A::Real energy0,
                                             typename A::Real energy1) {
    const std::uint64_t step = options.step + ((static_cast<std::uint64_t>(sample) + 1) << 32);
    const PhiloxBlock<A> block = stream_block<A>(options.seed, step, index);
    const typename A::Real difference = logistic<A>(unit_of_word<A>(A::word(block.word[2])));
    NormalPair<A> pair = {difference - difference, difference - difference};
    if (options.noise != 0) {
        pair = normal_pair<A>(unit_of_word<A>(A::word(block.word[0])), unit_of_word<A>(A::word(block.word[1])));
        pair.first = A::fused(pair.first, A::constant(options.noise), A::constant(0));
        pair.second = A::fused(pair.second, A::constant(options.noise), A::constant(0));
    }
    return gate_numbers<A>(options.gate, energy0, energy1, pair.first, pair.second, difference);
}

// Partial mixtures and packed gradients are laid out, added and packed as those of gated_mixture.
struct SparseGatedMixtureKernels {
    std::size_t (*scratch)(const MixturePool&);
    // Mixture of components [begin, end) into `partial`, and the two sums of their energies into `sums`.
    void (*run)(const SparseGatedMixture&, std::int64_t begin, std::int64_t end, void* partial, double* sums,
                void* scratch);
    void (*backward)(const SparseGatedMixtureBackward&, std::int64_t begin, std::int64_t end, const void* packed,
                     void* scratch);
};

// Index 0 is float32, 1 is float64.
#define SPECTRAFUSE_DECLARE_ISA(isa)                                        \
    namespace isa {                                                         \
    extern const SparseGatedMixtureKernels sparse_gated_mixture_kernels[2]; \
    }
SPECTRAFUSE_DECLARE_ISA(baseline)
SPECTRAFUSE_DECLARE_ISA(avx2)
SPECTRAFUSE_DECLARE_ISA(avx512)
#undef SPECTRAFUSE_DECLARE_ISA

void sparse_gated_mixture_forward(const SparseGatedMixture& arguments, int dtype, int threads);
void sparse_gated_mixture_backward(const SparseGatedMixtureBackward& arguments, int dtype, int threads);

}  // namespace spectrafuse
