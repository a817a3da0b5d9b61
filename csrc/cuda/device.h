// What the CUDA extension can say about itself and about the devices of this machine.
#pragma once

#include <string>
#include <vector>

namespace spectrafuse {

struct CudaDevice {
    std::string name;
    int major, minor, multiprocessors;
    double memory_gib;
    std::string self_test;  // empty where a kernel of this build ran and gave the right result, else the reason
};

struct CudaReport {
    int runtime_version = 0, driver_version = 0;
    std::string problem;  // why no device can be used, empty where one can
    std::vector<CudaDevice> devices;
};

CudaReport cuda_report();

}  // namespace spectrafuse
