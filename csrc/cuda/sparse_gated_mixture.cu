// The sparse form of the mixture on a GPU, its gates drawn where they are used (Philox, the same words as on the CPU).
// Forward: a thread takes a band, 32 components and four samples. Backward: a block takes a component, its
// threads take bands and draw all samples' gates again.
//
// Reads 12 and writes (backward) 12 bytes a component and band; about 300 operations a gate: bound by arithmetic.
#include "mixture.cuh"

namespace spectrafuse {

namespace {

using A = Scalar<float>;
// Samples that a thread draws together: their blocks of Philox run side by side.
constexpr int kDrawnSamples = 4;

__device__ GateNumbers<A> gate_of(const MixturePool& p, const SparsityGates& g, const DrawOptions<float>& options,
                                  std::int64_t sample, std::int64_t at, float2 energy) {
    if (g.rng != nullptr) return drawn_gate<A>(options, sample, static_cast<std::uint64_t>(at), energy.x, energy.y);
    float2 noise = {0, 0};
    float difference = 0;
    const std::int64_t number = sample * p.components * p.bands + at;
    if (g.langevin != nullptr) noise = static_cast<const float2*>(g.langevin)[number];
    if (g.gumbel != nullptr && g.gumbel_of_both) {
        const float2 both = static_cast<const float2*>(g.gumbel)[number];
        difference = both.x - both.y;
    } else if (g.gumbel != nullptr) {
        difference = static_cast<const float*>(g.gumbel)[number];
    }
    return gate_numbers<A>(options.gate, energy.x, energy.y, noise.x, noise.y, difference);
}

__global__ void sparse_kernel(SparseGatedMixture a, const float* weights, float* partials, double* part_sums) {
    __shared__ double shared[32];
    const MixturePool& p = a.pool;
    const DrawOptions<float> options = draw_options<float>(a.gates);
    const std::int64_t j = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x, begin = blockIdx.y * kPartRows;
    const std::int64_t end = begin + kPartRows < p.components ? begin + kPartRows : p.components;
    const std::int64_t first = std::int64_t{blockIdx.z} * kDrawnSamples;
    double energies = 0, squares = 0;
    if (j < p.bands) {
        float sum[kDrawnSamples] = {};
        for (std::int64_t n = begin; n < end; ++n) {
            const std::int64_t at = n * p.bands + j;
            const float spectrum = spectrum_at(p, at);
            const float2 energy = static_cast<const float2*>(a.gates.energy)[at];
            float few = 0, few_squares = 0;  // in double only these, which a GPU for graphics adds slowly
#pragma unroll
            for (int b = 0; b < kDrawnSamples; ++b) {
                if (first + b >= p.batch) continue;
                const GateNumbers<A> gate = gate_of(p, a.gates, options, first + b, at, energy);
                sum[b] = A::fused(gate.select_prob * spectrum, weights[n * p.batch + first + b], sum[b]);
                few += gate.energy0 + gate.energy1;
                few_squares = A::fused(gate.energy0, gate.energy0, few_squares);
                few_squares = A::fused(gate.energy1, gate.energy1, few_squares);
            }
            energies += static_cast<double>(few);
            squares += static_cast<double>(few_squares);
        }
#pragma unroll
        for (int b = 0; b < kDrawnSamples; ++b)
            if (first + b < p.batch) partials[(blockIdx.y * p.batch + first + b) * p.bands + j] = sum[b];
    }
    energies = block_sum(energies, shared);
    squares = block_sum(squares, shared);
    if (threadIdx.x == 0) {
        const std::int64_t row = std::int64_t{blockIdx.z} * gridDim.y + blockIdx.y;
        double* to = part_sums + 2 * (row * gridDim.x + blockIdx.x);
        to[0] = energies;
        to[1] = squares;
    }
}

__global__ void add_part_sums_kernel(const double* part_sums, std::int64_t count, float* energy_sum,
                                     float* energy_square_sum) {
    __shared__ double shared[32];
    const double energies = strided_sum(part_sums, count, 2, shared);
    const double squares = strided_sum(part_sums + 1, count, 2, shared);
    if (threadIdx.x != 0) return;
    *energy_sum = static_cast<float>(energies);
    *energy_square_sum = static_cast<float>(squares);
}

__global__ void sparse_backward_kernel(SparseGatedMixtureBackward a, MixtureWorkspace w) {
    __shared__ float shared[kMixtureThreads / 32 * kDrawnSamples];
    const MixturePool& p = a.pool;
    const DrawOptions<float> options = draw_options<float>(a.gates);
    const std::int64_t n = blockIdx.x;
    const float length = w.lengths[n], each = value_of(a.grad_sum), square = 2 * value_of(a.grad_square_sum);
    const float* grad = static_cast<const float*>(a.grad);
    float along_length = 0;
    for (std::int64_t first = 0; first < p.batch; first += kDrawnSamples) {
        float product[kDrawnSamples] = {};
        for (std::int64_t j = threadIdx.x; j < p.bands; j += blockDim.x) {
            const std::int64_t at = n * p.bands + j;
            const float spectrum = spectrum_at(p, at);
            const float2 energy = static_cast<const float2*>(a.gates.energy)[at];
            float* raw = static_cast<float*>(a.grad_raw) + at;
            float2* out = static_cast<float2*>(a.grad_energy) + at;
            float along_spectrum = first == 0 ? 0.0f : *raw;
            float2 along_energy = first == 0 ? float2{0, 0} : *out;
#pragma unroll
            for (int b = 0; b < kDrawnSamples; ++b) {
                if (first + b >= p.batch) continue;
                const GateNumbers<A> gate = gate_of(p, a.gates, options, first + b, at, energy);
                const float upstream = grad[(first + b) * p.bands + j], weight = w.weights[n * p.batch + first + b];
                const float open = upstream * gate.select_prob;
                product[b] = A::fused(open, spectrum, product[b]);
                along_spectrum = A::fused(open, weight, along_spectrum);
                const float slope = upstream * weight * spectrum * gate_slope<A>(options.gate, gate.select_prob);
                along_energy.x -= A::fused(square, gate.energy0, each) + slope;
                along_energy.y -= A::fused(square, gate.energy1, each) - slope;
            }
            *raw = along_spectrum;  // of the spectrum until the length's part is known
            *out = along_energy;
        }
        along_length +=
            store_weight_gradients(p, w, first, n, product, shared, a.grad_concentration, a.grad_select_prob);
    }
    along_length = block_sum(along_length, shared);
    for (std::int64_t j = threadIdx.x; j < p.bands; j += blockDim.x) {
        const std::int64_t at = n * p.bands + j;
        float* raw = static_cast<float*>(a.grad_raw) + at;
        *raw = raw_gradient(static_cast<const float*>(p.raw)[at], p.batch == 0 ? 0.0f : *raw, along_length / length,
                            length, p.non_negative, p.norm);
        if (p.batch == 0) static_cast<float2*>(a.grad_energy)[at] = float2{0, 0};
    }
}

}  // namespace

std::int64_t sparse_blocks(std::int64_t batch, std::int64_t components, std::int64_t bands) {
    return std::int64_t{blocks_of(bands, kMixtureThreads)} * mixture_parts(components) *
           blocks_of(batch, kDrawnSamples);
}

void sparse_gated_mixture_forward_cuda(const SparseGatedMixture& a, const MixtureWorkspace& w, double* part_sums,
                                       void* stream) {
    const MixturePool& p = a.pool;
    mixture_weights(p, w, stream);
    const dim3 grid(blocks_of(p.bands, kMixtureThreads), static_cast<unsigned>(mixture_parts(p.components)),
                    blocks_of(p.batch, kDrawnSamples));
    launch("sparse gated mixture", sparse_kernel, grid, kMixtureThreads, stream, a, w.weights, w.partials, part_sums);
    add_parts(p, w, a.mixture, stream);
    launch("sparse gated mixture's sums", add_part_sums_kernel, 1, kMixtureThreads, stream, part_sums,
           sparse_blocks(p.batch, p.components, p.bands), static_cast<float*>(a.energy_sum),
           static_cast<float*>(a.energy_square_sum));
}

void sparse_gated_mixture_backward_cuda(const SparseGatedMixtureBackward& a, const MixtureWorkspace& w, void* stream) {
    mixture_weights(a.pool, w, stream);
    launch("sparse gated mixture's backward", sparse_backward_kernel, static_cast<unsigned>(a.pool.components),
           kMixtureThreads, stream, a, w);
}

}  // namespace spectrafuse
