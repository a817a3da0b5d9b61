// The instruction set the kernels run with: the widest this machine has, or the one SPECTRAFUSE_ISA names.
#pragma once

namespace spectrafuse {

enum class Isa { baseline, avx2, avx512 };

// Throws std::runtime_error if SPECTRAFUSE_ISA names an instruction set that this machine or build lacks.
Isa selected_isa();
const char* isa_name(Isa isa);

// The entry of a table of kernels, `name[dtype]`, that belongs to the selected instruction set.
#if defined(SPECTRAFUSE_X86_KERNELS)
#define SPECTRAFUSE_SELECT(entry) \
    (selected_isa() == Isa::avx512 ? avx512::entry : selected_isa() == Isa::avx2 ? avx2::entry : baseline::entry)
#else
#define SPECTRAFUSE_SELECT(entry) (baseline::entry)
#endif

}  // namespace spectrafuse
