// Similarity of all pairs of components on a GPU, a pair of tiles of 64 at a time.
//
// Pairs: a block sums up products or differences of 64 x 64 pairs over 16 dimensions at a time from shared memory, 16
// pairs a thread in registers; it writes the pairs' slopes and one sum of similarities. Gradient: a block takes 64
// components by 64 dimensions and gathers from all others, slopes and rows again through shared memory. Sums are
// added in a fixed order by one block, nothing is added atomically: the same bits every time.
//
// Differences rather than a Gram matrix for all distances: a matrix product of torch takes every pair twice, which
// costs as much as the subtraction; it follows a caller's setting for TF32, and what cancels in it is lost; two of the
// six kinds could not use it anyway. Rows are selected by number on the device, so that a mask needs no host.
//
// With n selected rows: reads n d / 64 numbers a row in either kernel and writes n / 2 slopes, read twice per 64
// dimensions. Per pair 2 d operations (d for products), with the gradient 4 d more (2 d for products): bound by
// arithmetic, at two loads of four numbers from shared memory for 32 operations. Rows are read four numbers at once
// where they all begin at multiples of 16 bytes.
#include <type_traits>

#include "../common/pair_scalar.h"
#include "ambiguity_penalty.h"
#include "launch.h"

namespace spectrafuse {

namespace {

constexpr int kTile = 64, kDepth = 16, kSide = 16, kThreads = kSide * kSide, kWarp = 32;
constexpr int kEach = kTile / kSide;  // a thread's rows and columns of a tile, next to each other
constexpr int kPairs = kTile * kTile;
constexpr int kFours = kSide + 1;  // of a line of shared memory, which begins on other banks than the one before
static_assert(kDepth == kSide && kDepth * kTile == kThreads * kEach, "a thread loads kEach numbers of a tile");

// Numbers that are read and written at once.
template <class T>
struct alignas(16) Four {
    T number[kEach];
};

// As many blocks as registers let run side by side.
template <class T>
constexpr int kBlocks = sizeof(T) == 4 ? 4 : 2;

enum class Form { products, squares, absolutes };

SPECTRAFUSE_HOST_DEVICE inline std::int64_t tiles_of(std::int64_t count) { return (count + kTile - 1) / kTile; }

// Pairs of tiles, equal ones too, lie in the order (0, 0), (0, 1), (1, 1), (0, 2) ...: those of the first tiles are the
// first ones.
SPECTRAFUSE_HOST_DEVICE inline std::int64_t tile_pairs(std::int64_t tiles) { return tiles * (tiles + 1) / 2; }

__device__ std::int64_t selected_rows(const CudaAmbiguityPenalty& a) {
    return a.order == nullptr ? a.all.count : *a.selected;
}

__device__ std::int64_t row_of(const CudaAmbiguityPenalty& a, std::int64_t i) {
    return a.order == nullptr ? i : a.order[i];
}

__device__ double* sums_of(const CudaAmbiguityPenalty& a) { return static_cast<double*>(a.all.workspace); }

// Sums of doubles before fours, which begin at multiples of 16 bytes.
SPECTRAFUSE_HOST_DEVICE inline std::int64_t even(std::int64_t count) { return count + count % 2; }

// Slopes [i][j] of a pair of tiles, i of the first one, four j at a time.
template <class T>
__device__ Four<T>* slopes_of(const CudaAmbiguityPenalty& a, std::int64_t one, std::int64_t other) {
    double* behind_sums = sums_of(a) + even(tile_pairs(tiles_of(a.all.count)));
    return reinterpret_cast<Four<T>*>(behind_sums) + (tile_pairs(other) + one) * (kPairs / kEach);
}

__device__ double weight_of(std::int64_t count) {
    return count < 2 ? 0.0 : 2.0 / (static_cast<double>(count) * static_cast<double>(count - 1));
}

// The sum over a block of kThreads, for its first thread.
__device__ double block_sum(double x) {
    __shared__ double warps[kThreads / kWarp];
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
    if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = x;
    __syncthreads();
    double sum = 0;
    for (const double part : warps) sum += part;
    return sum;
}

// The first `inside` of four numbers, zeros behind them.
template <class T>
__device__ Four<T> read_four(const T* from, std::int64_t inside, bool whole) {
    if (whole && inside >= kEach) return *reinterpret_cast<const Four<T>*>(from);
    Four<T> read{};
#pragma unroll
    for (int e = 0; e < kEach; ++e)
        if (e < inside) read.number[e] = from[e];
    return read;
}

template <class T, Form form>
__device__ T with_dimension(T sum, T x, T y) {
    if constexpr (form == Form::products) return sum + x * y;
    if constexpr (form == Form::squares) return sum + (x - y) * (x - y);
    return sum + fabs(x - y);
}

template <class T, Form form>
__device__ PairTerm<T> term_of(const PairKernel& kernel, T sum) {
    if constexpr (form == Form::products) return term_of_product<PairScalar<T>>(kernel, sum);
    if constexpr (form == Form::squares) return term_of_squared<PairScalar<T>>(kernel, sum);
    return term_of_absolute<PairScalar<T>>(kernel, sum);
}

template <class T, Form form>
__device__ T pull(T slope, T other, T own) {
    if constexpr (form == Form::products) return slope * other;
    if constexpr (form == Form::squares) return slope * (other - own);
    return pull_of_absolute(slope, other - own);
}

template <class T, Form form>
__global__ void __launch_bounds__(kThreads, kBlocks<T>) pair_kernel(CudaAmbiguityPenalty a, bool whole) {
    __shared__ Four<T> ones[kDepth][kFours], others[kDepth][kFours];
    const std::int64_t one = blockIdx.x, other = blockIdx.y, count = selected_rows(a), dim = a.all.dim;
    if (one > other || other * kTile >= count) return;
    const int lane = threadIdx.x % kSide, line = threadIdx.x / kSide;
    // This thread loads a part of one row of either tile, nothing beyond the last one.
    const int part = threadIdx.x % (kDepth / kEach) * kEach, loaded = threadIdx.x / (kDepth / kEach);
    const std::int64_t one_row = one * kTile + loaded, other_row = other * kTile + loaded;
    const T* components = static_cast<const T*>(a.all.components) + part;
    const T* one_from = components + (one_row < count ? row_of(a, one_row) : 0) * dim;
    const T* other_from = components + (other_row < count ? row_of(a, other_row) : 0) * dim;
    T sum[kEach][kEach] = {};
    for (std::int64_t first = 0; first < dim; first += kDepth) {
        const std::int64_t inside = dim - first - part;
        const Four<T> own = read_four(one_from + first, one_row < count ? inside : 0, whole);
        const Four<T> theirs = read_four(other_from + first, other_row < count ? inside : 0, whole);
        __syncthreads();
#pragma unroll
        for (int e = 0; e < kEach; ++e) {
            ones[part + e][loaded / kEach].number[loaded % kEach] = own.number[e];
            others[part + e][loaded / kEach].number[loaded % kEach] = theirs.number[e];
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kDepth; ++k) {
            const Four<T> x = ones[k][line], y = others[k][lane];
#pragma unroll
            for (int r = 0; r < kEach; ++r)
#pragma unroll
                for (int c = 0; c < kEach; ++c)
                    sum[r][c] = with_dimension<T, form>(sum[r][c], x.number[r], y.number[c]);
        }
    }
    double total = 0;
#pragma unroll
    for (int r = 0; r < kEach; ++r) {
        Four<T> slopes{};
        float few = 0;
#pragma unroll
        for (int c = 0; c < kEach; ++c) {
            const std::int64_t i = one * kTile + line * kEach + r, j = other * kTile + lane * kEach + c;
            if (i >= count || j >= count || i == j) continue;
            const PairTerm<T> term = term_of<T, form>(a.all.kernel, sum[r][c]);
            slopes.number[c] = term.slope;
            if constexpr (std::is_same_v<T, float>)
                few += term.value;  // four of them in float: a GPU for graphics adds doubles slowly
            else
                total += term.value;
        }
        total += static_cast<double>(few);
        if (a.all.gradient != nullptr) slopes_of<T>(a, one, other)[(line * kEach + r) * kSide + lane] = slopes;
    }
    total = block_sum(total);
    // Two equal tiles have every pair twice.
    if (threadIdx.x == 0) sums_of(a)[tile_pairs(other) + one] = one == other ? total / 2 : total;
}

template <class T>
__global__ void __launch_bounds__(kThreads) mean_kernel(CudaAmbiguityPenalty a) {
    const std::int64_t count = selected_rows(a), pairs = tile_pairs(tiles_of(count));
    double total = 0;
    for (std::int64_t pair = threadIdx.x; pair < pairs; pair += kThreads) total += sums_of(a)[pair];
    total = block_sum(total);
    if (threadIdx.x == 0) *static_cast<T*>(a.penalty) = static_cast<T>(total * weight_of(count));
}

template <class T, Form form>
__global__ void __launch_bounds__(kThreads, kBlocks<T>) gradient_kernel(CudaAmbiguityPenalty a, bool whole) {
    __shared__ Four<T> slopes[kDepth][kFours], rows[kDepth][kFours];
    const std::int64_t tile = blockIdx.y, count = selected_rows(a), dim = a.all.dim;
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kTile;
    const int lane = threadIdx.x % kSide, line = threadIdx.x / kSide, column = lane * kEach;
    const int part = threadIdx.x % (kDepth / kEach) * kEach, loaded = threadIdx.x / (kDepth / kEach);
    const T* components = static_cast<const T*>(a.all.components);
    // Dimensions of a selected row from `begin` + column on.
    const auto four_of = [&](std::int64_t i) {
        const std::int64_t inside = i < count ? dim - begin - column : 0;
        return inside > 0 ? read_four(components + row_of(a, i) * dim + begin + column, inside, whole) : Four<T>{};
    };
    Four<T> own[kEach];
    T sum[kEach][kEach] = {};
#pragma unroll
    for (int r = 0; r < kEach; ++r) own[r] = four_of(tile * kTile + line * kEach + r);
    const std::int64_t end = tile * kTile < count ? count : 0;  // rows that are not selected have no pairs
    for (std::int64_t first = 0; first < end; first += kDepth) {
        const std::int64_t other = first / kTile;
        const int inside = static_cast<int>(first % kTile);
        const bool across = tile <= other;
        const Four<T> slope = across ? slopes_of<T>(a, tile, other)[loaded * kSide + (inside + part) / kEach]
                                     : slopes_of<T>(a, other, tile)[(inside + line) * kSide + lane];
        const Four<T> theirs = four_of(first + line);
        __syncthreads();
        if (across)
#pragma unroll
            for (int e = 0; e < kEach; ++e) slopes[part + e][loaded / kEach].number[loaded % kEach] = slope.number[e];
        else
            slopes[line][lane] = slope;
        rows[line][lane] = theirs;
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kDepth; ++k) {
            const Four<T> x = slopes[k][line], y = rows[k][lane];
#pragma unroll
            for (int r = 0; r < kEach; ++r)
#pragma unroll
                for (int c = 0; c < kEach; ++c) sum[r][c] += pull<T, form>(x.number[r], y.number[c], own[r].number[c]);
        }
    }
    const T weight = static_cast<T>(weight_of(count));
#pragma unroll
    for (int r = 0; r < kEach; ++r)
#pragma unroll
        for (int c = 0; c < kEach; ++c) {
            const std::int64_t i = tile * kTile + line * kEach + r, d = begin + column + c;
            if (i < a.all.count && d < dim)
                static_cast<T*>(a.all.gradient)[row_of(a, i) * dim + d] = weight * sum[r][c];
        }
}

template <class T, Form form>
void penalty_of(const CudaAmbiguityPenalty& a, void* stream) {
    const unsigned tiles = blocks_of(a.all.count, kTile), strips = blocks_of(a.all.dim, kTile);
    const bool whole = a.all.dim % kEach == 0 && aligned(a.all.components);
    launch("ambiguity_penalty, pairs", pair_kernel<T, form>, dim3(tiles, tiles), kThreads, stream, a, whole);
    launch("ambiguity_penalty, mean", mean_kernel<T>, 1, kThreads, stream, a);
    if (a.all.gradient != nullptr)
        launch("ambiguity_penalty, gradient", gradient_kernel<T, form>, dim3(strips, tiles), kThreads, stream, a,
               whole);
}

template <class T>
void penalty_by_form(const CudaAmbiguityPenalty& a, void* stream) {
    if (a.all.kernel.kind == PairKind::poly)
        penalty_of<T, Form::products>(a, stream);
    else if (a.all.kernel.kind == PairKind::laplacian)
        penalty_of<T, Form::absolutes>(a, stream);
    else
        penalty_of<T, Form::squares>(a, stream);
}

}  // namespace

std::size_t ambiguity_penalty_workspace_cuda(std::int64_t count, int dtype, bool gradient) {
    const std::size_t number = dtype == 0 ? sizeof(float) : sizeof(double);
    const std::int64_t pairs = tile_pairs(tiles_of(count));
    return static_cast<std::size_t>(even(pairs)) * sizeof(double) +
           (gradient ? static_cast<std::size_t>(pairs) * kPairs * number : 0);
}

void ambiguity_penalty_cuda(const CudaAmbiguityPenalty& a, int dtype, void* stream) {
    if (dtype == 0)
        penalty_by_form<float>(a, stream);
    else
        penalty_by_form<double>(a, stream);
}

}  // namespace spectrafuse
