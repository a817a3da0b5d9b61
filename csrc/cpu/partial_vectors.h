// Vectors that end inside: the first `count` numbers, or pairs of numbers, of memory.
#pragma once

#include "lanes.h"

namespace spectrafuse::SPECTRAFUSE_ISA {

// Zero behind them.
template <class T>
inline Vector<T> load_first(const T* from, std::int64_t count) {
    if (count >= lanes<T>) return load(from);
    Vector<T> v = {};
    __builtin_memcpy(&v, from, sizeof(T) * static_cast<std::size_t>(count));
    return v;
}

template <class T>
inline void store_first(T* to, Vector<T> v, std::int64_t count) {
    if (count >= lanes<T>) return store(to, v);
    __builtin_memcpy(to, &v, sizeof(T) * static_cast<std::size_t>(count));
}

// 1 in the first `count` lanes, 0 behind them.
template <class T>
inline Vector<T> ones_first(std::int64_t count) {
    Vector<T> v;
    for (int i = 0; i < lanes<T>; ++i) v[i] = i < count ? T(1) : T(0);
    return v;
}

template <class T>
struct PairOfVectors {
    Vector<T> first, second;
};

// Numbers 0, 2, 4 .. and 1, 3, 5 .. of `count` pairs.
template <class T>
inline PairOfVectors<T> load_pairs(const T* from, std::int64_t count) {
    constexpr int L = lanes<T>;
    const Vector<T> a = load_first(from, 2 * count),
                    b = count > L / 2 ? load_first(from + L, 2 * count - L) : Vector<T>{};
    typename Lanes<T>::Integer even, odd;
    for (int i = 0; i < L; ++i) {
        even[i] = 2 * i;
        odd[i] = 2 * i + 1;
    }
    return {__builtin_shuffle(a, b, even), __builtin_shuffle(a, b, odd)};
}

template <class T>
inline void store_pairs(T* to, Vector<T> first, Vector<T> second, std::int64_t count) {
    constexpr int L = lanes<T>;
    typename Lanes<T>::Integer low, high;
    for (int i = 0; i < L; ++i) {
        low[i] = i / 2 + (i % 2) * L;
        high[i] = low[i] + L / 2;
    }
    store_first(to, __builtin_shuffle(first, second, low), 2 * count);
    if (count > L / 2) store_first(to + L, __builtin_shuffle(first, second, high), 2 * count - L);
}

// Sums of vectors in double.
template <class T>
struct LaneSums {
    double lane[lanes<T>] = {};

    void add(Vector<T> v) {
        for (int i = 0; i < lanes<T>; ++i) lane[i] += static_cast<double>(v[i]);
    }
    double total() const {
        double sum = 0;
        for (int i = 0; i < lanes<T>; ++i) sum += lane[i];
        return sum;
    }
};

// The sum of a vector's lanes, halves first.
template <class T>
inline T folded(Vector<T> v) {
    T part[lanes<T>];
    store(part, v);
    for (int half = lanes<T> / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) part[i] += part[i + half];
    return part[0];
}

}  // namespace spectrafuse::SPECTRAFUSE_ISA
