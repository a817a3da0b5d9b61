// What the module of the emulated kernels has beside them.
#include <bindings/bindings.h>
#include <cuda_runtime.h>

namespace spectrafuse {

SPECTRAFUSE_BIND(emulated) {
    m.def("set_order", &emulated::set_order);
    m.def("launches", &emulated::launches);
}

}  // namespace spectrafuse
