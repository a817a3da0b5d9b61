#include "../common/gated_descent.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

using Sizes = std::array<std::int64_t, 3>;  // n, d, k
// The number of the type comes first, as everywhere; it is that of float64.
using Type = int;

Mixture mixture(const Sizes& sizes, Address spectra, Address concentrations, Address components) {
    return {sizes[0],
            sizes[1],
            sizes[2],
            pointer<const double>(spectra),
            pointer<const double>(concentrations),
            pointer<const double>(components)};
}

void bound_concentrations(Type, std::int64_t samples, std::int64_t components, Address along, Address overlap,
                          Address concentrations, Address smallest, std::int64_t sweeps, double tolerance,
                          int threads) {
    const ConcentrationDescent arguments{samples,
                                         components,
                                         pointer<const double>(along),
                                         pointer<const double>(overlap),
                                         pointer<double>(concentrations),
                                         pointer<const double>(smallest),
                                         sweeps,
                                         tolerance};
    const py::gil_scoped_release release;
    descend_concentrations(arguments, threads);
}

void bound_open(Type, const Sizes& sizes, Address spectra, Address concentrations, Address components, Address smallest,
                std::int64_t sweeps, int threads) {
    const OpenDescent arguments{mixture(sizes, spectra, concentrations, components), pointer<double>(concentrations),
                                pointer<const double>(smallest), sweeps, nullptr};
    const py::gil_scoped_release release;
    descend_open_gates(arguments, threads);
}

void bound_components(Type, const Sizes& sizes, Address spectra, Address concentrations, Address components,
                      Address held, bool non_negative, double price, int threads) {
    const ComponentDescent arguments{mixture(sizes, spectra, concentrations, components),
                                     pointer<double>(components),
                                     pointer<const std::uint8_t>(held),
                                     non_negative,
                                     price,
                                     nullptr,
                                     nullptr,
                                     nullptr,
                                     nullptr};
    const py::gil_scoped_release release;
    descend_components(arguments, threads);
}

void bound_residual(Type, const Sizes& sizes, Address spectra, Address concentrations, Address components,
                    Address residual, Address power, int threads) {
    const Mixture arguments = mixture(sizes, spectra, concentrations, components);
    const py::gil_scoped_release release;
    mixture_residual(arguments, pointer<double>(residual), pointer<double>(power), threads);
}

}  // namespace

void bind_gated_descent(py::module_& m) {
    m.def("descend_concentrations", &bound_concentrations);
    m.def("descend_open_gates", &bound_open);
    m.def("descend_components", &bound_components);
    m.def("mixture_residual", &bound_residual);
}

}  // namespace spectrafuse
