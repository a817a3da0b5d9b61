#include "../common/dense_mean_shift.h"

#include "bindings.h"

namespace spectrafuse::dense_mean_shift_binding {

// Backward where `grad` is not 0. A null workspace asks for its size only.
static DenseIteration arguments_of(const Sizes<3>& sizes, double bandwidth, Address state, Address totals,
                                   Address shifted, Address grad, Address result, Address workspace) {
    return {sizes[0], sizes[1], sizes[2], bandwidth, state, totals, shifted, grad, result, workspace};
}

static std::size_t workspace(int dtype, const Sizes<3>& sizes, bool backward) {
    return dense_mean_shift_workspace(arguments_of(sizes, 1.0, {}, {}, {}, {backward}, {}, {}), dtype);
}

SPECTRAFUSE_BIND(dense_mean_shift) {
    m.def("dense_mean_shift_workspace", &workspace);
    m.def("dense_mean_shift_iteration", on_cpu(arguments_of, dense_mean_shift_iteration));
}

}  // namespace spectrafuse::dense_mean_shift_binding
