#include "../common/spectral_compactness.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

SpectralCompactness arguments_of(const std::array<std::int64_t, 4>& sizes, const std::array<std::int64_t, 3>& stride,
                                 Address spectra, Address probs, Address valid, Address origin, Address means,
                                 Address squared_norm) {
    return {sizes[0],
            sizes[1],
            sizes[2],
            sizes[3],
            pointer(spectra),
            {stride[0], stride[1], stride[2]},
            pointer(probs),
            pointer<std::uint8_t>(valid),
            pointer(origin),
            pointer(means),
            pointer(squared_norm),
            0.0,
            nullptr};
}

double bound_forward(int dtype, const std::array<std::int64_t, 4>& sizes, const std::array<std::int64_t, 3>& stride,
                     Address spectra, Address probs, Address valid, Address origin, Address means, Address squared_norm,
                     int threads) {
    const SpectralCompactness arguments =
        arguments_of(sizes, stride, spectra, probs, valid, origin, means, squared_norm);
    const py::gil_scoped_release release;
    return spectral_compactness_forward(arguments, dtype, threads);
}

void bound_backward(int dtype, const std::array<std::int64_t, 4>& sizes, const std::array<std::int64_t, 3>& stride,
                    Address spectra, Address valid, Address origin, Address means, Address squared_norm, double scale,
                    Address grad_probs, int threads) {
    SpectralCompactness arguments = arguments_of(sizes, stride, spectra, 0, valid, origin, means, squared_norm);
    arguments.scale = scale;
    arguments.grad_probs = pointer(grad_probs);
    const py::gil_scoped_release release;
    spectral_compactness_backward(arguments, dtype, threads);
}

}  // namespace

void bind_spectral_compactness(py::module_& m) {
    m.def("spectral_compactness_forward", &bound_forward);
    m.def("spectral_compactness_backward", &bound_backward);
}

}  // namespace spectrafuse
