#include "../common/dense_mean_shift.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

// Backward where `grad` is not 0. A null workspace asks for its size only.
DenseIteration arguments_of(const std::array<std::int64_t, 3>& sizes, double bandwidth, Address state, Address totals,
                            Address shifted, Address grad, Address result, Address workspace) {
    return {sizes[0],        sizes[1],         sizes[2],      bandwidth,       pointer(state),
            pointer(totals), pointer(shifted), pointer(grad), pointer(result), pointer(workspace)};
}

std::size_t bound_workspace(int dtype, const std::array<std::int64_t, 3>& sizes, bool backward) {
    return dense_workspace(arguments_of(sizes, 1.0, 0, 0, 0, backward ? 1 : 0, 0, 0), dtype);
}

double bound_iteration(int dtype, const std::array<std::int64_t, 3>& sizes, double bandwidth, Address state,
                       Address totals, Address shifted, Address grad, Address result, Address workspace, int threads) {
    const DenseIteration arguments = arguments_of(sizes, bandwidth, state, totals, shifted, grad, result, workspace);
    const py::gil_scoped_release release;
    return dense_iteration(arguments, dtype, threads);
}

}  // namespace

void bind_dense_mean_shift(py::module_& m) {
    m.def("dense_mean_shift_workspace", &bound_workspace);
    m.def("dense_mean_shift_iteration", &bound_iteration);
}

}  // namespace spectrafuse
