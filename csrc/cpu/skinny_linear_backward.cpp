// Input gradient of a linear layer for few rows: grad_y (B, O) times the weights (O, I), a tile of columns at a time.
//
// The sums of a tile (B, kLinearColumns) stay in the first-level cache at 16 rows; a block of weight rows meets all
// samples while it is in registers. Reads every weight once; 2 B operations a parameter: bound by memory up to about
// 16 rows on two cores, by arithmetic beyond.
#include "../common/skinny_linear.h"
#include "../common/vector.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr int kVectors = SPECTRAFUSE_VECTOR_BYTES == 64 ? 2 : 1;
constexpr int kRows = 8;

template <class T>
std::size_t scratch_size(const SkinnyLinearBackward& a) {
    return sizeof(T) * static_cast<std::size_t>(a.batch * (kLinearColumns + linear_part_rows(a.outputs)));
}

// grad_y as (blocks of kRows outputs, B, kRows): what a block needs lies together. The last block may be narrower.
template <class T>
void pack(const SkinnyLinearBackward& a, std::int64_t begin, std::int64_t end, T* packed) {
    for (std::int64_t o = begin; o < end; o += kRows) {
        const std::int64_t count = end - o < kRows ? end - o : kRows;
        for (std::int64_t b = 0; b < a.batch; ++b)
            for (std::int64_t r = 0; r < count; ++r) *packed++ = static_cast<const T*>(a.grad_y)[b * a.outputs + o + r];
    }
}

template <class T>
void add_rows(const SkinnyLinearBackward& a, const T* weight, const T* factors, std::int64_t columns, T* sums) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    std::int64_t i = 0;
    for (; i + kVectors * L <= columns; i += kVectors * L) {
        V w[kRows][kVectors];
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v) {
                w[r][v] = load(weight + r * a.inputs + i + v * L);
                // Into the second-level cache: rows a power of two apart share a set of the first.
                __builtin_prefetch(weight + (r + 2 * kRows) * a.inputs + i + v * L, 0, 2);
            }
        for (std::int64_t b = 0; b < a.batch; ++b) {
            T* at = sums + b * kLinearColumns + i;
            V sum[kVectors];
            for (int v = 0; v < kVectors; ++v) sum[v] = load(at + v * L);
            for (int r = 0; r < kRows; ++r)
                for (int v = 0; v < kVectors; ++v) sum[v] += factors[b * kRows + r] * w[r][v];
            for (int v = 0; v < kVectors; ++v) store<T>(at + v * L, sum[v]);
        }
    }
    for (; i < columns; ++i)
        for (std::int64_t b = 0; b < a.batch; ++b)
            for (int r = 0; r < kRows; ++r)
                sums[b * kLinearColumns + i] += factors[b * kRows + r] * weight[r * a.inputs + i];
}

template <class T>
void run(const SkinnyLinearBackward& a, std::int64_t begin, std::int64_t end, void* grad_x, void* scratch) {
    T* sums = static_cast<T*>(scratch);
    T* packed = sums + a.batch * kLinearColumns;
    pack(a, begin, end, packed);
    const std::int64_t whole = (end - begin) / kRows * kRows, left = end - begin - whole;
    for (std::int64_t column = 0; column < a.inputs; column += kLinearColumns) {
        const std::int64_t columns = a.inputs - column < kLinearColumns ? a.inputs - column : kLinearColumns;
        __builtin_memset(sums, 0, sizeof(T) * static_cast<std::size_t>(a.batch * kLinearColumns));
        const T* weight = static_cast<const T*>(a.weight) + begin * a.inputs + column;
        for (std::int64_t o = 0; o < whole; o += kRows)
            add_rows<T>(a, weight + o * a.inputs, packed + o * a.batch, columns, sums);
        const T* rest = packed + whole * a.batch;
        for (std::int64_t r = 0; r < left; ++r)
            for (std::int64_t i = 0; i < columns; ++i)
                for (std::int64_t b = 0; b < a.batch; ++b)
                    sums[b * kLinearColumns + i] += rest[b * left + r] * weight[(whole + r) * a.inputs + i];
        for (std::int64_t b = 0; b < a.batch; ++b)
            __builtin_memcpy(static_cast<T*>(grad_x) + b * a.inputs + column, sums + b * kLinearColumns,
                             sizeof(T) * static_cast<std::size_t>(columns));
    }
}

template <class T>
void add(const SkinnyLinearBackward& a, const void* partials, std::int64_t parts, std::int64_t begin,
         std::int64_t end) {
    const T* from = static_cast<const T*>(partials);
    T* to = static_cast<T*>(a.grad_x);
    const std::int64_t size = a.batch * a.inputs;
    std::int64_t i = begin;
    for (; i + lanes<T> <= end; i += lanes<T>) {
        Vector<T> sum = load(from + i);
        for (std::int64_t part = 1; part < parts; ++part) sum += load(from + part * size + i);
        store<T>(to + i, sum);
    }
    for (; i < end; ++i) {
        T sum = from[i];
        for (std::int64_t part = 1; part < parts; ++part) sum += from[part * size + i];
        to[i] = sum;
    }
}

}  // namespace

extern const SkinnyLinearBackwardKernels skinny_linear_backward_kernels[2] = {
    {scratch_size<float>, run<float>, add<float>},
    {scratch_size<double>, run<double>, add<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
