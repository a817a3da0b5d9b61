"""The last layer of the energy evaluator with the component selection as its epilogue."""

from spectrafuse.ops.energy_gate.api import energy_gate

__all__ = ["energy_gate"]
