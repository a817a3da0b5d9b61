// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the same words on host,
// vector unit and device.
#pragma once

#include "arithmetic.h"

namespace spectrafuse {

// Four 32-bit words (of every lane), each in the low half of 64 bits; the high halves hold anything.
template <class A>
struct PhiloxBlock {
    typename A::Wide word[4];
};

// The keys of the ten rounds. Vector kernels keep them in memory, from where AVX-512 broadcasts one at no cost.
struct PhiloxKeys {
    std::uint64_t first[10], second[10];
};

SPECTRAFUSE_SHARED PhiloxKeys philox_keys(std::uint64_t seed) {
    PhiloxKeys keys = {};
    for (std::uint32_t round = 0; round < 10; ++round) {
        keys.first[round] = static_cast<std::uint32_t>(seed) + round * 0x9E3779B9u;
        keys.second[round] = static_cast<std::uint32_t>(seed >> 32) + round * 0xBB67AE85u;
    }
    return keys;
}

template <class A>
SPECTRAFUSE_SHARED PhiloxBlock<A> philox(PhiloxBlock<A> counter, const PhiloxKeys& keys) {
    for (int round = 0; round < 10; ++round) {
        const typename A::Wide a = A::product(counter.word[0], 0xD2511F53u);
        const typename A::Wide b = A::product(counter.word[2], 0xCD9E8D57u);
        counter.word[0] = (b >> 32) ^ counter.word[1] ^ keys.first[round];
        counter.word[2] = (a >> 32) ^ counter.word[3] ^ keys.second[round];
        counter.word[1] = b;
        counter.word[3] = a;
    }
    return counter;
}

// Blocks `index` of the stream (seed, step); `keys` are those of the seed.
template <class A>
SPECTRAFUSE_SHARED PhiloxBlock<A> stream_block(const PhiloxKeys& keys, std::uint64_t step, typename A::Wide index) {
    const typename A::Wide zero = index ^ index;
    return philox<A>({{index, index >> 32, zero ^ static_cast<std::uint32_t>(step), zero ^ (step >> 32)}}, keys);
}

}  // namespace spectrafuse
