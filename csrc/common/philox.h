// Philox 4x32-10 (Salmon et al., SC 2011), the same words on host and device.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SPECTRAFUSE_HOST_DEVICE __host__ __device__
#else
#define SPECTRAFUSE_HOST_DEVICE
#endif

namespace spectrafuse {

struct PhiloxBlock {
    std::uint32_t word[4];
};

SPECTRAFUSE_HOST_DEVICE inline PhiloxBlock philox(PhiloxBlock counter, std::uint32_t key0, std::uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter.word[0];
        const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter.word[2];
        counter = {{static_cast<std::uint32_t>(b >> 32) ^ counter.word[1] ^ key0, static_cast<std::uint32_t>(b),
                    static_cast<std::uint32_t>(a >> 32) ^ counter.word[3] ^ key1, static_cast<std::uint32_t>(a)}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// Block `index` of the stream (seed, step).
SPECTRAFUSE_HOST_DEVICE inline PhiloxBlock stream_block(std::uint64_t seed, std::uint64_t step, std::uint64_t index) {
    return philox({{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                    static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32)}},
                  static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
}

}  // namespace spectrafuse
