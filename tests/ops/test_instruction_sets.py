"""Operations on pairs of rows, with every instruction set of this machine, in one process each."""

from __future__ import annotations

import pytest

from helpers import INSTRUCTION_SETS, check_instruction_set

CHECKS = """
import torch
import test_ambiguity_penalty as penalty, test_dense_mean_shift as shift, test_spectral_compactness as spectra
for kind in penalty.KINDS:
    for shape in penalty.SHAPES:
        penalty.test_agrees_with_the_reference("cpu", kind, shape, 1.0)
for shape in penalty.SHAPES:
    for dtype in (torch.float32, torch.float64):
        penalty.test_a_pools_penalty_is_that_of_its_used_components(shape, (True, 2), dtype)
        penalty.test_a_pools_penalty_is_that_of_its_used_components(shape, (False, 1), dtype)
for shape in shift.SHAPES:
    for iterations in (1, 4):
        shift.test_agrees_with_reference("cpu", shape, iterations)
for shape in spectra.SHAPES:
    for dtype in (torch.float32, torch.float64):
        for masked in (False, True):
            spectra.test_kernel_equals_the_reference(shape, dtype, masked)
"""


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_every_instruction_set_of_this_machine_agrees_with_the_reference(isa: str) -> None:
    check_instruction_set(isa, CHECKS)
