// Gathers the used components, calls the penalty of them all, and spreads its gradient over the pool.
#include <vector>

#include "../common/ambiguity_penalty.h"
#include "../common/component_penalty.h"
#include "../common/isa.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

// Numbers that pay for opening a parallel region.
constexpr std::int64_t kWorthThreads = 1 << 16;

}  // namespace

double component_penalty(const ComponentPenalty& a, int dtype, int threads) {
    const ComponentPenaltyKernels& kernels = SPECTRAFUSE_SELECT(component_penalty_kernels[dtype]);
    std::vector<std::int64_t> ids;
    for (std::int64_t id = 0; id < a.pool.components; ++id)
        if (a.used[id]) ids.push_back(id);
    const std::int64_t count = static_cast<std::int64_t>(ids.size()), bands = a.pool.bands;
    if (count < 2) return 0;
    const std::size_t number = dtype == 0 ? sizeof(float) : sizeof(double);
    const std::size_t row = number * static_cast<std::size_t>(bands), table = row * static_cast<std::size_t>(count);
    AmbiguityPenalty pairs{count, bands, a.kernel, nullptr, nullptr, nullptr};
    // Spectra, their gradients, lengths, and what the penalty needs.
    const ThreadScratch tables(table, 2), lengths(number * static_cast<std::size_t>(count), 1);
    const ThreadScratch workspace(ambiguity_penalty_workspace(pairs, dtype), 1);
    char *spectra = static_cast<char*>(tables.of(0)), *grads = static_cast<char*>(tables.of(1));
    const auto length = [&](std::int64_t i) {
        return static_cast<char*>(lengths.of(0)) + number * static_cast<std::size_t>(i);
    };
    pairs.components = spectra;
    pairs.gradient = a.grad_raw == nullptr ? nullptr : grads;
    pairs.workspace = workspace.of(0);
    const int worth = count * bands < kWorthThreads ? 1 : threads;
    parallel_shares(count, worth, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i)
            kernels.form(a, ids[static_cast<std::size_t>(i)], spectra + row * static_cast<std::size_t>(i), length(i));
    });
    const double penalty = ambiguity_penalty(pairs, dtype, threads);
    if (a.grad_raw != nullptr)
        parallel_shares(count, worth, [&](std::int64_t begin, std::int64_t end, int) {
            for (std::int64_t i = begin; i < end; ++i) {
                const std::size_t at = row * static_cast<std::size_t>(i);
                kernels.add(a, ids[static_cast<std::size_t>(i)], spectra + at, grads + at, length(i));
            }
        });
    return penalty;
}

}  // namespace spectrafuse
