"""What runs on this machine, and what does not, with the reason."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PACKAGES = ("torch", "triton", "numpy", "scipy", "scikit-learn", "h5py", "matplotlib", "typer", "rich")


def versions() -> dict[str, str | None]:
    """Versions of Python, spectrafuse and the packages it uses; None where a package is not installed."""
    from spectrafuse import __version__

    found: dict[str, str | None] = {"python": platform.python_version(), "spectrafuse": __version__}
    return found | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("model name", "Hardware", "Model")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def openmp_runtimes() -> list[str]:
    """Paths of the OpenMP runtimes loaded into this process; torch and the extension should share one."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as file:
            paths = {line.split(maxsplit=5)[5].strip() for line in file if line.count("/")}
    except (OSError, IndexError):
        return []
    return sorted(p for p in paths if os.path.basename(p).startswith(("libgomp", "libomp", "libiomp")))


def _devices() -> list[dict[str, Any]]:
    import torch

    rows: list[dict[str, Any]] = [
        {
            "device": "cpu",
            "name": cpu_name(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": usable_cores(),
            "threads": torch.get_num_threads(),
        }
    ]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            rows.append(
                {
                    "device": f"cuda:{index}",
                    "name": gpu.name,
                    "instructions": f"sm_{gpu.major}{gpu.minor}",
                    "memory_gib": round(gpu.total_memory / 2**30, 1),
                    "cuda": torch.version.cuda,
                }
            )
    return rows


def _no_gpu_reason() -> str | None:
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "torch sees no CUDA device"


def _ask(question: Callable[[], Any]) -> tuple[Any, str | None]:
    """The answer and None, or None and the error: doctor reports what is broken, it does not break."""
    try:
        return question(), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def _extensions() -> list[dict[str, Any]]:
    native, broken = _ask(lambda: __import__("spectrafuse._runtime.extensions", fromlist=["extensions"]))
    rows: list[dict[str, Any]] = []
    for name in ("cpu", "cuda"):
        row: dict[str, Any] = {"extension": f"_{name}", "loaded": False, "reason": broken, "info": {}}
        if native is not None:
            reason, error = _ask(getattr(native, f"{name}_reason", lambda: "not part of this build"))
            row["reason"] = error or reason
            if row["reason"] is None:
                info, error = _ask(getattr(native, f"{name}_info", dict))
                row.update(loaded=error is None, reason=error, info=info or {})
        rows.append(row)
    return [*rows, _triton_row()]


def _triton_row() -> dict[str, Any]:
    def answer() -> dict[str, Any]:
        from spectrafuse._runtime import triton

        # On a GPU, or in the interpreter: one is enough, and where neither can be, the GPU is what is missing.
        usable = triton.interpreter_reason() is None or triton.gpu_reason() is None
        return {"loaded": usable, "reason": None if usable else triton.gpu_reason(), "info": triton.info()}

    found, error = _ask(answer)
    return {"extension": "triton", "loaded": False, "reason": error, "info": {}, **(found or {})}


def _operations(devices: list[str]) -> list[dict[str, Any]]:
    from spectrafuse import backends, ops

    rows = []
    for op in ops.operations():
        for device in devices:
            implementations: dict[str, str | None] = {}
            for implementation in backends.IMPLEMENTATIONS:
                reason, error = _ask(lambda o=op, i=implementation, d=device: backends.why_not(o, i, d))  # type: ignore[misc]
                implementations[implementation] = error or reason
            chosen, error = _ask(lambda o=op, d=device: backends.choose(o, d))  # type: ignore[misc]
            rows.append(
                {
                    "operation": op,
                    "device": device,
                    "runs": chosen,
                    "error": error,
                    "why_not": implementations,
                }
            )
    return rows


def examine() -> dict[str, Any]:
    """Everything doctor knows, as plain values ready for JSON.

    Returns
    -------
    dict
        `versions`, `platform`, `devices`, `no_gpu_reason`, `openmp`, `extensions`, `forced` (the
        implementation SPECTRAFUSE_BACKEND forces, or "auto") and `operations`: for each operation and device
        which implementation runs, and under `why_not` the reason of each that does not (None: it runs).
    """
    from spectrafuse import backends

    devices = _devices()
    extensions = _extensions()
    types = list(dict.fromkeys(row["device"].split(":")[0] for row in devices))
    operations, broken = _ask(lambda: _operations(types))
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "devices": devices,
        "no_gpu_reason": _no_gpu_reason(),
        "openmp": openmp_runtimes(),
        "extensions": extensions,
        "forced": backends.forced(),
        "operations": operations or [],
        "operations_error": broken,
    }


def _mark(reason: str | None) -> str:
    return "[green]yes[/]" if reason is None else "[dim]-[/]"


def _print_machine(found: dict[str, Any], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    machine = Table(box=None, show_header=False, title="Machine", title_justify="left", title_style="bold")
    machine.add_row("system", found["platform"])
    for row in found["devices"]:
        details = [f"{key} {value}" for key, value in row.items() if key not in ("device", "name")]
        machine.add_row(row["device"], escape(f"{row['name']}  ({', '.join(details)})"))
    if found["no_gpu_reason"]:
        machine.add_row("GPU", f"none: {found['no_gpu_reason']}")
    machine.add_row("OpenMP", escape("\n".join(found["openmp"])) or "no runtime loaded")
    if len(found["openmp"]) > 1:
        machine.add_row("", "[yellow]two OpenMP runtimes in one process may start too many threads[/]")
    console.print(machine)

    known = Table(box=None, show_header=False, title="\nVersions", title_justify="left", title_style="bold")
    for name, version in found["versions"].items():
        known.add_row(name, version or "[dim]not installed[/]")
    console.print(known)


def print_examination(found: dict[str, Any], console: Console) -> None:
    """Print what `examine` found as tables for a person."""
    from rich.markup import escape
    from rich.table import Table

    _print_machine(found, console)

    native = Table(box=None, show_header=False, title="\nCompiled code", title_justify="left", title_style="bold")
    for row in found["extensions"]:
        info = ", ".join(f"{key} {value}" for key, value in row["info"].items())
        native.add_row(
            row["extension"],
            "[green]loaded[/]" if row["loaded"] else "not loaded",
            escape(row["reason"] or info),
        )
    console.print(native)

    if found["operations_error"]:
        console.print(f"\n[red]operations could not be listed:[/] {escape(found['operations_error'])}")
        return
    _print_operations(found, console)


def _print_operations(found: dict[str, Any], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    forced = "" if found["forced"] == "auto" else f" (SPECTRAFUSE_BACKEND forces {found['forced']})"
    rows = found["operations"]
    several = len({row["device"] for row in rows}) > 1
    ops = Table(title=f"\nOperations{forced}", title_justify="left", title_style="bold")
    ops.add_column("operation", no_wrap=True)
    ops.add_column("runs", style="bold", no_wrap=True)
    for implementation in rows[0]["why_not"] if rows else ():
        ops.add_column(implementation, justify="center", no_wrap=True)
    reasons: dict[str, list[str]] = {}
    for row in rows:
        name = f"{row['operation']} on {row['device']}" if several else row["operation"]
        ops.add_row(name, row["runs"] or "[red]nothing[/]", *map(_mark, row["why_not"].values()))
        if row["error"]:
            reasons.setdefault(row["error"], []).append(name)
        for implementation, reason in row["why_not"].items():
            if reason is not None:
                # The same sentence for twelve operations is said once.
                sentence = reason.replace(row["operation"], "the operation")
                reasons.setdefault(f"{implementation}: {sentence}", []).append(name)
    console.print(ops)
    if reasons:
        console.print("\n[bold]Why the others do not run[/]")
    for sentence, names in reasons.items():
        who = f"all {len(names)}" if len(names) == len(rows) else ", ".join(names)
        console.print(f"  {escape(sentence)}  [dim]({who})[/]")
