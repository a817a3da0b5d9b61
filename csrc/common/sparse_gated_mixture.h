// Arguments of sparse_gated_mixture and one gate of it, shared by the launchers and the kernels of host and device.
#pragma once

#include "gate.h"
#include "gated_mixture.h"
#include "isa.h"
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
    PhiloxKeys keys;
    std::uint64_t step;
};

// On a GPU seed and step are read on the device: nothing of them is baked into a graph.
template <class T>
SPECTRAFUSE_SHARED DrawOptions<T> draw_options(const SparsityGates& g) {
    const bool drawn = g.rng != nullptr;
    return {gate_options<T>(g.shift, g.tau), static_cast<T>(g.noise),
            philox_keys(drawn ? static_cast<std::uint64_t>(g.rng[0]) : 0),
            drawn ? static_cast<std::uint64_t>(g.rng[1]) : 0};
}

// Words for the gates of elements `index` = n d + j of a sample: of block `index` of the stream (seed, step + (sample +
// 1) 2^32). The fourth is not used.
template <class A>
struct GateWords {
    typename A::Integer radius, turn, difference;
};

template <class A>
SPECTRAFUSE_SHARED GateWords<A> gate_words(const DrawOptions<typename A::Number>& options, std::int64_t sample,
                                           const typename A::Wide& index) {
    const std::uint64_t step = options.step + ((static_cast<std::uint64_t>(sample) + 1) << 32);
    const PhiloxBlock<A> block = stream_block<A>(options.keys, step, index);
    return {A::word(block.word[0]), A::word(block.word[1]), A::word(block.word[2])};
}

// The refinement's noise for both energies.
template <class A>
SPECTRAFUSE_SHARED NormalPair<A> refinement_noise(const DrawOptions<typename A::Number>& options,
                                                  typename A::Integer radius, typename A::Integer turn) {
    if (options.noise == 0) return {A::constant(0), A::constant(0)};
    const NormalPair<A> pair = normal_pair<A>(unit_of_word<A>(radius), unit_of_word<A>(turn));
    return {A::fused(pair.first, A::constant(options.noise), A::constant(0)),
            A::fused(pair.second, A::constant(options.noise), A::constant(0))};
}

// A gate with all its noise, for kernels that take one gate at a time.
template <class A>
SPECTRAFUSE_SHARED GateNumbers<A> drawn_gate(const DrawOptions<typename A::Number>& options, std::int64_t sample,
                                             const typename A::Wide& index, typename A::Real energy0,
                                             typename A::Real energy1) {
    const GateWords<A> words = gate_words<A>(options, sample, index);
    const NormalPair<A> pair = refinement_noise<A>(options, words.radius, words.turn);
    return gate_numbers<A>(options.gate, energy0, energy1, pair.first, pair.second,
                           logistic<A>(unit_of_word<A>(words.difference)));
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

SPECTRAFUSE_DECLARE(SparseGatedMixtureKernels sparse_gated_mixture_kernels[2])

void sparse_gated_mixture_forward(const SparseGatedMixture& arguments, int dtype, int threads);
void sparse_gated_mixture_backward(const SparseGatedMixtureBackward& arguments, int dtype, int threads);

}  // namespace spectrafuse
