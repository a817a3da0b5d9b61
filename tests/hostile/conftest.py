"""What the attacks on commands are made with."""

from collections.abc import Iterator

import pytest

from helpers.command_data import scene, table
from spectrafuse.reports.style import empty_pictures

__all__ = ["scene", "table"]


@pytest.fixture
def pictures_left_empty() -> Iterator[None]:
    """Pictures are laid out with all their text, but not painted: most of the time of a small run."""
    with empty_pictures():
        yield
