"""Measuring fairly: interleaved runs of all implementations, peak memory, and the bounds of this machine."""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from spectrafuse.cli.profile.bounds import Bounds

# torch's profiler announces itself on the terminal otherwise.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

Calls = Mapping[str, Callable[[], object]]


def in_turns(calls: Calls, rounds: int = 7, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of each call, round by round; they take turns, so that a busy moment of the machine hits all of them."""
    for _ in range(warm):
        for call in calls.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(_seconds(call))
    return seconds


def within(calls: Calls, budget: float, fewest: int = 3, most: int = 31, long: int = 3) -> dict[str, list[float]]:
    """As `in_turns`, with as many rounds as fit into `budget` seconds.

    A call that alone takes longer is not warmed, and made in the first `long` rounds only: of one round, it is the
    first call there is, so that what it takes is an upper bound.
    """
    first = in_turns(calls, rounds=1, warm=0)
    short = {name: call for name, call in calls.items() if first[name][0] <= budget}
    first |= in_turns(short, rounds=1, warm=0)
    together = long if len(short) < len(calls) else fewest
    seconds = in_turns(calls, together - 1, warm=0)
    for name in calls:
        seconds[name] = first[name] + seconds[name]
    once = sum(first[name][0] for name in short)
    rounds = max(fewest, min(most, int(budget / max(once, 1e-9))))
    for name, taken in in_turns(short, max(0, rounds - together), warm=0).items():
        seconds[name] += taken
    return seconds


def in_a_fresh_process(file: str, call: str, threads: int | None = None) -> Any:
    """What a call of a file gives in a process of its own: its peak is its own, and its memory as at a start."""
    lines = ["import json, sys", f"sys.path.insert(0, {str(Path(file).parent)!r})"]
    lines += [f"import torch; torch.set_num_threads({threads})"] if threads else []
    lines += [f"import {Path(file).stem} as bench", f"print(json.dumps(bench.{call}))"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def tensor_bytes(call: Callable[[], object]) -> int:
    """Bytes of the tensors that `call` makes and that are alive at once, at most: the same in every run.

    The call has run before: what it keeps from one time to the next does not count.
    """
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        call()
    changes = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]  # type: ignore
    now = most = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        now += change.nbytes()
        most = max(most, now)
    return most


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def peak_memory(call: Callable[[], object]) -> int:
    """Bytes by which the process's resident memory peaks above its start while `call` runs, its results included.

    The call has run before. Linux with glibc: what earlier calls freed is first given back, so that it does not hide
    what this call needs.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def peak_resident() -> int:
    """Bytes of resident memory at which this process peaked (Linux)."""
    return _status("VmHWM")


@functools.cache
def bounds() -> Bounds:
    """The speeds of a large copy and of arithmetic, measured once a process."""
    # What is installed may be an older version, for `compare`, which needs none.
    from spectrafuse.cli.profile.bounds import measure

    return measure(torch.device("cpu"))


@functools.cache
def _facts() -> dict[str, str]:
    import spectrafuse
    from spectrafuse._runtime import extensions

    return {
        "device": "cpu",
        "processor": processor(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
        "instruction_set": extensions.cpu_info().get("instruction_set", "none"),
        "torch": torch.__version__,
        "spectrafuse": spectrafuse.__version__,
        "commit": _commit(),
    }


def processor(info: str) -> str:
    """Name, family and model (on ARM: implementer and part) of the first processor of /proc/cpuinfo.

    Virtual machines of one name are of processors that differ by years.
    """
    fields = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    name = fields.get("model name", "unknown")
    details = [(key, fields[key]) for key in ("cpu family", "model", "CPU implementer", "CPU part") if key in fields]
    return ", ".join([name, *(f"{key.removeprefix('cpu ').removeprefix('CPU ')} {value}" for key, value in details)])


def _commit() -> str:
    """Of the checkout that this file lies in, with a + where its code is not as committed.

    What is installed may lie in a repository of its user's, which says nothing.
    """
    root = _git("rev-parse", "--show-toplevel")
    if root is None or not (Path(root) / "python" / "spectrafuse").is_dir():
        return "unknown"
    changed = _git("-C", root, "diff", "--quiet", "HEAD", "--", "python", "csrc", "kernels", "cmake") is None
    return f"{_git('rev-parse', '--short', 'HEAD')}{'+' * changed}"


def _git(*arguments: str) -> str | None:
    """What git says, or None where it fails."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return None
    return None if done.returncode else done.stdout.strip()


def machine() -> dict[str, str]:
    """What a figure must be read with: device, processor, threads, versions, commit."""
    return {**_facts(), "threads": str(torch.get_num_threads())}
