// Chooses the instruction set and spreads outputs over threads.
#include "../common/isa.h"
#include "../common/skinny_linear.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

// Opening a parallel region costs more than it saves on fewer weights than these.
constexpr std::int64_t kSmallest = 1 << 15;

}  // namespace

void skinny_linear_forward(const SkinnyLinear& a, int dtype, int threads) {
    const SkinnyLinearForwardKernels& kernels = SPECTRAFUSE_SELECT(skinny_linear_forward_kernels[dtype]);
    if (a.inputs * a.outputs < kSmallest) threads = 1;
    const ThreadScratch packed(kernels.packed_size(a), 1);
    parallel_shares(a.inputs, threads,
                    [&](std::int64_t begin, std::int64_t end, int) { kernels.pack(a, begin, end, packed.of(0)); });
    const std::int64_t groups = (a.outputs + kLinearGroup - 1) / kLinearGroup;
    parallel_shares(groups, threads,
                    [&](std::int64_t begin, std::int64_t end, int) { kernels.run(a, begin, end, packed.of(0)); });
}

void skinny_linear_backward(const SkinnyLinearBackward& a, int dtype, int threads) {
    const SkinnyLinearBackwardKernels& kernels = SPECTRAFUSE_SELECT(skinny_linear_backward_kernels[dtype]);
    if (a.inputs * a.outputs < kSmallest) threads = 1;
    const ThreadScratch scratch(kernels.scratch(a), threads);
    const std::int64_t rows = linear_part_rows(a.outputs), parts = (a.outputs + rows - 1) / rows;
    if (parts <= 1) return kernels.run(a, 0, a.outputs, a.grad_x, scratch.of(0));
    const std::size_t size =
        static_cast<std::size_t>(a.batch * a.inputs) * (dtype == 0 ? sizeof(float) : sizeof(double));
    const ThreadScratch partials(size * static_cast<std::size_t>(parts), 1);
    char* memory = static_cast<char*>(partials.of(0));
    parallel_shares(parts, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t part = begin; part < end; ++part)
            kernels.run(a, part * rows, (part + 1) * rows < a.outputs ? (part + 1) * rows : a.outputs,
                        memory + static_cast<std::size_t>(part) * size, scratch.of(thread));
    });
    parallel_shares(a.batch * a.inputs, threads,
                    [&](std::int64_t begin, std::int64_t end, int) { kernels.add(a, memory, parts, begin, end); });
}

}  // namespace spectrafuse
