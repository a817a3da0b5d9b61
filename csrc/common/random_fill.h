// Arguments of random_fill, and what it computes from units, shared by the launcher and every instruction set.
#pragma once

#include <cstdint>

#include "isa.h"
#include "philox.h"
#include "random_math.h"

namespace spectrafuse {

enum class Distribution { uniform, normal, logistic, gumbel };

struct RandomFill {
    Distribution distribution;
    std::uint64_t seed, step;
    std::int64_t count;
    double low, scale;  // out = low + scale * number
    void* out;
};

// Number i uses unit i of the stream; of normal numbers, i and i + h use units i and i + h, h = half the count rounded
// up. Items are numbers, or of normal numbers pairs.
SPECTRAFUSE_SHARED std::int64_t items_of(const RandomFill& a) {
    return a.distribution == Distribution::normal ? (a.count + 1) / 2 : a.count;
}

// A number of every distribution but the normal from its unit.
template <class A>
SPECTRAFUSE_SHARED typename A::Real number_of_unit(Distribution distribution, typename A::Real unit) {
    if (distribution == Distribution::logistic) return logistic<A>(unit);
    if (distribution == Distribution::gumbel) return gumbel<A>(unit);
    return unit;
}

// Unit `index` of the stream, by itself.
template <class T>
SPECTRAFUSE_SHARED T one_unit(const RandomFill& a, const PhiloxKeys& keys, std::int64_t index) {
    using A = Scalar<T>;
    constexpr std::int64_t per_unit = sizeof(T) / 4;
    const std::int64_t word = per_unit * index;
    const PhiloxBlock<A> block = stream_block<A>(keys, a.step, static_cast<std::uint64_t>(word / 4));
    // Chosen without an index, for which a CUDA thread would put the words into memory.
    const bool second_half = word % 4 >= 2;
    const typename A::Wide even = second_half ? block.word[2] : block.word[0];
    const typename A::Wide odd = second_half ? block.word[3] : block.word[1];
    if constexpr (per_unit == 1)
        return unit_of_word<A>(A::word(word % 2 == 0 ? even : odd));
    else
        return unit_of_words<A>(A::word(even), A::word(odd));
}

// Item i by itself.
template <class T>
SPECTRAFUSE_SHARED void fill_item(const RandomFill& a, const PhiloxKeys& keys, std::int64_t i) {
    using A = Scalar<T>;
    T* out = static_cast<T*>(a.out);
    const T scale = static_cast<T>(a.scale), low = static_cast<T>(a.low), unit = one_unit<T>(a, keys, i);
    if (a.distribution != Distribution::normal) {
        out[i] = A::fused(number_of_unit<A>(a.distribution, unit), scale, low);
        return;
    }
    const std::int64_t second = items_of(a) + i;
    const NormalPair<A> pair = normal_pair<A>(unit, one_unit<T>(a, keys, second));
    out[i] = A::fused(pair.first, scale, low);
    if (second < a.count) out[second] = A::fused(pair.second, scale, low);
}

// Kernels of one instruction set and floating-point type: items [begin, end).
using RandomFillKernel = void (*)(const RandomFill&, std::int64_t begin, std::int64_t end);

SPECTRAFUSE_DECLARE(RandomFillKernel random_fill_kernels[2])

// Index 0 is float32, 1 is float64.
void random_fill(const RandomFill& arguments, int dtype, int threads);
// The same numbers one at a time, in the arithmetic of a CUDA thread.
void random_fill_one_by_one(const RandomFill& arguments, int dtype);

}  // namespace spectrafuse
