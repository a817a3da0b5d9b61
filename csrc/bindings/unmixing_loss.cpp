#include "bindings.h"
#if defined(SPECTRAFUSE_FOR_CUDA)
#include "../cuda/unmixing_loss.h"

namespace spectrafuse {

// Numbers: weights of the squares' sum and of the penalty, how many gates and energies are summed. Inputs: mixture, x,
// weight of the gates, sums of energies, of their squares and of gates, the sparse form's energies, penalty. Outputs:
// gradient of the mixture, slopes, result.
static UnmixingLoss arguments_of(const Sizes<2>& sizes, const std::array<double, 4>& numbers,
                                 const Addresses<8>& inputs, const Addresses<3>& outputs) {
    return {sizes[0],   sizes[1],  numbers[0], numbers[1], numbers[2],
            numbers[3], inputs[0], inputs[1],  inputs[2],  {inputs[3], inputs[4], inputs[5]},
            inputs[6],  inputs[7], outputs[0], outputs[1], outputs[2]};
}

SPECTRAFUSE_BIND(unmixing_loss) {
    m.def("unmixing_loss_blocks", &unmixing_loss_blocks);
    m.def("unmixing_loss_gradient", on_cuda(arguments_of, unmixing_loss_gradient_cuda));
    m.def("unmixing_loss", on_cuda(arguments_of, unmixing_loss_cuda));
}

}  // namespace spectrafuse
#endif
