#pragma once

#include "../common/address.h"
#include "../common/component_penalty.h"

namespace spectrafuse {

// Row numbers and, behind them, how many are used (N + 1); lengths (N); spectra and their gradient (N, d); what
// ambiguity_penalty_workspace_cuda() says.
struct ComponentPenaltyWorkspace {
    ComponentPenaltyWorkspace(const Addresses<5>& all)
        : order(all[0]), lengths(all[1]), spectra(all[2]), gradient(all[3]), pairs(all[4]) {}
    std::int64_t* order;
    float* lengths;
    float* spectra;
    float* gradient;
    void* pairs;
};

// Writes `penalty` (), without its weight, and adds to the raw values' gradient; nothing is read on the host. float32.
void component_penalty_cuda(const ComponentPenalty& arguments, const ComponentPenaltyWorkspace& workspace,
                            float* penalty, void* stream);

}  // namespace spectrafuse
