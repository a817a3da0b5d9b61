// Rows of work over OpenMP threads, and scratch memory for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace spectrafuse {

struct FreeMemory {
    void operator()(void* memory) const { std::free(memory); }
};
using Scratch = std::unique_ptr<void, FreeMemory>;

// `bytes` for each of `threads`, each part aligned to a cache line.
class ThreadScratch {
   public:
    ThreadScratch(std::size_t bytes, int threads)
        : part_((bytes + 63) / 64 * 64), memory_(std::aligned_alloc(64, part_ * threads + 64)) {
        if (memory_ == nullptr) throw std::bad_alloc();
    }
    void* of(int thread) const { return static_cast<char*>(memory_.get()) + part_ * thread; }

   private:
    std::size_t part_;
    Scratch memory_;
};

#if defined(SPECTRAFUSE_REPEAT_WORK)
// The share of the work that is done twice, at most 100, to see whether the benchmarks notice.
inline int repeated_percent = 0;
#endif

// Calls body(begin, end, thread) for equal shares of [0, count). One thread opens no parallel region.
template <class Body>
void parallel_shares(std::int64_t count, int threads, const Body& whole_body) {
#if defined(SPECTRAFUSE_REPEAT_WORK)
    // Kernels that accumulate give wrong numbers.
    const auto body = [&](std::int64_t begin, std::int64_t end, int thread) {
        static thread_local std::int64_t carry = 0;  // less than one item, for the next call from the same place
        const std::int64_t hundredths = (end - begin) * repeated_percent + carry;
        whole_body(begin, end, thread);
        if (hundredths >= 100) whole_body(begin, begin + hundredths / 100, thread);
        carry = hundredths % 100;
    };
#else
    const Body& body = whole_body;
#endif
    if (threads <= 1 || count <= 1) {
        if (count > 0) body(std::int64_t{0}, count, 0);
        return;
    }
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static, 1)
#endif
    for (int thread = 0; thread < threads; ++thread) {
        const std::int64_t begin = count * thread / threads, end = count * (thread + 1) / threads;
        if (begin < end) body(begin, end, thread);
    }
}

}  // namespace spectrafuse
