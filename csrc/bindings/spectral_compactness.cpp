#include "../common/spectral_compactness.h"

#include "bindings.h"

namespace spectrafuse::spectral_compactness_binding {

static SpectralCompactness forward_arguments(const Sizes<4>& sizes, const Sizes<3>& stride, Address spectra,
                                             Address probs, Address valid, Address origin, Address means,
                                             Address squared_norm) {
    return {sizes[0], sizes[1], sizes[2],     sizes[3], spectra, {stride[0], stride[1], stride[2]}, probs, valid,
            origin,   means,    squared_norm, 0.0,      nullptr};
}

static SpectralCompactness backward_arguments(const Sizes<4>& sizes, const Sizes<3>& stride, Address spectra,
                                              Address valid, Address origin, Address means, Address squared_norm,
                                              double scale, Address grad_probs) {
    return {sizes[0], sizes[1], sizes[2],     sizes[3], spectra,   {stride[0], stride[1], stride[2]}, nullptr, valid,
            origin,   means,    squared_norm, scale,    grad_probs};
}

SPECTRAFUSE_BIND(spectral_compactness) {
    m.def("spectral_compactness_forward", on_cpu(forward_arguments, spectral_compactness_forward));
    m.def("spectral_compactness_backward", on_cpu(backward_arguments, spectral_compactness_backward));
}

}  // namespace spectrafuse::spectral_compactness_binding
