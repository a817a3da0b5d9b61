// Spreads blocks of components over threads and sums what they found in the order of the blocks.
#include <vector>

#include "../common/gate.h"
#include "../common/isa.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

// Gates that pay for opening a parallel region.
constexpr std::int64_t kGatesWorthAThread = 8192;

template <class Arguments>
int threads_worth(const Arguments& a, int threads) {
    const std::int64_t worth = a.batch * a.components / kGatesWorthAThread;
    return worth < threads ? static_cast<int>(worth) : threads;
}

std::int64_t blocks_of(std::int64_t components) { return (components + kGateBlock - 1) / kGateBlock; }

}  // namespace

void gate_forward(const Gate& a, int dtype, int threads) {
    const GateKernels& kernels = SPECTRAFUSE_SELECT(gate_kernels[dtype]);
    const std::int64_t blocks = blocks_of(a.components);
    std::vector<double> sums(static_cast<std::size_t>(3 * blocks));
    parallel_shares(blocks, threads_worth(a, threads), [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) kernels.run(a, i, sums.data() + 3 * i);
    });
    for (int which = 0; which < 3; ++which) {
        double total = 0;
        for (std::int64_t i = 0; i < blocks; ++i) total += sums[static_cast<std::size_t>(3 * i + which)];
        if (dtype == 0)
            *static_cast<float*>(a.sum[which]) = static_cast<float>(total);
        else
            *static_cast<double*>(a.sum[which]) = total;
    }
}

void gate_backward(const GateBackward& a, int dtype, int threads) {
    const GateKernels& kernels = SPECTRAFUSE_SELECT(gate_kernels[dtype]);
    parallel_shares(blocks_of(a.components), threads_worth(a, threads), [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) kernels.backward(a, i);
    });
}

}  // namespace spectrafuse
