#include "../common/ambiguity_penalty.h"

#include "../common/component_penalty.h"
#include "../common/pair_names.h"
#include "../common/pair_scalar.h"
#include "mixture_pool.h"

namespace spectrafuse {

namespace {

std::size_t bound_workspace(int dtype, const std::array<std::int64_t, 2>& sizes) {
    return ambiguity_workspace({sizes[0], sizes[1], {}, nullptr, nullptr, nullptr}, dtype);
}

double bound_penalty(int dtype, const std::array<std::int64_t, 2>& sizes, const std::string& kind, int power,
                     double offset, double scale, double quadratic, Address components, Address gradient,
                     Address workspace, int threads) {
    const AmbiguityPenalty arguments{sizes[0],
                                     sizes[1],
                                     pair_kernel_of(kind, power, offset, scale, quadratic),
                                     pointer(components),
                                     pointer(gradient),
                                     pointer(workspace)};
    const py::gil_scoped_release release;
    return ambiguity_penalty(arguments, dtype, threads);
}

double bound_component_penalty(int dtype, const std::array<std::int64_t, 2>& sizes, const std::string& kind, int power,
                               double offset, double scale, double quadratic, bool non_negative, int norm, Address raw,
                               Address used, double weight, Address grad_raw, int threads) {
    const ComponentPenalty arguments{mixture_pool({0, sizes[0], sizes[1]}, non_negative, norm, {0, 0, raw}),
                                     pointer<const bool>(used), pair_kernel_of(kind, power, offset, scale, quadratic),
                                     weight, pointer(grad_raw)};
    const py::gil_scoped_release release;
    return component_penalty(arguments, dtype, threads);
}

// Value and slope of one pair, from its inner product (poly), sum of absolute differences (laplacian) or squared
// distance, in the arithmetic of a CUDA thread.
template <class T>
std::pair<T, T> bound_term(const std::string& kind, int power, double offset, double scale, double quadratic, T x) {
    using Math = PairScalar<T>;
    const PairKernel kernel = pair_kernel_of(kind, power, offset, scale, quadratic);
    const PairTerm<T> term = kernel.kind == PairKind::poly        ? term_of_product<Math>(kernel, x)
                             : kernel.kind == PairKind::laplacian ? term_of_absolute<Math>(kernel, x)
                                                                  : term_of_squared<Math>(kernel, x);
    return {term.value, term.slope};
}

}  // namespace

void bind_ambiguity_penalty(py::module_& m) {
    m.def("ambiguity_penalty_workspace", &bound_workspace);
    m.def("ambiguity_penalty", &bound_penalty);
    m.def("component_penalty", &bound_component_penalty);
    m.def("pair_term_float32", &bound_term<float>);
    m.def("pair_term_float64", &bound_term<double>);
}

}  // namespace spectrafuse
