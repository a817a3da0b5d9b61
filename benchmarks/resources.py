"""Registers, spills, shared memory and code size of every GPU kernel on every target, without a GPU.

    python benchmarks/resources.py            compile what changed, write benchmarks/resources/
    python benchmarks/resources.py --check    fail if a table is stale or a kernel of the published sizes spills

A Triton file is compiled in the forms its `compile_cases()` lists; the CUDA extension is read as it was built.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spectrafuse._runtime import extensions
from spectrafuse.kernels import LAUNCH, CompileCase

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).with_suffix("")
TARGETS = (75, 80, 86, 89, 90, 120)
EXTREME_TARGETS = (75, 120)
"""What `--check` compiles again: the smallest and the newest."""
SHARED_LIMIT = 64 * 1024
"""Bytes of shared memory a block can have on sm_75, the smallest target."""


@dataclass(frozen=True)
class Job:
    """One case of one kernel file on one target; small enough to send to another process."""

    operation: str
    case: str
    target: int


def cases(operation: str) -> dict[str, CompileCase]:
    """The forms in which an operation's kernels are compiled, by name."""
    module = importlib.import_module(f"spectrafuse.kernels.{operation}")
    found = {case.name: case for case in module.compile_cases()}
    assert len(found) == len(module.compile_cases()), f"{operation}: two cases share a name"
    return found


def compile_job(job: Job) -> dict[str, int]:
    """Compile and measure one case."""
    case = cases(job.operation)[job.case]
    names = case.kernel.arg_names
    kinds = {name: case.signature.get(name, "constexpr").split(":")[0] for name in names}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if case.signature.get(name, "").endswith(":16")
    }
    source = ASTSource(case.kernel, kinds, dict(case.constants), aligned)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", job.target, 32), options={**LAUNCH, **dict(case.options)}
    )
    (measured,) = measure(compiled.asm["cubin"]).values()
    # Triton asks for shared memory when it launches, so the code does not know of it.
    return {**measured, "shared": compiled.metadata.shared}


def measure(code: bytes) -> dict[str, dict[str, int]]:
    """What each kernel in one piece of device code needs: registers, spilled bytes a thread, shared memory, size."""
    sizes = section_sizes(code)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        text = run(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name)
    pattern = r"Function ([^:\s]+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    return {
        name: {
            "registers": int(registers),
            "spills": int(stack) + int(local),
            "shared": int(shared),
            "code": sizes[f".text.{name}"],
        }
        for name, registers, stack, shared, local in re.findall(pattern, text)
    }


def section_sizes(code: bytes) -> dict[str, int]:
    """Sizes in bytes of the sections of a 64-bit ELF file, by name."""
    (table,) = struct.unpack_from("<Q", code, 40)
    entry_size, count, names = struct.unpack_from("<HHH", code, 58)
    headers = [struct.unpack_from("<II4Q", code, table + i * entry_size) for i in range(count)]
    strings = headers[names][4]
    return {
        code[strings + header[0] : code.index(b"\0", strings + header[0])].decode(): header[5] for header in headers
    }


def cuda_rows(extension: Path) -> dict[str, dict[str, Any]]:
    """What every kernel of the built CUDA extension needs, for every target it has code for."""
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run(knobs.nvidia.cuobjdump.path, "--extract-elf", "all", str(extension), folder=folder)
        for file in sorted(Path(folder).glob("*.cubin")):
            target = re.findall(r"sm_\d+", file.name)[-1]
            for name, measured in measure(file.read_bytes()).items():
                rows.setdefault(name, {})[target] = measured
    readable = run("c++filt", *rows).splitlines() if rows else []
    return {name.replace("(anonymous namespace)::", ""): rows[key] for name, key in zip(readable, rows, strict=True)}


def run(*command: str, folder: str | None = None) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def digest(*files: Path) -> str:
    """A number that changes with the files' contents."""
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in sorted(files))).hexdigest()[:16]


def key(operation: str) -> dict[str, str]:
    """What the table of a Triton file must have been made from to be believed."""
    shared = (ROOT / "kernels").glob("_[!_]*.py")
    return {
        "source": digest(ROOT / "kernels" / f"{operation}.py", *shared),
        "compiler": f"Triton {triton.__version__}",
    }


def operations() -> list[str]:
    """The kernel files."""
    return sorted(file.stem for file in (ROOT / "kernels").glob("*.py") if not file.stem.startswith("_"))


def cuda_table() -> dict[str, Any] | None:
    """The table of the CUDA extension as it was built; None where there is no CUDA compiler or no extension."""
    file = extensions.cuda_info().get("file")
    if file is None or shutil.which("nvcc") is None:
        return None
    release = re.findall(r"release ([\d.]+)", run("nvcc", "--version"))[0]
    rows = {name: {"paper": True, "targets": targets} for name, targets in cuda_rows(Path(file)).items()}
    return {"compiler": f"nvcc {release}", "rows": rows}


def read(operation: str) -> dict[str, Any]:
    file = FOLDER / f"{operation}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"rows": {}}


def compile_all(jobs: list[Job]) -> list[dict[str, int]]:
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(compile_job, jobs))


def update(everything: bool) -> None:
    """Compile what changed since the tables were written, and write them."""
    FOLDER.mkdir(exist_ok=True)
    for operation in operations():
        if not everything and read(operation).items() >= key(operation).items():
            continue
        jobs = [Job(operation, case, target) for case in cases(operation) for target in TARGETS]
        rows: dict[str, dict[str, Any]] = {
            name: {"paper": case.paper, "targets": {}} for name, case in cases(operation).items()
        }
        for job, measured in zip(jobs, compile_all(jobs), strict=True):
            rows[job.case]["targets"][f"sm_{job.target}"] = measured
        write(operation, {**key(operation), "rows": rows})
    built = cuda_table()
    if built is not None:
        write("cuda", built)
    (FOLDER / "README.md").write_text(table(), encoding="utf-8")


def write(operation: str, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1)
    # One line a target: a change is one line of a diff.
    text = re.sub(r"\{\s+(\"registers\"[^}]*?)\s+\}", lambda m: "{" + re.sub(r"\s+", " ", m[1]) + "}", text)
    (FOLDER / f"{operation}.json").write_text(text + "\n", encoding="utf-8")
    print(f"{operation}: {len(content['rows'])} kernels", file=sys.stderr)


def table() -> str:
    """The tables as Markdown."""
    lines = [
        "# What the GPU kernels need",
        "",
        "Written by `make resources`, from code compiled ahead of time; checked by `make resources-check`. A cell",
        "holds registers a thread, bytes of shared memory a block, bytes of code. **Spills** are bytes a thread; at",
        "published sizes (marked *) there may be none.",
    ]
    for file in sorted(FOLDER.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        targets = list(dict.fromkeys(target for row in content["rows"].values() for target in row["targets"]))
        lines += ["", f"## {file.stem}", "", content["compiler"], "", "| kernel | " + " | ".join(targets) + " |"]
        lines.append("|---|" + "---|" * len(targets))
        for name, row in content["rows"].items():
            cells = [cell(row["targets"].get(target)) for target in targets]
            lines.append(f"| {name}{' *' if row['paper'] else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(measured: dict[str, int] | None) -> str:
    if measured is None:
        return ""
    spills = f" **spills {measured['spills']}**" if measured["spills"] else ""
    return f"{measured['registers']} · {measured['shared']} · {measured['code']}{spills}"


def check() -> list[str]:
    """Everything that is wrong with the tables; compiles only the published sizes, on two targets."""
    problems = [
        f"{operation}: the table is not of this source and compiler; run `make resources`"
        for operation in operations()
        if not read(operation).items() >= key(operation).items()
    ]
    if cuda_table() not in (None, read("cuda")):
        problems.append("cuda: the table is not of the extension that was built; run `make resources`")
    for operation in (*operations(), "cuda"):
        for name, row in read(operation)["rows"].items():
            for target, measured in row["targets"].items():
                if measured["spills"] and row["paper"]:
                    problems.append(f"{operation}, {name}, {target}: {measured['spills']} bytes a thread are spilled")
                if measured["shared"] > SHARED_LIMIT:
                    problems.append(f"{operation}, {name}, {target}: {measured['shared']} bytes of shared memory")
    if problems:
        return problems
    jobs = [
        Job(operation, name, target)
        for operation in operations()
        for name, case in cases(operation).items()
        for target in EXTREME_TARGETS
        if case.paper
    ]
    for job, measured in zip(jobs, compile_all(jobs), strict=True):
        recorded = read(job.operation)["rows"][job.case]["targets"][f"sm_{job.target}"]
        if measured != recorded:
            problems.append(f"{job.operation}, {job.case}, sm_{job.target}: {measured}, but the table has {recorded}")
    if (FOLDER / "README.md").read_text(encoding="utf-8") != table():
        problems.append("benchmarks/resources/README.md was not written from the tables; run `make resources`")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the tables are not right")
    parser.add_argument("--all", action="store_true", help="compile also what did not change")
    arguments = parser.parse_args()
    if not arguments.check:
        update(arguments.all)
        return 0
    problems = check()
    print("\n".join(problems) or "the tables of kernel resources are right", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
