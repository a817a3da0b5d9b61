#include "../common/scene_spectra.h"

#include "bindings.h"

namespace spectrafuse {

namespace {

void bound_spectra(int type, const std::array<std::int64_t, 3>& sizes, const std::array<std::int64_t, 3>& stride,
                   const std::array<std::int64_t, 2>& out_stride, std::int64_t filled, int method, Address cube,
                   Address offset, Address scale, Address out, int threads) {
    const SceneSpectra arguments{sizes[0],
                                 sizes[1],
                                 sizes[2],
                                 pointer<const char>(cube),
                                 {stride[0], stride[1], stride[2]},
                                 pointer<float>(out),
                                 {out_stride[0], out_stride[1]},
                                 filled,
                                 static_cast<SpectrumMethod>(method),
                                 pointer<const float>(offset),
                                 pointer<const float>(scale),
                                 false};
    const py::gil_scoped_release release;
    scene_spectra(arguments, type, threads);
}

}  // namespace

void bind_scene_spectra(py::module_& m) { m.def("scene_spectra", &bound_spectra); }

}  // namespace spectrafuse
