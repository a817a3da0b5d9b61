// Random numbers on the CPU: Philox blocks for a vector of counters at a time into a buffer in the first-level cache,
// then units, then numbers.
//
// Writes 4 bytes a number; 10 rounds of Philox (2 products of 32 by 32 bits) make 4 words: bound by arithmetic.
#include "../common/random_fill.h"

#include "lanes.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr std::int64_t kChunk = 512;
template <class T>
constexpr std::int64_t kWordsPerUnit = sizeof(T) / 4;

// Words [first, first + count), and some more behind and in front of them; returns where the first one is.
template <class T>
const std::uint32_t* make_words(const RandomFill& a, std::int64_t first, std::int64_t count, std::uint32_t* buffer) {
    using A = Lanes<T>;
    constexpr int L = lanes<T>;
    const PhiloxKeys keys = philox_keys(a.seed);
    for (std::int64_t block = first / 4, at = 0; 4 * block < first + count; block += L, at += 4 * L) {
        const PhiloxBlock<A> made = stream_block<A>(keys, a.step, A::counting_from(block));
        for (int w = 0; w < 4; ++w) {
            const typename A::Integer word = A::word(made.word[w]);
            for (int i = 0; i < L; ++i) buffer[at + 4 * i + w] = static_cast<std::uint32_t>(word[i]);
        }
    }
    return buffer + first % 4;
}

inline void units_of_words(const std::uint32_t* words, std::int64_t count, float* units) {
    for (std::int64_t i = 0; i < count; i += lanes<float>) {
        IntVector word;
        __builtin_memcpy(&word, words + i, sizeof word);
        store(units + i, unit_of_word<Lanes<float>>(word));
    }
}

inline void units_of_words(const std::uint32_t* words, std::int64_t count, double* units) {
    for (std::int64_t i = 0; i < count; i += lanes<double>) {
        LongVector first, second;
        for (int l = 0; l < lanes<double>; ++l) {
            first[l] = words[2 * (i + l)];
            second[l] = words[2 * (i + l) + 1];
        }
        store(units + i, unit_of_words<Lanes<double>>(first, second));
    }
}

// Units [first, first + count), and some more behind them.
template <class T>
void make_units(const RandomFill& a, std::int64_t first, std::int64_t count, T* units) {
    constexpr std::int64_t per_unit = kWordsPerUnit<T>;
    alignas(64) std::uint32_t buffer[kChunk * per_unit + 8 * lanes<T>];
    units_of_words(make_words<T>(a, per_unit * first, per_unit * count, buffer), count, units);
}

template <class T>
void write(const RandomFill& a, std::int64_t first, std::int64_t count, T* numbers) {
    using A = Lanes<T>;
    const Vector<T> scale = broadcast<T>(static_cast<T>(a.scale)), low = broadcast<T>(static_cast<T>(a.low));
    for (std::int64_t i = 0; i < count; i += lanes<T>) store(numbers + i, A::fused(load(numbers + i), scale, low));
    if (count > 0)
        __builtin_memcpy(static_cast<T*>(a.out) + first, numbers, static_cast<std::size_t>(count) * sizeof(T));
}

template <class T>
void run(const RandomFill& a, std::int64_t begin, std::int64_t end) {
    using A = Lanes<T>;
    alignas(64) T numbers[kChunk], more[kChunk];
    const std::int64_t half = items_of(a);
    for (std::int64_t first = begin; first < end; first += kChunk) {
        const std::int64_t count = end - first < kChunk ? end - first : kChunk;
        make_units(a, first, count, numbers);
        if (a.distribution == Distribution::normal) {
            make_units(a, half + first, count, more);
            for (std::int64_t i = 0; i < count; i += lanes<T>) {
                const NormalPair<A> pair = normal_pair<A>(load(numbers + i), load(more + i));
                store(numbers + i, pair.first);
                store(more + i, pair.second);
            }
            write(a, half + first, count < a.count - half - first ? count : a.count - half - first, more);
        } else {
            for (std::int64_t i = 0; i < count; i += lanes<T>)
                store(numbers + i, number_of_unit<A>(a.distribution, load(numbers + i)));
        }
        write(a, first, count, numbers);
    }
}

}  // namespace

extern const RandomFillKernel random_fill_kernels[2] = {run<float>, run<double>};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
