// How operations join the modules spectrafuse._cpu and spectrafuse._cuda: each by itself, from any file.
//
//     SPECTRAFUSE_BIND(operation) { m.def("operation_forward", &operation_forward); }
//
// Every function runs without Python's lock. A build without Python, such as the driver that counts instructions,
// reads what is bound and binds nothing.
#pragma once

#include "../common/address.h"

#if !defined(SPECTRAFUSE_PYTHON)
#define SPECTRAFUSE_BIND(operation) \
    template <class Module>         \
    void bind_##operation(Module& m)
#else

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace spectrafuse {

struct Module {
    pybind11::module_ python;

    template <class Function>
    void def(const char* name, const Function& function) {
        python.def(name, function, pybind11::call_guard<pybind11::gil_scoped_release>());
    }
};

using Binder = void (*)(Module&);
struct Registrar {
    explicit Registrar(Binder binder);
};
#define SPECTRAFUSE_BIND(operation)                                             \
    static void bind_##operation(Module& m);                                    \
    static const ::spectrafuse::Registrar operation##_binder{bind_##operation}; \
    static void bind_##operation(Module& m)

// From a function that makes a launcher's arguments of what crosses, and the launcher: a function of the type's number,
// what crosses, and the number of threads.
template <class Launcher, class Arguments, class... Crossing>
auto on_cpu(Arguments (*make)(Crossing...), Launcher run) {
    return [=](int dtype, Crossing... crossing, int threads) { return run(make(crossing...), dtype, threads); };
}

// The same for CUDA, whose launchers take workspace and stream besides: a function of what crosses and of these.
template <class T>
struct Crossed {
    using type = T;
};
template <class T>
struct Crossed<T*> {
    using type = Address;
};
template <class Arguments, class... Crossing, class... Besides>
auto on_cuda(Arguments (*make)(Crossing...), void (*run)(const Arguments&, Besides...)) {
    return
        [=](Crossing... crossing, typename Crossed<Besides>::type... besides) { run(make(crossing...), besides...); };
}

}  // namespace spectrafuse

template <>
struct pybind11::detail::type_caster<spectrafuse::Address> {
    PYBIND11_TYPE_CASTER(spectrafuse::Address, const_name("int"));
    bool load(handle source, bool convert) {
        make_caster<std::uintptr_t> number;
        if (!number.load(source, convert)) return false;
        value = {cast_op<std::uintptr_t>(number)};
        return true;
    }
};

#endif
