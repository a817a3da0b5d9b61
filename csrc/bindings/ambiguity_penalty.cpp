#include "../common/ambiguity_penalty.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

AmbiguityPenalty arguments_of(const std::array<std::int64_t, 2>& sizes, const std::string& kind, int power,
                              double offset, double scale, double quadratic) {
    static constexpr const char* names[] = {"poly",       "laplacian",  "rbf",       "matern 0.5",
                                            "matern 1.5", "matern 2.5", "matern 3.5"};
    int which = 0;
    while (which < 7 && kind != names[which]) ++which;
    if (which == 7) throw std::invalid_argument("no such kernel: " + kind);
    return {sizes[0], sizes[1], {static_cast<PairKind>(which), power, offset, scale, quadratic},
            nullptr,  nullptr,  nullptr};
}

std::size_t bound_workspace(int dtype, const std::array<std::int64_t, 2>& sizes) {
    return ambiguity_workspace(arguments_of(sizes, "rbf", 1, 0.0, 1.0, 0.0), dtype);
}

double bound_penalty(int dtype, const std::array<std::int64_t, 2>& sizes, const std::string& kind, int power,
                     double offset, double scale, double quadratic, Address components, Address gradient,
                     Address workspace, int threads) {
    AmbiguityPenalty arguments = arguments_of(sizes, kind, power, offset, scale, quadratic);
    arguments.components = pointer(components);
    arguments.gradient = pointer(gradient);
    arguments.workspace = pointer(workspace);
    const py::gil_scoped_release release;
    return ambiguity_penalty(arguments, dtype, threads);
}

}  // namespace

void bind_ambiguity_penalty(py::module_& m) {
    m.def("ambiguity_penalty_workspace", &bound_workspace);
    m.def("ambiguity_penalty", &bound_penalty);
}

}  // namespace spectrafuse
