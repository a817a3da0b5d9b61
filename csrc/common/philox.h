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

template <class A>
SPECTRAFUSE_SHARED PhiloxBlock<A> philox(PhiloxBlock<A> counter, std::uint32_t key0, std::uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const typename A::Wide a = A::product(counter.word[0], 0xD2511F53u);
        const typename A::Wide b = A::product(counter.word[2], 0xCD9E8D57u);
        counter.word[0] = (b >> 32) ^ counter.word[1] ^ std::uint64_t{key0};
        counter.word[2] = (a >> 32) ^ counter.word[3] ^ std::uint64_t{key1};
        counter.word[1] = b;
        counter.word[3] = a;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// Blocks `index` of the stream (seed, step).
template <class A>
SPECTRAFUSE_SHARED PhiloxBlock<A> stream_block(std::uint64_t seed, std::uint64_t step, typename A::Wide index) {
    const typename A::Wide zero = index ^ index;
    return philox<A>({{index, index >> 32, zero ^ step, zero ^ (step >> 32)}}, static_cast<std::uint32_t>(seed),
                     static_cast<std::uint32_t>(seed >> 32));
}

}  // namespace spectrafuse
