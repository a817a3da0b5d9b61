#include "../common/adamw_outer.h"

#include <sys/mman.h>

#include <tuple>
#include <vector>

#include "bindings.h"
#if defined(SPECTRAFUSE_FOR_CUDA)
#include "../cuda/adamw_outer.h"
#endif

namespace spectrafuse {

// Batch, rows, columns, and the addresses of x, grad_y, the weight and its two moments.
using Parameter = std::tuple<std::int64_t, std::int64_t, std::int64_t, Address, Address, Address, Address, Address>;

static std::vector<AdamwOuter> arguments_of(const std::vector<Parameter>& parameters) {
    std::vector<AdamwOuter> all;
    for (const Parameter& parameter : parameters)
        all.push_back(std::apply([](auto... fields) { return AdamwOuter{fields...}; }, parameter));
    return all;
}

#if defined(SPECTRAFUSE_FOR_CUDA)

static void step(const std::vector<Parameter>& parameters, double lr, double beta1, double beta2, double eps,
                 double weight_decay, std::int64_t step, Address device_step, Address stream) {
    for (const AdamwOuter& parameter : arguments_of(parameters))
        adamw_outer_cuda(parameter, {lr, beta1, beta2, eps, weight_decay}, step, device_step, stream);
}

SPECTRAFUSE_BIND(adamw_outer) { m.def("adamw_outer", &step); }

#else

static void step(int dtype, const std::vector<Parameter>& parameters, double lr, double beta1, double beta2, double eps,
                 double weight_decay, std::int64_t step, int threads) {
    const std::vector<AdamwOuter> all = arguments_of(parameters);
    adamw_outer(all.data(), static_cast<std::int64_t>(all.size()), {lr, beta1, beta2, eps, weight_decay}, step, dtype,
                threads);
}

// Puts the whole pages in a range of memory together to huge ones: a step streams through all of it. A wish, no more.
static void use_huge_pages(std::uintptr_t address, std::size_t bytes) {
    constexpr std::uintptr_t kPage = std::uintptr_t{1} << 21;
    constexpr int kCollapse = 25;  // MADV_COLLAPSE, of Linux 6.1: for pages that are in use already
    const std::uintptr_t begin = (address + kPage - 1) / kPage * kPage, end = (address + bytes) / kPage * kPage;
    if (begin >= end) return;
    madvise(Address{begin}, end - begin, MADV_HUGEPAGE);
    madvise(Address{begin}, end - begin, kCollapse);
}

SPECTRAFUSE_BIND(adamw_outer) {
    m.def("adamw_outer", &step);
    m.def("use_huge_pages", &use_huge_pages);
}

#endif

}  // namespace spectrafuse
