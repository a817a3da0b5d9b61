#include "../common/random_fill.h"

#include "bindings.h"

namespace spectrafuse {

// Words of the stream (seed, step) as int64 values, the type torch computes with.
static void philox_words(std::uint64_t seed, std::uint64_t step, std::int64_t count, Address out) {
    using A = Scalar<double>;
    std::int64_t* words = out;
    const PhiloxKeys keys = philox_keys(seed);
    for (std::int64_t i = 0; i < count; i += 4) {
        const PhiloxBlock<A> block = stream_block<A>(keys, step, static_cast<std::uint64_t>(i / 4));
        for (std::int64_t j = i; j < i + 4 && j < count; ++j) words[j] = A::word(block.word[j - i]);
    }
}

// No threads: one number at a time.
static void fill(int dtype, const std::string& distribution, std::uint64_t seed, std::uint64_t step, std::int64_t count,
                 double low, double scale, Address out, int threads) {
    static constexpr const char* names[] = {"uniform", "normal", "logistic", "gumbel"};
    int which = 0;
    while (which < 4 && distribution != names[which]) ++which;
    if (which == 4) throw std::invalid_argument("no such distribution: " + distribution);
    const RandomFill arguments{static_cast<Distribution>(which), seed, step, count, low, scale, out};
    threads > 0 ? random_fill(arguments, dtype, threads) : random_fill_one_by_one(arguments, dtype);
}

SPECTRAFUSE_BIND(random_fill) {
    m.def("philox_words", &philox_words);
    m.def("random_fill", &fill);
}

}  // namespace spectrafuse
