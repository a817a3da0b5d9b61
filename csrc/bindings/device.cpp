// What each module says about its build and this machine.
#include "bindings.h"

#if defined(SPECTRAFUSE_FOR_CUDA)

#include "../cuda/device.h"

namespace spectrafuse::device_binding {

namespace py = pybind11;

static py::dict report() {
    const CudaReport found = cuda_report();
    py::list devices;
    for (const CudaDevice& device : found.devices) {
        py::dict entry;
        entry["name"] = device.name;
        entry["compute_capability"] = py::make_tuple(device.major, device.minor);
        entry["multiprocessors"] = device.multiprocessors;
        entry["memory_gib"] = device.memory_gib;
        entry["self_test"] = device.self_test;
        devices.append(entry);
    }
    py::dict out;
    out["runtime_version"] = found.runtime_version;
    out["driver_version"] = found.driver_version;
    out["problem"] = found.problem;
    out["devices"] = devices;
    return out;
}

SPECTRAFUSE_BIND(device) {
    m.python.attr("architectures") = SPECTRAFUSE_CUDA_ARCHITECTURES;
    m.python.def("report", &report);
}

}  // namespace spectrafuse::device_binding

#else

#include "../common/isa.h"
#include "../cpu/parallel.h"

namespace spectrafuse::device_binding {

SPECTRAFUSE_BIND(device) {
    m.def("isa", [] { return isa_name(selected_isa()); });
#if defined(SPECTRAFUSE_REPEAT_WORK)
    m.def("repeat_work", [](int percent) { repeated_percent = percent; });
#endif
#if defined(_OPENMP)
    m.python.attr("openmp") = true;
#else
    m.python.attr("openmp") = false;
#endif
}

}  // namespace spectrafuse::device_binding

#endif
