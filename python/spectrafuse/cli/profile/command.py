"""`spectrafuse profile segment | unmix`: the beginning of a run, recorded."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrafuse.cli import ownership
from spectrafuse.cli.profile.report import RECORD, Phase, summary, table_rows, write
from spectrafuse.cli.run_folder import set_threads
from spectrafuse.cli.terminal import CommandError, Interrupted, output_console, training_progress
from spectrafuse.io.fingerprint import sha256

if TYPE_CHECKING:
    import torch

    from spectrafuse.cli.profile.bounds import Bounds
    from spectrafuse.cli.segment import SegmentRequest
    from spectrafuse.cli.unmix import UnmixRequest

_PREDICTIONS = 1000
"""Small scenes are segmented again and again until there is enough to tell."""


def profile(request: SegmentRequest | UnmixRequest) -> None:
    """Record the beginning of what a command would do, and write the output folder.

    Raises
    ------
    CommandError
        If the folder holds something else than an earlier profile, or the run is too short to be recorded.
    Interrupted
        On Ctrl-C; nothing is written then.
    """
    from spectrafuse._runtime import checks
    from spectrafuse.cli.profile.bounds import measure
    from spectrafuse.cli.segment import SegmentRequest
    from spectrafuse.io.atomic import atomic_folder

    segments = isinstance(request, SegmentRequest)
    _check_output(request.output)
    set_threads(request.threads)
    device = checks.device(request.settings.get("device"))
    run = (_segmenting if segments else _unmixing)(request)  # type: ignore[arg-type]  # reads and checks the data
    bounds = measure(device)
    try:
        with atomic_folder(request.output) as folder:
            phases = run(device, bounds, folder)
            if not phases:
                raise CommandError("The run was over before a step could be recorded. Give a larger --max-epoch.")
            record = _circumstances(request, device, "segment" if segments else "unmix")
            write(folder, phases, bounds, record)
            # What someone put there meanwhile.
            _check_output(request.output)
    except KeyboardInterrupt:
        raise Interrupted("Nothing was written. Run the same command to start again.") from None
    except OSError as error:
        raise CommandError(
            f"The profile cannot be written to '{request.output}': {error.strerror or error}."
        ) from error
    _print(phases, bounds, record, request.output)


def _check_output(output: Path) -> None:
    """Only an earlier profile is replaced, as it was written; a folder that cannot be made is found before the work."""
    if output.exists() and not output.is_dir():
        raise CommandError(f"--output '{output}' is a file. Give a folder.")
    above = next(folder for folder in output.resolve().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise CommandError(f"The output folder '{output}' cannot be written.")
    names = sorted(os.listdir(output)) if output.is_dir() else []
    known = _own_files(output / RECORD)
    others = [name for name in names if ownership.foreign(output, name, known) is not None]
    if others:
        raise CommandError(
            f"'{output}' holds files that are not of a profile, or were changed ({', '.join(others[:3])}"
            f"{', ..' if len(others) > 3 else ''}). Choose a new folder for --output."
        )


def _own_files(record: Path) -> dict[str, str]:
    """SHA-256 of the files of an earlier profile."""
    if not ownership.is_plain_file(record):
        return {}
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return {**found["sha256"], RECORD: sha256(record)} if found["command"] in ("segment", "unmix") else {}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}


Run = Callable[["torch.device", "Bounds", Path], "list[Phase]"]


def _segmenting(request: SegmentRequest) -> Run:
    from spectrafuse.cli.profile.recorder import replaced
    from spectrafuse.cli.segment import check_merge, read_request_scenes
    from spectrafuse.dgc.estimator import DeepGlobalClustering
    from spectrafuse.dgc.normalise import Normalization
    from spectrafuse.dgc.prediction import inference
    from spectrafuse.dgc.training.choice import resolve_normalization
    from spectrafuse.dgc.training.trainer import Trainer

    check_merge(request)
    cubes = read_request_scenes(request)
    estimator = DeepGlobalClustering(**request.settings)

    def run(device: torch.device, bounds: Bounds, folder: Path) -> list[Phase]:
        trainers: list[Trainer] = []
        phases = _training(estimator, cubes[0] if len(cubes) == 1 else cubes, Trainer, trainers, device, bounds, folder)
        trainer = trainers[0]
        model, seed = trainer.model.eval(), trainer.stream.seed
        how = Normalization(resolve_normalization(trainer.recipe.normalization, cubes, model.n_clusters, seed)[0])

        def predict() -> None:
            for cube in cubes * _PREDICTIONS:
                inference.label_map(model, cube, how, memory=estimator.max_memory)

        with _recorded("prediction", "strip", device, bounds, folder, phases) as recorder:
            usual = inference.iterate_embeddings

            def strips(*arguments: Any, **settings: Any) -> Iterator[Any]:
                for strip in usual(*arguments, **settings):
                    yield strip
                    recorder.step_done()

            with replaced(inference, "iterate_embeddings", strips):
                predict()
        return phases

    return run


def _unmixing(request: UnmixRequest) -> Run:
    from spectrafuse.cli.unmix import read_request
    from spectrafuse.mcr.estimator import EBgMCR
    from spectrafuse.mcr.training.trainer import Trainer

    spectra = read_request(request)
    settings = dict(request.settings)
    if settings.get("recipe", "corrected") == "corrected":
        # Without training there is no step to record.
        settings["recipe"] = "trained"
    estimator = EBgMCR(**settings)
    return lambda device, bounds, folder: _training(estimator, spectra.data, Trainer, [], device, bounds, folder)


def _training(
    estimator: Any, data: Any, trainer: Any, trainers: list[Any], device: torch.device, bounds: Bounds, folder: Path
) -> list[Phase]:
    """Fit until enough is recorded, with the state saved as a usual run saves it; the trainer is left in `trainers`."""
    from spectrafuse.cli.profile.recorder import replaced
    from spectrafuse.mcr.training.optimizer import SteadySteps

    phases: list[Phase] = []
    with (
        _recorded("training", "step", device, bounds, folder, phases) as recorder,
        tempfile.TemporaryDirectory() as state,
        training_progress("profiling") as show,
    ):
        usual = trainer.run

        def run(self: Any, *arguments: Any, **settings: Any) -> Any:
            trainers.append(self)
            if hasattr(self, "step_at"):
                self.step_at = lambda temperature: recorder.counting(type(self).step_at(self, temperature))
            else:
                self.step = recorder.counting(self.step)
            result = usual(self, *arguments, **settings)
            # What comes after the training is not part of it.
            recorder.finish()
            return result

        with (
            replaced(trainer, "run", run),
            # The step of epochs straight through the kernels.
            replaced(SteadySteps, "step", recorder.counting(SteadySteps.step)),
        ):
            estimator.fit(data, callback=show, checkpoint_dir=state)
    return phases


@contextmanager
def _recorded(
    name: str, unit: str, device: torch.device, bounds: Bounds, folder: Path, phases: list[Phase]
) -> Iterator[Any]:
    """A recorder for a block, which may end early; what it saw becomes a phase."""
    from spectrafuse.cli.profile.diagnosis import limit
    from spectrafuse.cli.profile.recorder import Enough, Recorder, watching

    recorder = Recorder(device, folder / f"trace-{name}.json")
    with watching(recorder), recorder:
        with suppress(Enough):
            yield recorder
        recorder.finish()
    if recorder.measured is not None:
        phases.append(Phase(name, unit, recorder.measured, limit(recorder.measured, bounds, name)))


def _circumstances(request: Any, device: torch.device, command: str) -> dict[str, Any]:
    import torch

    from spectrafuse.cli.doctor import cpu_name, versions

    on_gpu = device.type == "cuda"
    notes = [
        "Only the beginning of the run was recorded, since one step takes about as long as the next. The time of an "
        "operation leaves out the operations it calls. Arithmetic and bytes are calculated from the sizes of the data.",
        "The bound is the fastest this device can do. More than 100 % of it means that the data stayed in the cache, "
        "or that other programs were busy while it was measured.",
        "Open the traces in chrome://tracing or ui.perfetto.dev.",
    ]
    if command == "unmix":
        notes.append("Choosing the number of components, after training, is not part of the profile.")
    if on_gpu:
        notes.append("Steps were recorded kernel by kernel; usual steps are replayed as one CUDA graph and are faster.")
    return {
        "command": command,
        "parameters": {name: str(value) for name, value in request.settings.items()},
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if on_gpu else cpu_name(),
        "threads": torch.get_num_threads(),
        "versions": {name: version for name, version in versions().items() if version is not None},
        "peak_memory": torch.cuda.max_memory_allocated(device) if on_gpu else _peak_resident(),
        "memory_of": "the GPU" if on_gpu else "the process",
        "notes": notes,
    }


def _peak_resident() -> int:
    """Bytes of memory at which this process peaked."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _print(phases: list[Phase], bounds: Bounds, record: dict[str, Any], output: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = output_console()
    for phase in phases:
        table = Table(
            title=f"\n{phase.name}", title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        table.add_column("operation", no_wrap=True, max_width=29)
        for column in ("calls", "seconds", "share", "GB/s", "bound", "MiB"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in table_rows(phase, bounds):
            table.add_row(
                row["operation"],
                *(
                    "-" if row[name] is None else form.format(row[name] * factor)
                    for name, form, factor in (
                        ("calls", "{}", 1),
                        ("seconds", "{:.3f}", 1),
                        ("share", "{:.1f} %", 100),
                        ("gb_per_s", "{:.1f}", 1),
                        ("share_of_bound", "{:.0f} %", 100),
                        ("memory_mb", "{:.1f}", 1),
                    )
                ),
            )
        console.print(table)
    console.print()
    console.print(summary(phases, bounds, record), soft_wrap=True)
    console.print(f"The table, the traces and the picture are in '{output}'.")
