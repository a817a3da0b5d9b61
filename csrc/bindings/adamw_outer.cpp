#include "../common/adamw_outer.h"

#include <sys/mman.h>

#include <vector>

#include "bindings.h"

namespace spectrafuse {

namespace {

// A parameter: batch, rows, columns, and the addresses of x, grad_y, the weight and its two moments.
using Parameter = std::array<std::int64_t, 8>;

void bound_step(int dtype, const std::vector<Parameter>& parameters, double lr, double beta1, double beta2, double eps,
                double weight_decay, std::int64_t step, int threads) {
    std::vector<AdamwOuter> all;
    for (const Parameter& p : parameters)
        all.push_back({p[0], p[1], p[2], pointer(p[3]), pointer(p[4]), pointer(p[5]), pointer(p[6]), pointer(p[7])});
    const py::gil_scoped_release release;
    adamw_outer(all.data(), static_cast<std::int64_t>(all.size()), {lr, beta1, beta2, eps, weight_decay}, step, dtype,
                threads);
}

// Puts the whole pages in a range of memory together to huge ones: a step streams through all of it. A wish, no more.
void bound_huge_pages(Address address, std::size_t bytes) {
    constexpr Address kPage = Address{1} << 21;
    constexpr int kCollapse = 25;  // MADV_COLLAPSE, of Linux 6.1: for pages that are in use already
    const Address begin = (address + kPage - 1) / kPage * kPage, end = (address + bytes) / kPage * kPage;
    if (begin >= end) return;
    const py::gil_scoped_release release;
    madvise(pointer(begin), end - begin, MADV_HUGEPAGE);
    madvise(pointer(begin), end - begin, kCollapse);
}

}  // namespace

void bind_adamw_outer(py::module_& m) {
    m.def("adamw_outer", &bound_step);
    m.def("use_huge_pages", &bound_huge_pages);
}

}  // namespace spectrafuse
