// Turning a matrix by blocks of 4 x 4: what the compiler makes of two plain loops is gathers or scatters, which take
// several times as long.
#pragma once

#include <cstdint>

#include "../common/vector.h"

namespace spectrafuse::SPECTRAFUSE_ISA {

// to[c * to_pitch + r] = from[r][c]; rows of `from` lie `from_pitch` bytes apart. Sixteen rows are taken at a time, so
// that what they become is written as a whole line of the cache.
template <class Stored, class T>
void transpose(const char* __restrict from, std::int64_t from_pitch, std::int64_t rows, std::int64_t columns,
               T* __restrict to, std::int64_t to_pitch) {
    typedef Stored StoredFour __attribute__((vector_size(4 * sizeof(Stored))));
    typedef T Four __attribute__((vector_size(4 * sizeof(T))));
    constexpr std::int64_t size = sizeof(Stored), together = 16;
    for (std::int64_t block = 0; block < rows; block += together) {
        const std::int64_t end = rows < block + together ? rows : block + together;
        for (std::int64_t c = 0; c < columns; c += 4)
            for (std::int64_t r = block; r < end; r += 4) {
                if (r + 4 > rows || c + 4 > columns) {
                    for (std::int64_t i = r; i < rows && i < r + 4; ++i)
                        for (std::int64_t j = c; j < columns && j < c + 4; ++j) {
                            Stored value;
                            __builtin_memcpy(&value, from + i * from_pitch + j * size, sizeof value);
                            to[j * to_pitch + i] = static_cast<T>(value);
                        }
                    continue;
                }
                Four v[4], w[4];
                for (int i = 0; i < 4; ++i) {
                    StoredFour values;
                    __builtin_memcpy(&values, from + (r + i) * from_pitch + c * size, sizeof values);
                    v[i] = __builtin_convertvector(values, Four);
                }
                for (int i = 0; i < 2; ++i) {
                    w[2 * i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 4, 1, 5);
                    w[2 * i + 1] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 2, 6, 3, 7);
                }
                for (int i = 0; i < 2; ++i) {
                    v[2 * i] = __builtin_shufflevector(w[i], w[i + 2], 0, 1, 4, 5);
                    v[2 * i + 1] = __builtin_shufflevector(w[i], w[i + 2], 2, 3, 6, 7);
                }
                for (int i = 0; i < 4; ++i) __builtin_memcpy(to + (c + i) * to_pitch + r, &v[i], sizeof v[i]);
            }
    }
}

}  // namespace spectrafuse::SPECTRAFUSE_ISA
