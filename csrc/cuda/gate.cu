// Gates on a GPU. One thread takes a component and walks over the samples, so that `used` needs no second pass; sums
// are formed in a block and then over blocks, in their order.
//
// Reads 2 to 6 numbers and writes 3 a gate; backward reads 3 to 6 and writes 2: bound by memory.
#include "gate.h"
#include "launch.h"

namespace spectrafuse {

namespace {

using A = Scalar<float>;
constexpr int kThreads = 64;

__global__ void gate_kernel(Gate a, double* block_sums) {
    __shared__ double shared[32];
    const GateOptions<float> options = gate_options<float>(a.shift, a.tau);
    const bool hard = a.hard_threshold >= 0;
    const float threshold = static_cast<float>(hard ? a.hard_threshold : a.used_threshold);
    const std::int64_t n = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    double energies = 0, squares = 0, gates = 0;
    if (n < a.components) {
        bool any = false;
        FewSums energy_sum, square_sum, gate_sum;
        for (std::int64_t b = 0; b < a.batch; ++b) {
            const std::int64_t at = b * a.components + n;
            const float2 energy = static_cast<const float2*>(a.energy)[at];
            const float2 noise = a.langevin == nullptr ? float2{0, 0} : static_cast<const float2*>(a.langevin)[at];
            float difference = 0;
            if (a.gumbel != nullptr && a.gumbel_of_both) {
                const float2 both = static_cast<const float2*>(a.gumbel)[at];
                difference = both.x - both.y;
            } else if (a.gumbel != nullptr) {
                difference = static_cast<const float*>(a.gumbel)[at];
            }
            const GateNumbers<A> gate = gate_numbers<A>(options, energy.x, energy.y, noise.x, noise.y, difference);
            const bool selected = gate.select_prob > threshold;
            const float prob = hard ? static_cast<float>(selected) : gate.select_prob;
            any |= selected;
            energy_sum.add(gate.energy0 + gate.energy1);
            square_sum.add(A::fused(gate.energy0, gate.energy0, gate.energy1 * gate.energy1));
            gate_sum.add(prob);
            static_cast<float*>(a.select_prob)[at] = prob;
            static_cast<float2*>(a.select_energy)[at] = float2{gate.energy0, gate.energy1};
        }
        a.used[n] = any;
        energies = energy_sum.total();
        squares = square_sum.total();
        gates = gate_sum.total();
    }
    energies = block_sum(energies, shared);
    squares = block_sum(squares, shared);
    gates = block_sum(gates, shared);
    if (threadIdx.x == 0) {
        block_sums[3 * blockIdx.x] = energies;
        block_sums[3 * blockIdx.x + 1] = squares;
        block_sums[3 * blockIdx.x + 2] = gates;
    }
}

__global__ void add_blocks_kernel(const double* block_sums, std::int64_t blocks, float* first, float* second,
                                  float* third) {
    __shared__ double shared[32];
    float* to[3] = {first, second, third};
    for (int i = 0; i < 3; ++i) {
        const double total = strided_sum(block_sums + i, blocks, 3, shared);
        if (threadIdx.x == 0) *to[i] = static_cast<float>(total);
    }
}

__global__ void gate_backward_kernel(GateBackward a) {
    const GateOptions<float> options = gate_options<float>(0.0, a.tau);
    const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (at >= a.batch * a.components) return;
    const float each = value_of(a.grad_sum[0]), square = 2 * value_of(a.grad_sum[1]);
    const float2 energy = static_cast<const float2*>(a.select_energy)[at];
    float2 along = {A::fused(square, energy.x, each), A::fused(square, energy.y, each)};
    if (a.grad_energy != nullptr) {
        const float2 given = static_cast<const float2*>(a.grad_energy)[at];
        along.x += given.x;
        along.y += given.y;
    }
    if (!a.hard) {
        float upstream = value_of(a.grad_sum[2]);
        if (a.grad_prob != nullptr) upstream += static_cast<const float*>(a.grad_prob)[at];
        const float slope = upstream * gate_slope<A>(options, static_cast<const float*>(a.select_prob)[at]);
        along.x += slope;
        along.y -= slope;
    }
    static_cast<float2*>(a.grad)[at] = float2{-along.x, -along.y};
}

}  // namespace

std::int64_t gate_blocks(std::int64_t components) { return (components + kThreads - 1) / kThreads; }

void gate_forward_cuda(const Gate& a, double* block_sums, void* stream) {
    const unsigned blocks = blocks_of(a.components, kThreads);
    launch("gate", gate_kernel, blocks, kThreads, stream, a, block_sums);
    launch("gate's sums", add_blocks_kernel, 1, kThreads, stream, block_sums, blocks, static_cast<float*>(a.sum[0]),
           static_cast<float*>(a.sum[1]), static_cast<float*>(a.sum[2]));
}

void gate_backward_cuda(const GateBackward& a, void* stream) {
    launch("gate's backward", gate_backward_kernel, blocks_of(a.batch * a.components, 256), 256, stream, a);
}

}  // namespace spectrafuse
