// The sparse form of the mixture: a gate for every sample, component and band, drawn where it is used.
//
// For each component: its spectrum (|V| and length, as in gated_mixture) and both energies are copied to the
// first-level cache; then for a vector of bands every sample's gate is drawn and meets its weight. Backward draws the
// same gates again and sums over samples in registers. Nothing of size B N d is stored.
// Reads 12 and writes (backward) 12 bytes a component and band, for all samples; computes per gate 10 rounds of
// Philox, two logarithms, a root, sine and cosine and an exponential, about 300 operations: bound by arithmetic.
#include "../common/sparse_gated_mixture.h"

#include "mixture_rows.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

enum class Noise { none, drawn, given };

// Where the rows of one component lie in scratch memory, all (padded d), then per sample three vectors of noise and one
// of sums.
template <class T>
struct Row {
    T *spectrum, *energy0, *energy1, *along_spectrum, *noise, *products;

    Row(const MixturePool& p, void* scratch) : spectrum(static_cast<T*>(scratch)) {
        const std::int64_t pitch = padded_bands<T>(p);
        energy0 = spectrum + pitch;
        energy1 = energy0 + pitch;
        along_spectrum = energy1 + pitch;
        noise = along_spectrum + pitch;
        products = noise + 3 * p.batch * lanes<T>;
    }

    // Returns the length of the spectrum.
    T load(const MixturePool& p, const void* energy, std::int64_t n) {
        const std::int64_t pitch = padded_bands<T>(p);
        for (std::int64_t j = 0; j < pitch; j += lanes<T>) {
            PairOfVectors<T> pair = {};
            if (j < p.bands) pair = load_pairs(static_cast<const T*>(energy) + 2 * (n * p.bands + j), p.bands - j);
            store(energy0 + j, pair.first);
            store(energy1 + j, pair.second);
        }
        return load_row(p, n, spectrum);
    }
};

template <class T>
std::size_t scratch_size(const MixturePool& p) {
    return sizeof(T) * static_cast<std::size_t>(4 * padded_bands<T>(p) + p.batch * (4 * lanes<T> + 1));
}

// The noise of all samples for a vector of elements from `first` on: both energies' and the difference of the classes'.
// One short loop after another: a processor overlaps several turns of each, but not of one loop with all the work in
// it.
template <class T>
void draw(const DrawOptions<T>& shared, std::int64_t batch, std::int64_t first, T* noise) {
    using A = Lanes<T>;
    const DrawOptions<T> options = shared;  // what only this function knows of is not read again after each store
    constexpr int L = lanes<T>;
    const typename A::Wide index = A::counting_from(static_cast<std::uint64_t>(first));
    T* const end = noise + 3 * batch * L;
    for (std::int64_t b = 0; b < batch; ++b) {
        const GateWords<A> words = gate_words<A>(options, b, index);
        T* at = noise + 3 * b * L;
        store(at, A::from_bits(words.radius));
        store(at + L, A::from_bits(words.turn));
        store(at + 2 * L, A::from_bits(words.difference));
    }
    for (T* at = noise; at < end; at += 3 * L) {
        const NormalPair<A> pair = refinement_noise<A>(options, A::bits(load(at)), A::bits(load(at + L)));
        store(at, pair.first);
        store(at + L, pair.second);
    }
    for (T* at = noise + 2 * L; at < end; at += 3 * L) store(at, logistic<A>(unit_of_word<A>(A::bits(load(at)))));
}

// Gates of one sample, component n and a vector of bands from j on; `drawn` is what `draw` left.
template <class T, Noise kind>
inline GateNumbers<Lanes<T>> gates_of(const MixturePool& p, const SparsityGates& g, const DrawOptions<T>& options,
                                      std::int64_t sample, std::int64_t n, std::int64_t j, Vector<T> energy0,
                                      Vector<T> energy1, const T* drawn) {
    using A = Lanes<T>;
    if constexpr (kind == Noise::drawn) {
        const T* at = drawn + 3 * sample * lanes<T>;
        return gate_numbers<A>(options.gate, energy0, energy1, load(at), load(at + lanes<T>), load(at + 2 * lanes<T>));
    } else if constexpr (kind == Noise::given) {
        const std::int64_t at = (sample * p.components + n) * p.bands + j, count = p.bands - j;
        const T *gumbel = static_cast<const T*>(g.gumbel), *langevin = static_cast<const T*>(g.langevin);
        PairOfVectors<T> noise = {}, both = {};
        if (langevin != nullptr) noise = load_pairs(langevin + 2 * at, count);
        if (g.gumbel_of_both)
            both = load_pairs(gumbel + 2 * at, count);
        else
            both.first = load_first(gumbel + at, count);
        return gate_numbers<A>(options.gate, energy0, energy1, noise.first, noise.second, both.first - both.second);
    } else {
        return gate_numbers<A>(options.gate, energy0, energy1, Vector<T>{}, Vector<T>{}, Vector<T>{});
    }
}

template <class T, Noise kind>
void run_rows(const SparseGatedMixture& a, std::int64_t begin, std::int64_t end, T* partial, double* sums,
              void* scratch) {
    using A = Lanes<T>;
    using V = Vector<T>;
    const MixturePool& p = a.pool;
    const std::int64_t pitch = padded_bands<T>(p);
    const DrawOptions<T> options = draw_options<T>(a.gates);
    Row<T> row(p, scratch);
    T* weights = row.products;
    LaneSums<T> energies, squares;
    __builtin_memset(partial, 0, partial_size<T>(p));
    for (std::int64_t n = begin; n < end; ++n) {
        const T length = row.load(p, a.gates.energy, n);
        for (std::int64_t b = 0; b < p.batch; ++b) weights[b] = weight_of(p, b, n, length);
        for (std::int64_t j = 0; j < p.bands; j += lanes<T>) {
            const V energy0 = load(row.energy0 + j), energy1 = load(row.energy1 + j), spectrum = load(row.spectrum + j);
            GateNumbers<A> gate = gates_of<T, Noise::none>(p, a.gates, options, 0, n, j, energy0, energy1, row.noise);
            if (kind == Noise::drawn) draw(options, p.batch, n * p.bands + j, row.noise);
            V sum = {}, square = {};
            for (std::int64_t b = 0; b < p.batch; ++b) {
                if (kind != Noise::none)
                    gate = gates_of<T, kind>(p, a.gates, options, b, n, j, energy0, energy1, row.noise);
                T* at = partial + b * pitch + j;
                store(at, A::fused(gate.select_prob * spectrum, broadcast<T>(weights[b]), load(at)));
                sum += gate.energy0 + gate.energy1;
                square = A::fused(gate.energy0, gate.energy0, A::fused(gate.energy1, gate.energy1, square));
            }
            const V inside = ones_first<T>(p.bands - j);
            energies.add(inside * sum);
            squares.add(inside * square);
        }
    }
    sums[0] = energies.total();
    sums[1] = squares.total();
}

template <class T>
void run(const SparseGatedMixture& a, std::int64_t begin, std::int64_t end, void* partial, double* sums,
         void* scratch) {
    T* to = static_cast<T*>(partial);
    if (a.gates.rng != nullptr) return run_rows<T, Noise::drawn>(a, begin, end, to, sums, scratch);
    if (a.gates.gumbel != nullptr) return run_rows<T, Noise::given>(a, begin, end, to, sums, scratch);
    run_rows<T, Noise::none>(a, begin, end, to, sums, scratch);
}

template <class T>
Vector<T> value_of(const void* scalar, T factor) {
    return scalar == nullptr ? Vector<T>{} : broadcast<T>(factor * *static_cast<const T*>(scalar));
}

template <class T, Noise kind>
void backward_rows(const SparseGatedMixtureBackward& a, std::int64_t begin, std::int64_t end, const T* grad,
                   void* scratch) {
    using A = Lanes<T>;
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    const MixturePool& p = a.pool;
    const std::int64_t pitch = padded_bands<T>(p);
    const DrawOptions<T> options = draw_options<T>(a.gates);
    const V each = value_of<T>(a.grad_sum, static_cast<T>(p.batch)), square = value_of<T>(a.grad_square_sum, 2);
    Row<T> row(p, scratch);
    T* weights = row.products + p.batch * L;
    for (std::int64_t n = begin; n < end; ++n) {
        const T length = row.load(p, a.gates.energy, n);
        for (std::int64_t b = 0; b < p.batch; ++b) weights[b] = weight_of(p, b, n, length);
        __builtin_memset(row.products, 0, sizeof(T) * static_cast<std::size_t>(p.batch * L));
        for (std::int64_t j = 0; j < p.bands; j += L) {
            const V energy0 = load(row.energy0 + j), energy1 = load(row.energy1 + j), spectrum = load(row.spectrum + j);
            GateNumbers<A> gate = gates_of<T, Noise::none>(p, a.gates, options, 0, n, j, energy0, energy1, row.noise);
            if (kind == Noise::drawn) draw(options, p.batch, n * p.bands + j, row.noise);
            V along_spectrum = {}, along_gate = {}, sum0 = {}, sum1 = {};
            for (std::int64_t b = 0; b < p.batch; ++b) {
                if (kind != Noise::none)
                    gate = gates_of<T, kind>(p, a.gates, options, b, n, j, energy0, energy1, row.noise);
                const V upstream = load(grad + b * pitch + j), open = upstream * gate.select_prob;
                T* product = row.products + b * L;
                store(product, A::fused(open, spectrum, load(product)));
                along_spectrum = A::fused(open, broadcast<T>(weights[b]), along_spectrum);
                along_gate = A::fused(upstream * weights[b], gate_slope<A>(options.gate, gate.select_prob), along_gate);
                sum0 += gate.energy0;
                sum1 += gate.energy1;
            }
            store(row.along_spectrum + j, along_spectrum);
            along_gate *= spectrum;
            store_pairs(static_cast<T*>(a.grad_energy) + 2 * (n * p.bands + j), -(each + square * sum0 + along_gate),
                        along_gate - each - square * sum1, p.bands - j);
        }
        T along_length = 0;
        for (std::int64_t b = 0; b < p.batch; ++b) {
            const T product = folded<T>(load(row.products + b * L));
            along_length = less_product(along_length, weights[b], product);
            store_weight_gradients(p, b, n, product, length, a.grad_concentration, a.grad_select_prob);
        }
        store_raw_gradient(p, n, row.along_spectrum, along_length / length, length, a.grad_raw);
    }
}

template <class T>
void backward(const SparseGatedMixtureBackward& a, std::int64_t begin, std::int64_t end, const void* packed,
              void* scratch) {
    const T* grad = static_cast<const T*>(packed);
    if (a.gates.rng != nullptr) return backward_rows<T, Noise::drawn>(a, begin, end, grad, scratch);
    if (a.gates.gumbel != nullptr) return backward_rows<T, Noise::given>(a, begin, end, grad, scratch);
    backward_rows<T, Noise::none>(a, begin, end, grad, scratch);
}

}  // namespace

extern const SparseGatedMixtureKernels sparse_gated_mixture_kernels[2] = {
    {scratch_size<float>, run<float>, backward<float>},
    {scratch_size<double>, run<double>, backward<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
