// The module spectrafuse._cuda: kernels for CUDA tensors. It imports without a GPU and without a driver.
#include "bindings.h"

#include "device.h"

namespace py = pybind11;

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "CUDA part of spectrafuse: what it was built for and what the devices of this machine say to it.";
    m.attr("architectures") = SPECTRAFUSE_CUDA_ARCHITECTURES;
    m.def("report", [] {
        const spectrafuse::CudaReport report = spectrafuse::cuda_report();
        py::list devices;
        for (const spectrafuse::CudaDevice& device : report.devices) {
            py::dict entry;
            entry["name"] = device.name;
            entry["compute_capability"] = py::make_tuple(device.major, device.minor);
            entry["multiprocessors"] = device.multiprocessors;
            entry["memory_gib"] = device.memory_gib;
            entry["self_test"] = device.self_test;
            devices.append(entry);
        }
        py::dict out;
        out["runtime_version"] = report.runtime_version;
        out["driver_version"] = report.driver_version;
        out["problem"] = report.problem;
        out["devices"] = devices;
        return out;
    });
    spectrafuse::bind_adamw_outer(m);
    spectrafuse::bind_ambiguity_penalty(m);
    spectrafuse::bind_gate(m);
    spectrafuse::bind_gated_mixture(m);
    spectrafuse::bind_skinny_linear(m);
    spectrafuse::bind_sparse_gated_mixture(m);
}
