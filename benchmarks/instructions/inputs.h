// What the driver's kernels read and write: always the same numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

// Memory that lives until the program ends, filled with numbers between `low` and `high`.
template <class T>
T* numbers(std::int64_t count, double low = 0, double high = 0) {
    static std::uint32_t state = 12345;
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    T* const made = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (made == nullptr) std::abort();
    for (std::int64_t i = 0; i < count; ++i) {
        state = state * 1664525u + 1013904223u;
        made[i] = static_cast<T>(low + (high - low) * (state >> 8) / 16777216.0);
    }
    return made;
}
inline float* floats(std::int64_t count, double low = -1, double high = 1) { return numbers<float>(count, low, high); }
