// Rows of a pool on their way to the ambiguity penalty and back: absolute value, norm, and their gradients.
//
// Reads a row, and on the way back reads three and writes one: bound by memory, beside a penalty that is not.
#include "../common/component_penalty.h"

#include "partial_vectors.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

template <class T>
void form(const ComponentPenalty& a, std::int64_t id, void* to, void* length) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    const MixturePool& p = a.pool;
    const T* raw = static_cast<const T*>(p.raw) + id * p.bands;
    T* spectrum = static_cast<T*>(to);
    V sum = {};
    for (std::int64_t j = 0; j < p.bands; j += L) {
        const V value = load_first(raw + j, p.bands - j), magnitude = value < 0 ? -value : value;
        store_first(spectrum + j, p.non_negative ? magnitude : value, p.bands - j);
        sum += p.norm == 1 ? magnitude : value * value;
    }
    const T total = folded<T>(sum);
    T divisor = 1;
    if (p.norm != 0 && total != 0)
        divisor = p.norm == 1 ? total : static_cast<T>(__builtin_sqrt(static_cast<double>(total)));
    for (std::int64_t j = 0; j < p.bands; ++j) spectrum[j] /= divisor;
    *static_cast<T*>(length) = divisor;
}

template <class T>
void add(const ComponentPenalty& a, std::int64_t id, const void* spectrum, const void* grad, const void* length) {
    constexpr int L = lanes<T>;
    const MixturePool& p = a.pool;
    const T *raw = static_cast<const T*>(p.raw) + id * p.bands, *g = static_cast<const T*>(grad);
    const T divisor = *static_cast<const T*>(length), weight = static_cast<T>(a.weight);
    Vector<T> sum = {};
    for (std::int64_t j = 0; j < p.bands; j += L)
        sum += load_first(static_cast<const T*>(spectrum) + j, p.bands - j) * load_first(g + j, p.bands - j);
    const T along_length = -folded<T>(sum) / divisor;
    T* to = static_cast<T*>(a.grad_raw) + id * p.bands;
    for (std::int64_t j = 0; j < p.bands; ++j)
        to[j] += weight * raw_gradient(raw[j], g[j] / divisor, along_length, divisor, p.non_negative, p.norm);
}

}  // namespace

extern const ComponentPenaltyKernels component_penalty_kernels[2] = {{form<float>, add<float>},
                                                                     {form<double>, add<double>}};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
