// The instruction sets that kernels are compiled for: tables of kernels, and the one they run with, the widest this
// machine has or the one that SPECTRAFUSE_ISA names.
#pragma once

namespace spectrafuse {

enum class Isa { baseline, avx2, avx512 };

// Throws std::runtime_error if SPECTRAFUSE_ISA names an instruction set that this machine or build lacks.
Isa selected_isa();
const char* isa_name(Isa isa);

// A table of kernels in the namespace of every instruction set; index 0 is float32, 1 is float64 if not said otherwise.
#define SPECTRAFUSE_DECLARE(table) \
    namespace baseline {           \
    extern const table;            \
    }                              \
    namespace avx2 {               \
    extern const table;            \
    }                              \
    namespace avx512 {             \
    extern const table;            \
    }

// The entry of a table, `name[dtype]`, that belongs to the selected instruction set.
#if defined(SPECTRAFUSE_X86_KERNELS)
#define SPECTRAFUSE_SELECT(entry) \
    (selected_isa() == Isa::avx512 ? avx512::entry : selected_isa() == Isa::avx2 ? avx2::entry : baseline::entry)
#else
#define SPECTRAFUSE_SELECT(entry) (baseline::entry)
#endif

}  // namespace spectrafuse
