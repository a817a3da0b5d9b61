#include "../common/random_fill.h"

#include "bindings.h"
#if defined(SPECTRAFUSE_FOR_CUDA)
#include "../cuda/random_fill.h"
#endif

namespace spectrafuse::random_fill_binding {

#if !defined(SPECTRAFUSE_FOR_CUDA)
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
#endif

static RandomFill arguments(const std::string& distribution, std::uint64_t seed, std::uint64_t step, std::int64_t count,
                            double low, double scale, Address out) {
    static constexpr const char* names[] = {"uniform", "normal", "logistic", "gumbel"};
    int which = 0;
    while (which < 4 && distribution != names[which]) ++which;
    if (which == 4) throw std::invalid_argument("no such distribution: " + distribution);
    return {static_cast<Distribution>(which), seed, step, count, low, scale, out};
}

#if defined(SPECTRAFUSE_FOR_CUDA)
static void fill(int dtype, const std::string& distribution, std::uint64_t seed, std::uint64_t step, std::int64_t count,
                 double low, double scale, Address out, Address stream) {
    random_fill_cuda(arguments(distribution, seed, step, count, low, scale, out), dtype, stream);
}
#else
// No threads: one number at a time.
static void fill(int dtype, const std::string& distribution, std::uint64_t seed, std::uint64_t step, std::int64_t count,
                 double low, double scale, Address out, int threads) {
    const RandomFill all = arguments(distribution, seed, step, count, low, scale, out);
    threads > 0 ? random_fill(all, dtype, threads) : random_fill_one_by_one(all, dtype);
}
#endif

SPECTRAFUSE_BIND(random_fill) {
#if !defined(SPECTRAFUSE_FOR_CUDA)
    m.def("philox_words", &philox_words);
#endif
    m.def("random_fill", &fill);
}

}  // namespace spectrafuse::random_fill_binding
