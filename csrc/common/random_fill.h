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
inline std::int64_t items_of(const RandomFill& a) {
    return a.distribution == Distribution::normal ? (a.count + 1) / 2 : a.count;
}

// A number of every distribution but the normal from its unit.
template <class A>
SPECTRAFUSE_SHARED typename A::Real number_of_unit(Distribution distribution, typename A::Real unit) {
    if (distribution == Distribution::logistic) return logistic<A>(unit);
    if (distribution == Distribution::gumbel) return gumbel<A>(unit);
    return unit;
}

// Kernels of one instruction set and floating-point type: items [begin, end).
using RandomFillKernel = void (*)(const RandomFill&, std::int64_t begin, std::int64_t end);

SPECTRAFUSE_DECLARE(RandomFillKernel random_fill_kernels[2])

// Index 0 is float32, 1 is float64.
void random_fill(const RandomFill& arguments, int dtype, int threads);
// The same numbers one at a time, in the arithmetic of a CUDA thread.
void random_fill_one_by_one(const RandomFill& arguments, int dtype);

}  // namespace spectrafuse
