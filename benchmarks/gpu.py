"""Everything there is to learn on a machine with a GPU, in less than ten minutes: build, tests, sanitizer, figures.

    python benchmarks/gpu.py              write benchmarks/results/<gpu>.json and <gpu>.md
    python benchmarks/gpu.py --dry-run    print what would be done

The published packages are compared with where a folder that holds them is named (`--published`, or the environment
variable SPECTRAFUSE_PUBLISHED).
Every stage has its own time limit, and the files are written after each, so that one that fails or hangs loses only
itself. What has passed on the same commit, GPU and driver is not run again (`--restart`). The package is built into
build/gpu for this GPU's architecture, with what the machine has: no network is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import gpu_report

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BUILD = ROOT / "build" / "gpu"
SITE = BUILD / "site"
PASSED, LEFT_OUT = "passed", "left out"
CANNOT = 75
"""What a stage ends with that cannot be done on this machine; the last line that it printed says why."""
_PACKAGES = ("torch", "triton", "numpy")
_LAST_LINES = 15
# All tests of these files but the one of a build for all architectures.
_CHOSEN = "-k", "not imports_without_a_gpu"
# The cases of the CUDA kernels at the sizes that hurt, and of the training step, where the emulation runs them too.
_ON_A_GPU = "-k", "[cuda or -cuda]", "tests/ops/test_kernels_everywhere.py", "tests/emulated_cuda/test_training_step.py"


@dataclass(frozen=True)
class Stage:
    """One thing that is done.

    Attributes
    ----------
    command : sequence of str
        Run in the checkout. `{figures}` stands for a JSON file it may write, also before it ends.
    limit : int
        Seconds after which it is stopped, with everything it started.
    needs : sequence of str
        Stages that must have passed.
    """

    name: str
    command: Sequence[str]
    limit: int
    needs: Sequence[str] = ("build",)


def stages(architecture: str, published: str = "") -> list[Stage]:
    """What is done on a GPU of an architecture, such as "89"; `published` is the folder of the published packages."""
    python, work = sys.executable, "benchmarks/gpu_work.py"
    pytest = python, "-m", "pytest", "-q", "-p", "no:cacheprovider"
    pip = (
        python, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--upgrade",
        "--target", str(SITE), "--config-settings", f"build-dir={BUILD / 'objects'}",
        "-Ccmake.define.SPECTRAFUSE_CUDA=ON", f"-Ccmake.define.CMAKE_CUDA_ARCHITECTURES={architecture}-real", ".",
    )  # fmt: skip
    tests = [
        "tests/test_extensions.py", "tests/ops/test_self_tests.py", "tests/test_cuda_graph.py",
        "tests/ops/test_triton_backend.py",
        *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "tests" / "ops").glob("test_*triton*.py")),
    ]  # fmt: skip
    return [
        Stage("build", pip, 150, needs=()),
        Stage("kernels", (python, work, "kernels", "{figures}"), 35),
        Stage("tests", (*pytest, *_CHOSEN, *dict.fromkeys(tests)), 80),
        Stage("sizes", (*pytest, *_ON_A_GPU), 60),
        Stage("sanitizer", ("compute-sanitizer", "--error-exitcode", "1", python, work, "kernels", "{figures}"), 55),
        Stage("figures", (python, work, "figures", "{figures}"), 50),
        Stage("compiled", (python, work, "compiled", "{figures}"), 50),
        Stage("published", (python, work, "published", "{figures}", published), 40),
        Stage("profile", (python, work, "profile", "{figures}"), 30),
        Stage("ncu", (python, work, "ncu", "{figures}"), 45),
    ]


def machine() -> dict[str, Any]:
    """The first GPU, its driver, versions and the commit.

    Raises
    ------
    RuntimeError
        If there is no GPU.
    """
    fields = "name", "compute_cap", "driver_version", "memory.total"
    try:
        found = _output("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = "nvidia-smi is not installed" if isinstance(error, OSError) else "nvidia-smi finds none"
        raise RuntimeError(f"There is no NVIDIA GPU on this machine ({reason}), so nothing can be measured.") from None
    name, capability, driver, memory = (part.strip() for part in found.splitlines()[0].split(","))
    return {
        "gpu": name,
        "architecture": capability.replace(".", ""),
        "driver": driver,
        "memory": memory,
        "cuda": _version_of_compiler(),
        "python": platform.python_version(),
        **{package: _installed(package) for package in _PACKAGES},
        **_commit(),
    }


def _commit() -> dict[str, Any]:
    """The commit, and whether files differ from it; a checkout without git may be any."""
    try:
        changed = _output("git", "status", "--porcelain", "--untracked-files=no", folder=ROOT).strip()
        return {"commit": _output("git", "rev-parse", "HEAD", folder=ROOT).strip(), "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": True}


def _output(*command: str, folder: Path | None = None) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def _version_of_compiler() -> str | None:
    try:
        return re.findall(r"release ([\d.]+)", _output("nvcc", "--version"))[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def file_name(gpu: str) -> str:
    """A GPU's name as that of a file: "NVIDIA GeForce RTX 4090" as "rtx-4090"."""
    short = re.sub(r"\b(NVIDIA|GeForce)\b", "", gpu)
    return re.sub(r"[^a-z0-9]+", "-", short.lower()).strip("-") or "gpu"


def run(stage: Stage, log: Path, figures: Path) -> dict[str, Any]:
    """Run a stage to its end or its limit; what it was, and the figures it left."""
    figures.unlink(missing_ok=True)
    command = [str(figures) if word == "{figures}" else word for word in stage.command]
    path = os.pathsep.join(filter(None, (str(SITE), os.environ.get("PYTHONPATH"))))
    start, status = time.monotonic(), PASSED
    with open(log, "w", encoding="utf-8") as output:
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return _outcome(f"failed: {command[0]}: {error.strerror}")
        try:
            if code := process.wait(timeout=stage.limit):
                status = LEFT_OUT if code == CANNOT else f"failed: it ended with {code}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {stage.limit} s"
        finally:
            _end(process)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if status == LEFT_OUT:
        return _outcome(f"{LEFT_OUT}: {lines[-1] if lines else 'no reason given'}")
    end = [] if status == PASSED else lines[-_LAST_LINES:]
    return _outcome(status, round(time.monotonic() - start, 1), _read(figures), end)


def _outcome(status: str, seconds: float = 0.0, figures: Any = None, end: Sequence[str] = ()) -> dict[str, Any]:
    """Of a stage: how it ended, seconds, figures, the last lines it printed where it failed."""
    return {"status": status, "seconds": seconds, "figures": figures, "end": list(end)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it has started, which have a session of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write(record: Mapping[str, Any], target: Path) -> None:
    """The record, and the page a person reads, each in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".json", json.dumps(record, indent=1) + "\n"), (".md", gpu_report.markdown(record))):
        temporary = target.with_name(f".{target.name}{suffix}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target.with_name(target.name + suffix))


def begun(target: Path, found: Mapping[str, Any], *, restart: bool) -> dict[str, Any]:
    """The record to go on with: one of the same commit, GPU and versions, or a new one."""
    before = None if restart else _read(target.with_name(target.name + ".json"))
    if isinstance(before, dict) and before.get("machine") == found and not found["changed"]:
        return before
    return {"machine": dict(found), "stages": {}}


def carry_out(
    planned: Sequence[Stage],
    record: dict[str, Any],
    target: Path,
    say: Callable[[str], object] = print,
) -> bool:
    """Run what has not passed yet, writing the record after every stage; whether nothing has failed."""
    done = record["stages"]
    BUILD.mkdir(parents=True, exist_ok=True)
    for stage in planned:
        # A build that is not there any more has to be made again.
        if done.get(stage.name, {}).get("status") == PASSED and (stage.name != "build" or SITE.exists()):
            say(f"{stage.name}: has passed before")
            continue
        missing = [name for name in stage.needs if done.get(name, {}).get("status") != PASSED]
        if missing:
            done[stage.name] = {
                "status": f"not run: {', '.join(missing)} did not pass",
                "seconds": 0.0,
                "figures": None,
            }
        else:
            say(f"{stage.name}: at most {stage.limit} s")
            done[stage.name] = run(stage, BUILD / f"{stage.name}.log", BUILD / f"{stage.name}.json")
        write(record, target)
        say(f"{stage.name}: {done[stage.name]['status']} ({done[stage.name]['seconds']:.0f} s)")
        for line in done[stage.name].get("end", []):
            say(f"    {line}")
    return all(done[stage.name]["status"].startswith((PASSED, LEFT_OUT)) for stage in planned)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 where no stage failed, 1 where one did or there is no GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="print the stages, run none")
    parser.add_argument("--restart", action="store_true", help="also run what has passed before")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--published", help="folder that holds ebgmcr and hsi_global_clustering, to compare with")
    given = parser.parse_args(arguments)
    published = given.published or os.environ.get("SPECTRAFUSE_PUBLISHED", "")
    if published and not Path(published).is_dir():
        parser.error(f"--published must be the folder that holds the published packages; there is none at {published}")
    if given.dry_run:
        for stage in stages("<architecture>", published):
            print(f"{stage.name}, at most {stage.limit} s: {shlex.join(stage.command)}")
        return 0
    try:
        found = machine()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    target = given.output / file_name(found["gpu"])
    record = begun(target, found, restart=given.restart)
    passed = carry_out(stages(found["architecture"], published and str(Path(published).resolve())), record, target)
    print(f"{target}.json and {target}.md are written")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
