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
// arithmetic, at one load from shared memory for four operations.
#include "../common/pair_scalar.h"
#include "ambiguity_penalty.h"
#include "launch.h"

namespace spectrafuse {

namespace {

constexpr int kTile = 64, kDepth = 16, kSide = 16, kThreads = kSide * kSide, kWarp = 32;
constexpr int kEach = kTile / kSide;      // a thread's rows and columns of a tile, kSide apart
constexpr int kLines = kThreads / kTile;  // rows of 64 numbers that a block loads at once
constexpr int kPairs = kTile * kTile;
static_assert(kDepth == kSide && kDepth == kLines * kEach, "a block loads kDepth x kTile numbers in kEach steps");

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

// Slopes [i][j] of a pair of tiles, i of the first one.
template <class T>
__device__ T* slopes_of(const CudaAmbiguityPenalty& a, std::int64_t one, std::int64_t other) {
    T* slopes = reinterpret_cast<T*>(sums_of(a) + tile_pairs(tiles_of(a.all.count)));
    return slopes + (tile_pairs(other) + one) * kPairs;
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
__global__ void __launch_bounds__(kThreads) pair_kernel(CudaAmbiguityPenalty a) {
    __shared__ T ones[kDepth][kTile + 1], others[kDepth][kTile + 1];
    const std::int64_t one = blockIdx.x, other = blockIdx.y, count = selected_rows(a), dim = a.all.dim;
    if (one > other || other * kTile >= count) return;
    const int lane = threadIdx.x % kSide, line = threadIdx.x / kSide;
    const T *one_rows[kEach], *other_rows[kEach];  // that this thread loads from; null beyond the last one
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
        const std::int64_t i = one * kTile + line + e * kSide, j = other * kTile + line + e * kSide;
        const T* components = static_cast<const T*>(a.all.components);
        one_rows[e] = i < count ? components + row_of(a, i) * dim : nullptr;
        other_rows[e] = j < count ? components + row_of(a, j) * dim : nullptr;
    }
    T sum[kEach][kEach] = {};
    for (std::int64_t first = 0; first < dim; first += kDepth) {
        const std::int64_t d = first + lane;
        __syncthreads();
#pragma unroll
        for (int e = 0; e < kEach; ++e) {
            ones[lane][line + e * kSide] = d < dim && one_rows[e] != nullptr ? one_rows[e][d] : T(0);
            others[lane][line + e * kSide] = d < dim && other_rows[e] != nullptr ? other_rows[e][d] : T(0);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kDepth; ++k)
#pragma unroll
            for (int r = 0; r < kEach; ++r)
#pragma unroll
                for (int c = 0; c < kEach; ++c)
                    sum[r][c] =
                        with_dimension<T, form>(sum[r][c], ones[k][line + r * kSide], others[k][lane + c * kSide]);
    }
    double total = 0;
#pragma unroll
    for (int r = 0; r < kEach; ++r)
#pragma unroll
        for (int c = 0; c < kEach; ++c) {
            const int row = line + r * kSide, column = lane + c * kSide;
            const std::int64_t i = one * kTile + row, j = other * kTile + column;
            PairTerm<T> term{};
            if (i < count && j < count && i != j) term = term_of<T, form>(a.all.kernel, sum[r][c]);
            total += static_cast<double>(term.value);
            if (a.all.gradient != nullptr) slopes_of<T>(a, one, other)[row * kTile + column] = term.slope;
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
__global__ void __launch_bounds__(kThreads) gradient_kernel(CudaAmbiguityPenalty a) {
    __shared__ T slopes[kDepth][kTile + 1], rows[kDepth][kTile + 1];
    const std::int64_t tile = blockIdx.y, count = selected_rows(a), dim = a.all.dim;
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kTile;
    const int lane = threadIdx.x % kSide, line = threadIdx.x / kSide;
    const int wide_lane = threadIdx.x % kTile, wide_line = threadIdx.x / kTile;
    const T* components = static_cast<const T*>(a.all.components);
    T own[kEach][kEach], sum[kEach][kEach] = {};
#pragma unroll
    for (int r = 0; r < kEach; ++r)
#pragma unroll
        for (int c = 0; c < kEach; ++c) {
            const std::int64_t i = tile * kTile + line + r * kSide, d = begin + lane + c * kSide;
            own[r][c] = i < count && d < dim ? components[row_of(a, i) * dim + d] : T(0);
        }
    const std::int64_t end = tile * kTile < count ? count : 0;  // rows that are not selected have no pairs
    for (std::int64_t first = 0; first < end; first += kDepth) {
        const std::int64_t other = first / kTile, d = begin + wide_lane;
        const int inside = static_cast<int>(first % kTile);
        const T* from = tile <= other ? slopes_of<T>(a, tile, other) : slopes_of<T>(a, other, tile);
        __syncthreads();
#pragma unroll
        for (int e = 0; e < kEach; ++e) {
            const int row = line + e * kSide, k = wide_line + e * kLines;
            if (tile <= other)
                slopes[lane][row] = from[row * kTile + inside + lane];
            else
                slopes[k][wide_lane] = from[(inside + k) * kTile + wide_lane];
            rows[k][wide_lane] = first + k < count && d < dim ? components[row_of(a, first + k) * dim + d] : T(0);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kDepth; ++k)
#pragma unroll
            for (int r = 0; r < kEach; ++r)
#pragma unroll
                for (int c = 0; c < kEach; ++c)
                    sum[r][c] += pull<T, form>(slopes[k][line + r * kSide], rows[k][lane + c * kSide], own[r][c]);
    }
    const T weight = static_cast<T>(weight_of(count));
#pragma unroll
    for (int r = 0; r < kEach; ++r)
#pragma unroll
        for (int c = 0; c < kEach; ++c) {
            const std::int64_t i = tile * kTile + line + r * kSide, d = begin + lane + c * kSide;
            if (i < a.all.count && d < dim)
                static_cast<T*>(a.all.gradient)[row_of(a, i) * dim + d] = weight * sum[r][c];
        }
}

template <class T, Form form>
void penalty_of(const CudaAmbiguityPenalty& a, void* stream) {
    const unsigned tiles = blocks_of(a.all.count, kTile), strips = blocks_of(a.all.dim, kTile);
    launch("ambiguity_penalty, pairs", pair_kernel<T, form>, dim3(tiles, tiles), kThreads, stream, a);
    launch("ambiguity_penalty, mean", mean_kernel<T>, 1, kThreads, stream, a);
    if (a.all.gradient != nullptr)
        launch("ambiguity_penalty, gradient", gradient_kernel<T, form>, dim3(strips, tiles), kThreads, stream, a);
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
    return static_cast<std::size_t>(tile_pairs(tiles_of(count))) * (sizeof(double) + (gradient ? kPairs * number : 0));
}

void ambiguity_penalty_cuda(const CudaAmbiguityPenalty& a, int dtype, void* stream) {
    if (dtype == 0)
        penalty_by_form<float>(a, stream);
    else
        penalty_by_form<double>(a, stream);
}

}  // namespace spectrafuse
