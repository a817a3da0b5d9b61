#include "../common/pair_names.h"
#include "ambiguity_penalty.h"
#include "bindings.h"

namespace spectrafuse {

namespace {

void bound_penalty(int dtype, const std::array<std::int64_t, 2>& sizes, const std::string& kind, int power,
                   double offset, double scale, double quadratic, Address components, Address order, Address selected,
                   Address penalty, Address gradient, Address workspace, Address stream) {
    const CudaAmbiguityPenalty arguments{{sizes[0], sizes[1], pair_kernel_of(kind, power, offset, scale, quadratic),
                                          pointer<void>(components), pointer<void>(gradient), pointer<void>(workspace)},
                                         pointer<std::int64_t>(order),
                                         pointer<std::int64_t>(selected),
                                         pointer<void>(penalty)};
    const py::gil_scoped_release release;
    ambiguity_penalty_cuda(arguments, dtype, pointer<void>(stream));
}

}  // namespace

void bind_ambiguity_penalty(py::module_& m) {
    m.def("ambiguity_penalty_workspace", &ambiguity_workspace_cuda);
    m.def("ambiguity_penalty", &bound_penalty);
}

}  // namespace spectrafuse
