#include "../common/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace spectrafuse {

namespace {

bool runs(Isa isa) {
#if defined(SPECTRAFUSE_X86_KERNELS)
    __builtin_cpu_init();
    if (isa == Isa::avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return isa == Isa::baseline;
}

Isa choose() {
    constexpr Isa widest_first[] = {Isa::avx512, Isa::avx2, Isa::baseline};
    const char* wanted = std::getenv("SPECTRAFUSE_ISA");
    for (Isa isa : widest_first) {
        if (wanted != nullptr && *wanted != '\0' && std::string(wanted) != isa_name(isa)) continue;
        if (runs(isa)) return isa;
    }
    throw std::runtime_error(std::string("SPECTRAFUSE_ISA must name an instruction set of this machine and build ") +
                             "(baseline, avx2 or avx512); got '" + wanted + "'.");
}

}  // namespace

const char* isa_name(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline"; }

Isa selected_isa() {
    static const Isa isa = choose();
    return isa;
}

}  // namespace spectrafuse
