// Spreads random numbers over threads, and makes them one at a time for comparison.
#include <algorithm>

#include "../common/isa.h"
#include "../common/random_fill.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

constexpr std::int64_t kItemsWorthAThread = 16384;

template <class T>
void one_by_one(const RandomFill& a) {
    const PhiloxKeys keys = philox_keys(a.seed);
    for (std::int64_t i = 0; i < items_of(a); ++i) fill_item<T>(a, keys, i);
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
