#include "../common/ambiguity_penalty.h"

#include "../common/pair_names.h"
#include "../common/pair_scalar.h"
#include "bindings.h"
#if defined(SPECTRAFUSE_FOR_CUDA)
#include "../cuda/ambiguity_penalty.h"
#endif

namespace spectrafuse::ambiguity_penalty_binding {

#if defined(SPECTRAFUSE_FOR_CUDA)

static void penalty(int dtype, const Sizes<2>& sizes, const std::string& kind, int power, double offset, double scale,
                    double quadratic, Address components, Address order, Address selected, Address penalty,
                    Address gradient, Address workspace, Address stream) {
    const PairKernel kernel = pair_kernel_of(kind, power, offset, scale, quadratic);
    ambiguity_penalty_cuda({{sizes[0], sizes[1], kernel, components, gradient, workspace}, order, selected, penalty},
                           dtype, stream);
}

SPECTRAFUSE_BIND(ambiguity_penalty) {
    m.def("ambiguity_penalty_workspace", &ambiguity_penalty_workspace_cuda);
    m.def("ambiguity_penalty", &penalty);
}

#else

static std::size_t workspace(int dtype, const Sizes<2>& sizes) {
    return ambiguity_penalty_workspace({sizes[0], sizes[1], {}, nullptr, nullptr, nullptr}, dtype);
}

static AmbiguityPenalty arguments_of(const Sizes<2>& sizes, const std::string& kind, int power, double offset,
                                     double scale, double quadratic, Address components, Address gradient,
                                     Address workspace) {
    return {sizes[0], sizes[1], pair_kernel_of(kind, power, offset, scale, quadratic), components, gradient, workspace};
}

// Value and slope of one pair, from its inner product (poly), sum of absolute differences (laplacian) or squared
// distance, in the arithmetic of a CUDA thread.
template <class T>
static std::pair<T, T> pair_term(const std::string& kind, int power, double offset, double scale, double quadratic,
                                 T x) {
    using Math = PairScalar<T>;
    const PairKernel kernel = pair_kernel_of(kind, power, offset, scale, quadratic);
    const PairTerm<T> term = kernel.kind == PairKind::poly        ? term_of_product<Math>(kernel, x)
                             : kernel.kind == PairKind::laplacian ? term_of_absolute<Math>(kernel, x)
                                                                  : term_of_squared<Math>(kernel, x);
    return {term.value, term.slope};
}

SPECTRAFUSE_BIND(ambiguity_penalty) {
    m.def("ambiguity_penalty_workspace", &workspace);
    m.def("ambiguity_penalty", on_cpu(arguments_of, ambiguity_penalty));
    m.def("pair_term_float32", &pair_term<float>);
    m.def("pair_term_float64", &pair_term<double>);
}

#endif

}  // namespace spectrafuse::ambiguity_penalty_binding
