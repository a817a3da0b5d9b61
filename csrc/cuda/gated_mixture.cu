// (c s^2) S on a GPU. Forward: a thread takes a band and 32 components and keeps 16 samples' sums in registers; parts
// are added in their order. Backward: a block takes a component; its threads take bands.
//
// Reads 4 N d bytes for every 16 samples forward and backward, and writes as many backward: bound by memory.
#include "mixture.cuh"

namespace spectrafuse {

namespace {

__global__ void mixture_kernel(MixturePool p, const float* weights, float* partials) {
    const std::int64_t j = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x, first = blockIdx.z * kTileSamples;
    const std::int64_t begin = blockIdx.y * kPartRows;
    const std::int64_t end = begin + kPartRows < p.components ? begin + kPartRows : p.components;
    if (j >= p.bands) return;
    float sum[kTileSamples] = {};
    for (std::int64_t n = begin; n < end; ++n) {
        const float spectrum = spectrum_at(p, n * p.bands + j);
        const float* weight = weights + n * p.batch + first;
#pragma unroll
        for (int b = 0; b < kTileSamples; ++b)
            if (first + b < p.batch) sum[b] += weight[b] * spectrum;
    }
#pragma unroll
    for (int b = 0; b < kTileSamples; ++b)
        if (first + b < p.batch) partials[(blockIdx.y * p.batch + first + b) * p.bands + j] = sum[b];
}

__global__ void mixture_backward_kernel(GatedMixtureBackward a, MixtureWorkspace w) {
    __shared__ float shared[kMixtureThreads / 32 * kTileSamples];
    const MixturePool& p = a.pool;
    const std::int64_t n = blockIdx.x;
    const float length = w.lengths[n];
    const float* grad = static_cast<const float*>(a.grad);
    float along_length = 0;
    for (std::int64_t first = 0; first < p.batch; first += kTileSamples) {
        float product[kTileSamples] = {};
        for (std::int64_t j = threadIdx.x; j < p.bands; j += blockDim.x) {
            const float spectrum = spectrum_at(p, n * p.bands + j);
#pragma unroll
            for (int b = 0; b < kTileSamples; ++b)
                if (first + b < p.batch) product[b] += spectrum * grad[(first + b) * p.bands + j];
        }
        along_length +=
            store_weight_gradients(p, w, first, n, product, shared, a.grad_concentration, a.grad_select_prob);
    }
    along_length = block_sum(along_length, shared);
    for (std::int64_t j = threadIdx.x; j < p.bands; j += blockDim.x) {
        float along_spectrum = 0;
        for (std::int64_t b = 0; b < p.batch; ++b) along_spectrum += w.weights[n * p.batch + b] * grad[b * p.bands + j];
        const std::int64_t at = n * p.bands + j;
        static_cast<float*>(a.grad_raw)[at] = raw_gradient(static_cast<const float*>(p.raw)[at], along_spectrum,
                                                           along_length / length, length, p.non_negative, p.norm);
    }
}

}  // namespace

std::int64_t mixture_parts(std::int64_t components) { return (components + kPartRows - 1) / kPartRows; }

void gated_mixture_forward_cuda(const GatedMixture& a, const MixtureWorkspace& w, void* stream) {
    const MixturePool& p = a.pool;
    mixture_weights(p, w, stream);
    const dim3 grid(blocks_of(p.bands, kMixtureThreads), static_cast<unsigned>(mixture_parts(p.components)),
                    blocks_of(p.batch, kTileSamples));
    launch("gated mixture", mixture_kernel, grid, kMixtureThreads, stream, p, w.weights, w.partials);
    add_parts(p, w, a.mixture, stream);
}

void gated_mixture_backward_cuda(const GatedMixtureBackward& a, const MixtureWorkspace& w, void* stream) {
    mixture_weights(a.pool, w, stream);
    launch("gated mixture's backward", mixture_backward_kernel, static_cast<unsigned>(a.pool.components),
           kMixtureThreads, stream, a, w);
}

}  // namespace spectrafuse
