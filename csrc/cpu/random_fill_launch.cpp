// Spreads random numbers over threads, and makes them one at a time for comparison.
#include <algorithm>

#include "../common/isa.h"
#include "../common/random_fill.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

constexpr std::int64_t kItemsWorthAThread = 16384;

template <class T>
T one_unit(const RandomFill& a, std::int64_t index) {
    using A = Scalar<T>;
    constexpr std::int64_t per_unit = sizeof(T) / 4;
    const std::int64_t word = per_unit * index;
    const PhiloxBlock<A> block = stream_block<A>(philox_keys(a.seed), a.step, static_cast<std::uint64_t>(word / 4));
    const typename A::Integer first = A::word(block.word[word % 4]);
    if constexpr (per_unit == 1)
        return unit_of_word<A>(first);
    else
        return unit_of_words<A>(first, A::word(block.word[word % 4 + 1]));
}

template <class T>
void one_by_one(const RandomFill& a) {
    using A = Scalar<T>;
    T* out = static_cast<T*>(a.out);
    const std::int64_t items = items_of(a);
    const T scale = static_cast<T>(a.scale), low = static_cast<T>(a.low);
    for (std::int64_t i = 0; i < items; ++i) {
        const T unit = one_unit<T>(a, i);
        if (a.distribution != Distribution::normal) {
            out[i] = A::fused(number_of_unit<A>(a.distribution, unit), scale, low);
            continue;
        }
        const NormalPair<A> pair = normal_pair<A>(unit, one_unit<T>(a, items + i));
        out[i] = A::fused(pair.first, scale, low);
        if (items + i < a.count) out[items + i] = A::fused(pair.second, scale, low);
    }
}

}  // namespace

void random_fill(const RandomFill& a, int dtype, int threads) {
    const RandomFillKernel run = SPECTRAFUSE_SELECT(random_fill_kernels[dtype]);
    const std::int64_t items = items_of(a);
    const std::int64_t worth = std::min<std::int64_t>(threads, items / kItemsWorthAThread);
    parallel_shares(items, static_cast<int>(worth),
                    [&](std::int64_t begin, std::int64_t end, int) { run(a, begin, end); });
}

void random_fill_one_by_one(const RandomFill& a, int dtype) {
    dtype == 0 ? one_by_one<float>(a) : one_by_one<double>(a);
}

}  // namespace spectrafuse
