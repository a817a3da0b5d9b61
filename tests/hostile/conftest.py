"""What the attacks on commands are made with."""

from helpers.command_data import scene, table

__all__ = ["scene", "table"]
