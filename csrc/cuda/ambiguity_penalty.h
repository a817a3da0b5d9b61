#pragma once

#include "../common/ambiguity_penalty.h"

namespace spectrafuse {

// `all` holds every row, selected or not; its workspace has as many bytes as ambiguity_penalty_workspace_cuda()
// returns.
struct CudaAmbiguityPenalty {
    AmbiguityPenalty all;
    const std::int64_t* order;     // (n): row numbers, those of the selected rows first; null: all are selected
    const std::int64_t* selected;  // (): how many are; null where `order` is
    void* penalty;                 // ()
};

std::size_t ambiguity_penalty_workspace_cuda(std::int64_t count, int dtype, bool gradient);
// Writes `penalty` and `gradient`, zeros for rows that are not selected; nothing is read on the host.
void ambiguity_penalty_cuda(const CudaAmbiguityPenalty& arguments, int dtype, void* stream);

}  // namespace spectrafuse
