// The instruction set the kernels run with: the widest this machine has, or the one SPECTRAFUSE_ISA names.
#pragma once

namespace spectrafuse {

enum class Isa { baseline, avx2, avx512 };

// Throws std::runtime_error if SPECTRAFUSE_ISA names an instruction set that this machine or build lacks.
Isa selected_isa();
const char* isa_name(Isa isa);

}  // namespace spectrafuse
