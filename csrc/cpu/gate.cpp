// Gates of a block of components and all samples, a vector of components at a time.
//
// Reads 2 to 6 numbers and writes 3 a gate; backward reads 3 to 6 and writes 2: bound by memory.
#include "../common/gate.h"

#include "partial_vectors.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

template <class T>
Vector<T> gumbel_difference(const Gate& a, std::int64_t at, std::int64_t count) {
    const T* gumbel = static_cast<const T*>(a.gumbel);
    if (gumbel == nullptr) return Vector<T>{};
    if (!a.gumbel_of_both) return load_first(gumbel + at, count);
    const PairOfVectors<T> both = load_pairs(gumbel + 2 * at, count);
    return both.first - both.second;
}

template <class T>
void run(const Gate& a, std::int64_t block, double* sums) {
    using A = Lanes<T>;
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    const GateOptions<T> options = gate_options<T>(a.shift, a.tau);
    const bool hard = a.hard_threshold >= 0;
    const V threshold = broadcast<T>(static_cast<T>(hard ? a.hard_threshold : a.used_threshold));
    const std::int64_t first = block * kGateBlock;
    const std::int64_t end = first + kGateBlock < a.components ? first + kGateBlock : a.components;
    const T* langevin = static_cast<const T*>(a.langevin);
    LaneSums<T> energies, squares, gates;
    for (std::int64_t n = first; n < end; n += L) {
        const std::int64_t count = end - n < L ? end - n : L;
        const V inside = ones_first<T>(count);
        V any = {};
        for (std::int64_t b = 0; b < a.batch; ++b) {
            const std::int64_t at = b * a.components + n;
            const PairOfVectors<T> energy = load_pairs(static_cast<const T*>(a.energy) + 2 * at, count);
            PairOfVectors<T> noise = {};
            if (langevin != nullptr) noise = load_pairs(langevin + 2 * at, count);
            const GateNumbers<A> gate = gate_numbers<A>(options, energy.first, energy.second, noise.first, noise.second,
                                                        gumbel_difference<T>(a, at, count));
            const V selected = gate.select_prob > threshold ? inside : V{};
            const V prob = hard ? selected : gate.select_prob;
            any += selected;
            energies.add(inside * (gate.energy0 + gate.energy1));
            squares.add(inside * A::fused(gate.energy0, gate.energy0, gate.energy1 * gate.energy1));
            gates.add(inside * prob);
            store_first(static_cast<T*>(a.select_prob) + at, prob, count);
            store_pairs(static_cast<T*>(a.select_energy) + 2 * at, gate.energy0, gate.energy1, count);
        }
        for (std::int64_t i = 0; i < count; ++i) a.used[n + i] = any[i] > 0;
    }
    sums[0] = energies.total();
    sums[1] = squares.total();
    sums[2] = gates.total();
}

template <class T>
T value_of(const void* scalar) {
    return scalar == nullptr ? T(0) : *static_cast<const T*>(scalar);
}

template <class T>
void backward(const GateBackward& a, std::int64_t block) {
    using A = Lanes<T>;
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    const GateOptions<T> options = gate_options<T>(0.0, a.tau);
    const std::int64_t first = block * kGateBlock;
    const std::int64_t end = first + kGateBlock < a.components ? first + kGateBlock : a.components;
    const T* grad_prob = static_cast<const T*>(a.grad_prob);
    const T* grad_energy = static_cast<const T*>(a.grad_energy);
    const V each = broadcast<T>(value_of<T>(a.grad_sum[0])), square = broadcast<T>(2 * value_of<T>(a.grad_sum[1]));
    const V gate = broadcast<T>(value_of<T>(a.grad_sum[2]));
    for (std::int64_t n = first; n < end; n += L) {
        const std::int64_t count = end - n < L ? end - n : L;
        for (std::int64_t b = 0; b < a.batch; ++b) {
            const std::int64_t at = b * a.components + n;
            const PairOfVectors<T> energy = load_pairs(static_cast<const T*>(a.select_energy) + 2 * at, count);
            V along0 = A::fused(square, energy.first, each), along1 = A::fused(square, energy.second, each);
            if (grad_energy != nullptr) {
                const PairOfVectors<T> given = load_pairs(grad_energy + 2 * at, count);
                along0 += given.first;
                along1 += given.second;
            }
            if (!a.hard) {
                V upstream = gate;
                if (grad_prob != nullptr) upstream += load_first(grad_prob + at, count);
                const V slope =
                    upstream * gate_slope<A>(options, load_first(static_cast<const T*>(a.select_prob) + at, count));
                along0 += slope;
                along1 -= slope;
            }
            store_pairs(static_cast<T*>(a.grad) + 2 * at, -along0, -along1, count);
        }
    }
}

}  // namespace

extern const GateKernels gate_kernels[2] = {
    {run<float>, backward<float>},
    {run<double>, backward<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
