// What the files of the module spectrafuse._cuda share: addresses in, and one function that binds each operation.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <vector>

namespace spectrafuse {

namespace py = pybind11;
using Address = std::uintptr_t;

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

void bind_adamw_outer(py::module_& m);
void bind_ambiguity_penalty(py::module_& m);
void bind_skinny_linear(py::module_& m);

}  // namespace spectrafuse
