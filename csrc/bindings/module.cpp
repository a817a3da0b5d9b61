// The modules spectrafuse._cpu and spectrafuse._cuda, one from each compilation; what a file binds in both has one
// name. They take addresses of tensors that torch allocated, and import without a GPU and without a driver.
#include <vector>

#include "bindings.h"

namespace spectrafuse {

static std::vector<Binder>& binders() {
    static std::vector<Binder> all;
    return all;
}

Registrar::Registrar(Binder binder) { binders().push_back(binder); }

}  // namespace spectrafuse

PYBIND11_MODULE(SPECTRAFUSE_MODULE, m) {
    m.doc() = "Kernels of spectrafuse. Arguments are addresses: call them through spectrafuse.ops only.";
    spectrafuse::Module module{m};
    for (const spectrafuse::Binder bind : spectrafuse::binders()) bind(module);
}
