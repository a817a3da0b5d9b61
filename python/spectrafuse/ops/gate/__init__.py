"""Component selection from energies: Langevin refinement and Gumbel gate (arXiv 2507.23600)."""

from spectrafuse.ops.gate.api import GateNoise, GateResult, Langevin, gate

__all__ = ["GateNoise", "GateResult", "Langevin", "gate"]
