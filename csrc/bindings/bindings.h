// What the files of the module spectrafuse._cpu share: addresses in, and one function that binds each operation.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>

namespace spectrafuse {

namespace py = pybind11;
using Address = std::uintptr_t;

template <class T = void>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

void bind_adamw_outer(py::module_& m);
void bind_clustering_objective(py::module_& m);
void bind_ambiguity_penalty(py::module_& m);
void bind_crop_pairs(py::module_& m);
void bind_gate(py::module_& m);
void bind_gated_descent(py::module_& m);
void bind_gated_mixture(py::module_& m);
void bind_dense_mean_shift(py::module_& m);
void bind_mean_shift_assign(py::module_& m);
void bind_philox(py::module_& m);
void bind_scene_spectra(py::module_& m);
void bind_skinny_linear(py::module_& m);
void bind_sparse_gated_mixture(py::module_& m);
void bind_spectral_compactness(py::module_& m);

}  // namespace spectrafuse
