// AdamW with the weight gradient formed in registers: a block of rows by two vectors of columns at a time.
//
// Reads and writes weight and both moments once: 24 bytes a parameter in float32, plus a sixteenth of the rows' part
// of x, which is packed once for a tile and comes from the second-level cache. Computes 2 B + 12 operations a
// parameter: bound by memory up to about 16 rows on two cores, by arithmetic at 64.
#include "../common/adamw_outer.h"

#include "../common/vector.h"

namespace spectrafuse::SPECTRAFUSE_ISA {
namespace {

constexpr int kRows = 4, kVectors = 2;

template <class T>
constexpr std::int64_t kWidth = kVectors * lanes<T>;

template <class T>
std::size_t scratch_size(const AdamwOuter& a) {
    return sizeof(T) * static_cast<std::size_t>((a.batch + kRows) * kAdamwTileColumns + a.batch * kRows);
}

// Elements [0, count) of a vector, zeros beyond.
template <class T>
inline Vector<T> load_some(const T* from, std::int64_t count) {
    T part[lanes<T>] = {};
    for (std::int64_t i = 0; i < count && i < lanes<T>; ++i) part[i] = from[i];
    return load(part);
}

template <class T>
inline void store_some(T* to, Vector<T> v, std::int64_t count) {
    T part[lanes<T>];
    store(part, v);
    for (std::int64_t i = 0; i < count && i < lanes<T>; ++i) to[i] = part[i];
}

// x (B, tile columns), the columns of one group of vectors next to each other: (groups, B, kWidth), zero beyond the
// last column.
template <class T>
void pack_columns(const AdamwOuter& a, std::int64_t column_begin, std::int64_t column_end, T* packed) {
    for (std::int64_t b = 0; b < a.batch; ++b) {
        const T* row = static_cast<const T*>(a.x) + b * a.columns;
        T* to = packed + b * kWidth<T>;
        for (std::int64_t i = column_begin; i < column_end; i += kWidth<T>, to += a.batch * kWidth<T>)
            for (std::int64_t j = 0; j < kWidth<T>; ++j) to[j] = i + j < column_end ? row[i + j] : T{0};
    }
}

// Gradient of `Rows` rows in the tile's columns, into gradient (Rows, kAdamwTileColumns). What the update will read is
// fetched meanwhile: it streams from memory while this works on the caches.
template <class T, int Rows>
void form_gradient(const AdamwOuter& a, std::int64_t row, std::int64_t column_begin, std::int64_t column_end,
                   const T* packed, T* factors, T* gradient) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    for (std::int64_t b = 0; b < a.batch; ++b)
        for (int r = 0; r < Rows; ++r) factors[b * Rows + r] = static_cast<const T*>(a.grad_y)[b * a.rows + row + r];
    for (std::int64_t i = column_begin; i < column_end; i += kWidth<T>, packed += a.batch * kWidth<T>) {
        V sum[Rows][kVectors] = {};
        for (int r = 0; r < Rows; ++r)
            for (int v = 0; v < kVectors; ++v) {
                const std::int64_t at = (row + r) * a.columns + i + v * L;
                __builtin_prefetch(static_cast<const T*>(a.weight) + at, 1, 2);
                __builtin_prefetch(static_cast<const T*>(a.exp_avg) + at, 1, 2);
                __builtin_prefetch(static_cast<const T*>(a.exp_avg_sq) + at, 1, 2);
            }
        for (std::int64_t b = 0; b < a.batch; ++b)
            for (int v = 0; v < kVectors; ++v) {
                const V x = load(packed + b * kWidth<T> + v * L);
                for (int r = 0; r < Rows; ++r) sum[r][v] += factors[b * Rows + r] * x;
            }
        for (int r = 0; r < Rows; ++r)
            for (int v = 0; v < kVectors; ++v)
                store<T>(gradient + r * kAdamwTileColumns + i - column_begin + v * L, sum[r][v]);
    }
}

template <class T>
void update_row(const AdamwConstants<T>& c, const T* gradient, T* weight, T* first, T* second, std::int64_t count) {
    using V = Vector<T>;
    constexpr int L = lanes<T>;
    std::int64_t i = 0;
    for (; i + L <= count; i += L) {
        V m = load(first + i), s = load(second + i);
        adamw_moments(c, load(gradient + i), m, s);
        store<T>(weight + i, adamw_weight(c, load(weight + i), m, square_root(s)));
        store<T>(first + i, m);
        store<T>(second + i, s);
    }
    if (i < count) {
        const std::int64_t left = count - i;
        V m = load_some(first + i, left), s = load_some(second + i, left);
        adamw_moments(c, load(gradient + i), m, s);
        store_some<T>(weight + i, adamw_weight(c, load_some(weight + i, left), m, square_root(s)), left);
        store_some<T>(first + i, m, left);
        store_some<T>(second + i, s, left);
    }
}

template <class T, int Rows>
void update_rows(const AdamwOuter& a, const AdamwConstants<T>& c, std::int64_t row, std::int64_t column_begin,
                 std::int64_t column_end, const T* packed, T* factors, T* gradient) {
    form_gradient<T, Rows>(a, row, column_begin, column_end, packed, factors, gradient);
    for (int r = 0; r < Rows; ++r) {
        const std::int64_t at = (row + r) * a.columns + column_begin;
        update_row(c, gradient + r * kAdamwTileColumns, static_cast<T*>(a.weight) + at, static_cast<T*>(a.exp_avg) + at,
                   static_cast<T*>(a.exp_avg_sq) + at, column_end - column_begin);
    }
}

template <class T>
void run(const AdamwOuter& a, const AdamwConstants<double>& d, std::int64_t tile_begin, std::int64_t tile_end,
         bool backwards, void* scratch) {
    T* packed = static_cast<T*>(scratch);
    T* gradient = packed + a.batch * kAdamwTileColumns;
    T* factors = gradient + kRows * kAdamwTileColumns;
    const AdamwConstants<T> c = {static_cast<T>(d.decay),        static_cast<T>(d.keep_first),
                                 static_cast<T>(d.add_first),    static_cast<T>(d.keep_second),
                                 static_cast<T>(d.add_second),   static_cast<T>(d.step_size),
                                 static_cast<T>(d.inverse_root), static_cast<T>(d.eps)};
    const std::int64_t tiles_down = (a.rows + kAdamwTileRows - 1) / kAdamwTileRows;
    std::int64_t packed_column = -1;
    for (std::int64_t i = tile_begin; i < tile_end; ++i) {
        const std::int64_t tile = backwards ? tile_begin + tile_end - 1 - i : i;
        const std::int64_t column = tile / tiles_down * kAdamwTileColumns;
        const std::int64_t column_end = column + kAdamwTileColumns < a.columns ? column + kAdamwTileColumns : a.columns;
        std::int64_t row = tile % tiles_down * kAdamwTileRows;
        const std::int64_t row_end = row + kAdamwTileRows < a.rows ? row + kAdamwTileRows : a.rows;
        if (column != packed_column) pack_columns(a, column, column_end, packed);
        packed_column = column;
        for (; row + kRows <= row_end; row += kRows)
            update_rows<T, kRows>(a, c, row, column, column_end, packed, factors, gradient);
        for (; row < row_end; ++row) update_rows<T, 1>(a, c, row, column, column_end, packed, factors, gradient);
    }
}

}  // namespace

extern const AdamwOuterKernels adamw_outer_kernels[2] = {
    {scratch_size<float>, run<float>},
    {scratch_size<double>, run<double>},
};

}  // namespace spectrafuse::SPECTRAFUSE_ISA
