"""Random inputs: all that tests draw comes from one seed, which a failure shows and SPECTRAFUSE_TEST_SEED repeats.

`restart` runs before every fixture and every test (conftest.py), so that one test alone draws what it drew among all.
"""

from __future__ import annotations

import os
import secrets
import zlib

import numpy as np
import torch

VARIABLE = "SPECTRAFUSE_TEST_SEED"
# In the environment, so that the other workers and the processes that tests start have the same one.
SEED = int(os.environ.setdefault(VARIABLE, str(secrets.randbelow(2**31))))
_generator = np.random.default_rng(SEED)


def restart(name: str) -> None:
    """Begin torch's global generator and `generator` again, for what has this name."""
    global _generator
    own = zlib.crc32(name.encode())
    torch.manual_seed(SEED ^ own)
    _generator = np.random.default_rng([SEED, own])


def generator() -> np.random.Generator:
    """The generator of the running test: every call goes on where the last draw ended."""
    return _generator


def fresh_seed() -> int:
    """A seed from `generator`, for a `RandomStream` or a `torch.Generator`."""
    return int(_generator.integers(2**31))
