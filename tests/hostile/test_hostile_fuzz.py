"""Every reader on mutants of the files in `corpus`: a result or a DataError, within seconds, and no lost process.

`SPECTRAFUSE_FUZZ_SECONDS` is the time for all of them together (`make fuzz` takes 10 minutes), 30 s without it. A
failure names the seed of its mutant; `SPECTRAFUSE_FUZZ_SEED` begins with that one.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrafuse.io import DataError, open_cube, read_labels, read_spectra

pytestmark = [pytest.mark.process, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")]
CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(path.name for path in CORPUS.iterdir())
SECONDS = float(os.environ.get("SPECTRAFUSE_FUZZ_SECONDS", "30")) / len(FILES)
SEED = int(os.environ.get("SPECTRAFUSE_FUZZ_SEED", "0"))
SLOWEST = 20
READERS: dict[str, Callable[[Path], Any]] = {
    "open_cube": lambda path: open_cube(path, key=None, rows=5, columns=6).read_rows(0, 1),
    "read_labels": read_labels,
    "read_spectra": read_spectra,
}
WORDS = [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f", b"-", b"1e999", b"nan", b"{", b"}", b",", b"\n", b"9" * 40, b"="]


def mutant(content: bytes, draw: np.random.Generator) -> bytes:
    """A file with some bytes changed, cut, repeated or put in."""
    out = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        at = int(draw.integers(len(out) + 1))
        length = int(draw.choice([1, 2, 4, 8, 64]))
        kind = int(draw.integers(6))
        if kind == 0 and at < len(out):
            out[at] ^= 1 << int(draw.integers(8))
        elif kind == 1:
            out[at : at + length] = draw.bytes(length)
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length] * int(draw.choice([1, 2, 100]))
        elif kind == 4:
            out[at:at] = WORDS[draw.integers(len(WORDS))]
        else:
            del out[at if draw.random() < 0.1 else len(out) :]
    return bytes(out)


def attack(name: str, folder: Path, seconds: float, report: int) -> None:
    """Read mutants until the time is over; each seed is reported before its mutant is read."""
    for path in CORPUS.glob(f"{Path(name).stem}.*"):
        shutil.copy(path, folder / path.name)
    content, target = (CORPUS / name).read_bytes(), folder / name
    end, seed = time.monotonic() + seconds, SEED
    while time.monotonic() < end:
        os.write(report, seed.to_bytes(8, "little"))
        target.write_bytes(mutant(content, np.random.default_rng([zlib.crc32(name.encode()), seed])))
        for read in READERS.values():
            signal.alarm(SLOWEST)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(target)
            except DataError:
                pass
            finally:
                signal.alarm(0)
        seed += 1


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_mutants(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        process = os.fork()
        if not process:
            code = 1
            try:
                os.close(reading)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                attack(name, Path(folder), SECONDS, writing)
                code = 0
            except BaseException:
                errors.write(traceback.format_exc())
                errors.flush()
            finally:
                os._exit(code)
        os.close(writing)
        seeds = b""
        with os.fdopen(reading, "rb") as pipe:
            while piece := pipe.read(1 << 16):
                seeds = (seeds + piece)[-8:] if len(seeds) > 1 << 20 else seeds + piece
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        errors.seek(0)
        last = int.from_bytes(seeds[-8:], "little")
        assert code == 0, f"{name}, SPECTRAFUSE_FUZZ_SEED={last}, ended with {code}: {errors.read()}"
    with capsys.disabled():
        if os.environ.get("SPECTRAFUSE_FUZZ_SECONDS"):
            print(f"\n{name}: {last - SEED + 1} mutants tried, all handled by {len(READERS)} readers", end="")
