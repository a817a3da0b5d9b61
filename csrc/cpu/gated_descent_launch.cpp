// Spreads spectra, or blocks of channels, over threads; lists where concentrations are not zero.
#include <algorithm>
#include <vector>

#include "../common/gated_descent.h"
#include "../common/isa.h"
#include "parallel.h"

namespace spectrafuse {

namespace {

const GatedDescentKernels& kernels() { return SPECTRAFUSE_SELECT(gated_descent_kernels); }

// A thread is worth its start, and waiting for it where cores are shared, for so many products.
constexpr std::int64_t kGrain = std::int64_t{1} << 20;

int useful(std::int64_t products, int threads) {
    return static_cast<int>(std::clamp<std::int64_t>(products / kGrain, 1, threads));
}

std::size_t bytes(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(double); }

// Entries that are not zero, by component.
struct Entries {
    std::vector<std::int64_t> start, row;
    std::vector<double> value;
};

Entries open_entries(const Mixture& a) {
    const std::int64_t n = a.samples, k = a.components;
    Entries found{std::vector<std::int64_t>(static_cast<std::size_t>(k + 1), 0), {}, {}};
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < k; ++j) found.start[j + 1] += a.concentrations[i * k + j] != 0;
    for (std::int64_t j = 0; j < k; ++j) found.start[j + 1] += found.start[j];
    found.row.resize(static_cast<std::size_t>(found.start[k]));
    found.value.resize(found.row.size());
    std::vector<std::int64_t> next(found.start.begin(), found.start.end() - 1);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < k; ++j)
            if (const double value = a.concentrations[i * k + j]; value != 0) {
                found.row[next[j]] = i;
                found.value[next[j]++] = value;
            }
    return found;
}

// Concentrations along each other (k, k): sums over spectra in their order.
std::vector<double> overlaps(const Mixture& a, const Entries& entries, int threads) {
    const std::int64_t k = a.components;
    std::vector<double> overlap(static_cast<std::size_t>(k * k), 0.0);
    parallel_shares(k, threads, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t j = begin; j < end; ++j)
            for (std::int64_t entry = entries.start[j]; entry < entries.start[j + 1]; ++entry) {
                const double* amounts = a.concentrations + entries.row[entry] * k;
                double* sums = overlap.data() + j * k;
                for (std::int64_t other = 0; other < k; ++other)
                    if (amounts[other] != 0) sums[other] += entries.value[entry] * amounts[other];
            }
    });
    return overlap;
}

}  // namespace

void descend_concentrations(const ConcentrationDescent& a, int threads) {
    if (a.components == 0) return;
    threads = useful(a.samples * a.components * a.components, threads);
    const ThreadScratch gradient(bytes(a.components), threads);
    parallel_shares(a.samples, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels().concentrations(a, begin, end, static_cast<double*>(gradient.of(thread)));
    });
}

void descend_open_gates(OpenDescent a, int threads) {
    if (a.mixture.components == 0 || a.mixture.channels == 0) return;
    threads = useful(a.mixture.samples * (a.mixture.components + a.mixture.channels), threads);
    const Mixture shapes{a.mixture.components, a.mixture.channels, 0, a.mixture.shapes, nullptr, nullptr};
    std::vector<double> strength(static_cast<std::size_t>(shapes.samples));
    mixture_residual(shapes, nullptr, strength.data(), threads);
    a.strength = strength.data();
    const ThreadScratch scratch(bytes(a.mixture.channels), threads), places(bytes(a.mixture.components), threads);
    parallel_shares(a.mixture.samples, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels().open(a, begin, end, static_cast<double*>(scratch.of(thread)),
                       static_cast<std::int64_t*>(places.of(thread)));
    });
}

void descend_components(ComponentDescent a, int threads) {
    if (a.mixture.components == 0) return;
    const Entries entries = open_entries(a.mixture);
    threads = useful((entries.start.back() + a.mixture.components) * a.mixture.channels, threads);
    const std::vector<double> overlap = overlaps(a.mixture, entries, threads);
    a.start = entries.start.data();
    a.row = entries.row.data();
    a.value = entries.value.data();
    a.overlap = overlap.data();
    const std::int64_t d = a.mixture.channels, blocks = (d + kChannelBlock - 1) / kChannelBlock;
    parallel_shares(blocks, threads, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t first = begin * kChannelBlock; first < std::min(end * kChannelBlock, d);
             first += kChannelBlock)
            kernels().components(a, first, std::min(kChannelBlock, d - first));
    });
}

void mixture_residual(const Mixture& a, double* residual, double* power, int threads) {
    threads = useful(a.samples * (a.components + a.channels), threads);
    const ThreadScratch scratch(bytes(a.channels), threads);
    parallel_shares(a.samples, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels().residual(a, residual, power, begin, end, static_cast<double*>(scratch.of(thread)));
    });
}

}  // namespace spectrafuse
