// Rows of a pool on their way to the ambiguity penalty and back: absolute value, norm, and their gradients.
//
// A block takes a component, one more of them the list of those that are used. Reads a row and writes it, and on the
// way back reads three and writes one: bound by memory, beside a penalty that is not.
#include "ambiguity_penalty.h"
#include "component_penalty.h"
#include "launch.h"

namespace spectrafuse {

namespace {

constexpr int kThreads = 128;

// Row numbers, those of used components first, both in their order. A thread takes a part of them.
__device__ void list_used(const ComponentPenalty& a, const ComponentPenaltyWorkspace& w) {
    __shared__ int counts[kThreads];
    const std::int64_t count = a.pool.components, each = (count + kThreads - 1) / kThreads;
    const std::int64_t begin = threadIdx.x * each, end = begin + each < count ? begin + each : count;
    std::int64_t before = 0, all = 0;
    int own = 0;
    for (std::int64_t n = begin; n < end; ++n) own += a.used[n];
    counts[threadIdx.x] = own;
    __syncthreads();
    for (int i = 0; i < kThreads; ++i) {
        if (i < static_cast<int>(threadIdx.x)) before += counts[i];
        all += counts[i];
    }
    for (std::int64_t n = begin; n < end; ++n) {
        const std::int64_t to = a.used[n] ? before : all + n - before;
        w.order[to] = n;
        before += a.used[n];
    }
    if (threadIdx.x == 0) w.order[count] = all;
}

__global__ void form_kernel(ComponentPenalty a, ComponentPenaltyWorkspace w) {
    __shared__ float shared[32];
    const MixturePool& p = a.pool;
    const std::int64_t n = blockIdx.x;
    if (n == p.components) return list_used(a, w);
    const float* raw = static_cast<const float*>(p.raw) + n * p.bands;
    float sum = 0;
    for (std::int64_t j = threadIdx.x; j < p.bands; j += kThreads) sum += p.norm == 2 ? raw[j] * raw[j] : fabsf(raw[j]);
    const float total = block_sum(sum, shared);
    const float length = p.norm == 0 || total == 0 ? 1.0f : p.norm == 2 ? sqrtf(total) : total;
    for (std::int64_t j = threadIdx.x; j < p.bands; j += kThreads)
        w.spectra[n * p.bands + j] = (p.non_negative ? fabsf(raw[j]) : raw[j]) / length;
    if (threadIdx.x == 0) w.lengths[n] = length;
}

__global__ void spread_kernel(ComponentPenalty a, ComponentPenaltyWorkspace w) {
    __shared__ float shared[32];
    const MixturePool& p = a.pool;
    const std::int64_t n = blockIdx.x, row = n * p.bands;
    if (!a.used[n]) return;
    float sum = 0;
    for (std::int64_t j = threadIdx.x; j < p.bands; j += kThreads) sum += w.spectra[row + j] * w.gradient[row + j];
    const float length = w.lengths[n], along_length = -block_sum(sum, shared) / length;
    for (std::int64_t j = threadIdx.x; j < p.bands; j += kThreads)
        static_cast<float*>(a.grad_raw)[row + j] +=
            static_cast<float>(a.weight) * raw_gradient(static_cast<const float*>(p.raw)[row + j],
                                                        w.gradient[row + j] / length, along_length, length,
                                                        p.non_negative, p.norm);
}

}  // namespace

void component_penalty_cuda(const ComponentPenalty& a, const ComponentPenaltyWorkspace& w, float* penalty,
                            void* stream) {
    const std::int64_t count = a.pool.components;
    launch("component_penalty, spectra", form_kernel, static_cast<unsigned>(count + 1), kThreads, stream, a, w);
    void* gradient = a.grad_raw == nullptr ? nullptr : w.gradient;
    ambiguity_penalty_cuda(
        {{count, a.pool.bands, a.kernel, w.spectra, gradient, w.pairs}, w.order, w.order + count, penalty}, 0, stream);
    if (a.grad_raw != nullptr)
        launch("component_penalty, raw gradient", spread_kernel, static_cast<unsigned>(count), kThreads, stream, a, w);
}

}  // namespace spectrafuse
