// The module spectrafuse._cpu. Tensors cross as addresses, sizes and strides; torch allocates everything.
#include "../cpu/isa.h"
#include "../cpu/parallel.h"
#include "bindings.h"

PYBIND11_MODULE(_cpu, m) {
    using namespace spectrafuse;
    m.doc() = "Kernels for the CPU. Arguments are addresses: call them through spectrafuse.ops only.";
    m.def("isa", [] { return isa_name(selected_isa()); });
    bind_adamw_outer(m);
    bind_clustering_objective(m);
    bind_ambiguity_penalty(m);
    bind_crop_pairs(m);
    bind_gate(m);
    bind_gated_descent(m);
    bind_gated_mixture(m);
    bind_dense_mean_shift(m);
    bind_mean_shift_assign(m);
    bind_philox(m);
    bind_scene_spectra(m);
    bind_skinny_linear(m);
    bind_sparse_gated_mixture(m);
    bind_spectral_compactness(m);
#if defined(SPECTRAFUSE_REPEAT_WORK)
    m.def("repeat_work", [](int percent) { repeated_percent = percent; });
#endif
#if defined(_OPENMP)
    m.attr("openmp") = true;
#else
    m.attr("openmp") = false;
#endif
}
