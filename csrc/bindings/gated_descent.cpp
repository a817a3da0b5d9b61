#include "../common/gated_descent.h"

#include "bindings.h"

namespace spectrafuse::gated_descent_binding {

static Mixture mixture(const Sizes<3>& sizes, Address spectra, Address concentrations, Address components) {
    return {sizes[0], sizes[1], sizes[2], spectra, concentrations, components};
}

static void concentrations(int, std::int64_t samples, std::int64_t components, Address along, Address overlap,
                           Address concentrations, Address smallest, std::int64_t sweeps, double tolerance,
                           int threads) {
    descend_concentrations({samples, components, along, overlap, concentrations, smallest, sweeps, tolerance}, threads);
}

static void open_gates(int, const Sizes<3>& sizes, Address spectra, Address concentrations, Address components,
                       Address smallest, std::int64_t sweeps, int threads) {
    descend_open_gates({mixture(sizes, spectra, concentrations, components), concentrations, smallest, sweeps, nullptr},
                       threads);
}

static void components(int, const Sizes<3>& sizes, Address spectra, Address concentrations, Address components,
                       Address held, bool non_negative, double price, int threads) {
    descend_components({mixture(sizes, spectra, concentrations, components), components, held, non_negative, price,
                        nullptr, nullptr, nullptr, nullptr},
                       threads);
}

static void residual(int, const Sizes<3>& sizes, Address spectra, Address concentrations, Address components,
                     Address residual, Address power, int threads) {
    mixture_residual(mixture(sizes, spectra, concentrations, components), residual, power, threads);
}

// The number of the type that comes first, as everywhere, is that of float64.
SPECTRAFUSE_BIND(gated_descent) {
    m.def("descend_concentrations", &concentrations);
    m.def("descend_open_gates", &open_gates);
    m.def("descend_components", &components);
    m.def("mixture_residual", &residual);
}

}  // namespace spectrafuse::gated_descent_binding
