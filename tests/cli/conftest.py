"""What the tests of the command line share."""

from helpers.command_data import scene, segmented, table

__all__ = ["scene", "segmented", "table"]
