"""Component selection from energies: Langevin refinement and Gumbel gate (arXiv 2507.23600)."""

from spectrafuse.ops._gating import GateNoise, GateResult, Langevin
from spectrafuse.ops._gating import forward_arguments as gate_forward_arguments
from spectrafuse.ops.gate.api import gate, made_noise
from spectrafuse.ops.gate.api import operation as gate_energies
from spectrafuse.ops.gate.api import work as gate_work
from spectrafuse.ops.gate.registration import backward_arguments as gate_backward_arguments
from spectrafuse.ops.gate.registration import gate_backward_kernel as gate_gradient

__all__ = [
    "GateNoise",
    "GateResult",
    "Langevin",
    "gate",
    "gate_backward_arguments",
    "gate_energies",
    "gate_forward_arguments",
    "gate_gradient",
    "gate_work",
    "made_noise",
]
