// Arguments of gated_descent, shared by the bindings, the launcher and the kernels of every instruction set.
//
// A mixture: spectra (n, d) = concentrations (n, k), most of which are zero as their gates are closed, times
// components (k, d). All arrays are contiguous.
#pragma once

#include <cstdint>

#include "isa.h"

namespace spectrafuse {

// Concentrations of one spectrum after the other, all components given: from products alone.
struct ConcentrationDescent {
    std::int64_t samples, components;
    const double *along, *overlap;  // (n, k) spectra along components; (k, k) components along each other
    double* concentrations;         // (n, k)
    const double* smallest;         // (k,): a smaller concentration becomes 0
    std::int64_t sweeps;            // at most
    double tolerance;               // a sweep that changes no concentration by more is the last
};

struct Mixture {
    std::int64_t samples, channels, components;
    const double* spectra;         // (n, d)
    const double* concentrations;  // (n, k)
    const double* shapes;          // (k, d): the components
};

// Concentrations above 0 only, from the spectra themselves.
struct OpenDescent {
    Mixture mixture;
    double* concentrations;  // those of the mixture
    const double* smallest;  // (k,)
    std::int64_t sweeps;
    const double* strength;  // (k,): squared norms of the components
};

struct ComponentDescent {
    Mixture mixture;
    double* shapes;            // those of the mixture
    const std::uint8_t* held;  // (k,): components that keep their shape
    bool non_negative;
    double price;  // a channel that lowers the squared residual by less becomes 0

    // Concentrations that are not zero: entries [start[j], start[j + 1]) of row and value are component j's.
    const std::int64_t *start, *row;
    const double *value, *overlap;  // (k, k): concentrations along each other
};

// Channels that a component is descended in at a time: the same channels of all components fit the second-level cache.
constexpr std::int64_t kChannelBlock = 64;

struct GatedDescentKernels {
    void (*concentrations)(const ConcentrationDescent&, std::int64_t begin, std::int64_t end, double* gradient);
    // `scratch` holds a spectrum; `open` holds k places.
    void (*open)(const OpenDescent&, std::int64_t begin, std::int64_t end, double* scratch, std::int64_t* open);
    void (*components)(const ComponentDescent&, std::int64_t first, std::int64_t count);
    // Either of `residual` (n, d) and `power` (n,), its squared norms, may be null; `scratch` holds a spectrum.
    void (*residual)(const Mixture&, double* residual, double* power, std::int64_t begin, std::int64_t end,
                     double* scratch);
};

SPECTRAFUSE_DECLARE(GatedDescentKernels gated_descent_kernels)

void descend_concentrations(const ConcentrationDescent& arguments, int threads);
void descend_open_gates(OpenDescent arguments, int threads);
void descend_components(ComponentDescent arguments, int threads);
void mixture_residual(const Mixture& mixture, double* residual, double* power, int threads);

}  // namespace spectrafuse
