"""`spectrafuse apply`: a stored model on new data, without any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spectrafuse._runtime.progress import in_parts
from spectrafuse.cli import segment as segmenting
from spectrafuse.cli import unmix as unmixing
from spectrafuse.cli.run_folder import RunFolder, set_threads, working_in
from spectrafuse.cli.scene_options import content, split_key
from spectrafuse.cli.terminal import CommandError, output_console, print_blocks, waiting
from spectrafuse.io.fingerprint import sha256
from spectrafuse.reports.page import Block, Caution, Grid, title_of

if TYPE_CHECKING:
    from spectrafuse.io.spectra import Spectra

_MODEL = "model"
# Files that say whose model a folder holds.
_FILES = {"segment": ("config.json", "weights.safetensors"), "unmix": ("param.json", "model.safetensors")}
_EXTRA = "spectrafuse.json"
NEW_TO_MODEL = 4.0
"""How many times more of new spectra than of the fitted ones a model may leave unexplained, before that is said."""


class StoredModel(NamedTuple):
    """A model folder, and the command that made it: "segment" or "unmix"."""

    folder: Path
    command: str

    @property
    def files(self) -> dict[str, Path]:
        """The files of the model, by name; the folder may hold others."""
        paths = (self.folder / name for name in (*_FILES[self.command], _EXTRA))
        return {path.name: path for path in paths if path.is_file()}


@dataclass(frozen=True)
class ApplyRequest:
    """What the command line asked for.

    Attributes
    ----------
    model : Path
        A model folder, or the output folder of a run.
    files : sequence of Path
    device : str or None
    max_memory : int or None
        Bytes for labeling a scene.
    reading : dict
        Options of reading: those of `SegmentRequest` and `UnmixRequest` that were given.
    masks, labels : sequence of str
        `FILE[:KEY]`, none or one a file.
    runs : bool
        Each file is a run: constraints that link its spectra are obeyed.
    """

    model: Path
    files: Sequence[Path]
    output: Path
    device: str | None = None
    max_memory: int | None = None
    reading: dict[str, Any] = field(default_factory=dict)
    masks: Sequence[str] = ()
    labels: Sequence[str] = ()
    ignore_label: int | None = None
    threads: int | None = None
    restart: bool = False
    runs: bool = False


def find_model(path: Path) -> StoredModel | None:
    """The model in a folder, or in the output folder of a run; None if there is none."""
    for folder in (path, path / _MODEL):
        for command, names in _FILES.items():
            if all((folder / name).is_file() for name in names):
                return StoredModel(folder, command)
    return None


def apply(request: ApplyRequest) -> None:
    """Label scenes, or tell the concentrations of spectra, by a stored model."""
    model = find_model(request.model)
    if model is None:
        what = "does not exist" if not request.model.exists() else "holds no model"
        raise CommandError(
            f"'{request.model}' {what}. Give the output folder of `segment` or `unmix`, or the folder 'model' in it."
        )
    set_threads(request.threads)
    (_label if model.command == "segment" else _unmix)(request, model)


def _asked(request: ApplyRequest, model: StoredModel, inputs: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """What decides the results."""
    return {
        "command": "apply",
        "model": {name: sha256(path) for name, path in model.files.items()},
        "reading": {name: value for name, value in request.reading.items() if value is not None},
        "masks": [content(text) for text in request.masks],
        "data": [{k: item[k] for k in ("sha256", "key", "layout")} for item in inputs],
        **more,
    }


def _reads(request: ApplyRequest, model: StoredModel) -> list[str | Path]:
    """Files that the command reads."""
    return [*model.files.values(), *request.files, *(split_key(text)[0] for text in (*request.masks, *request.labels))]


def _checked_options(request: ApplyRequest, allowed: Sequence[str], what: str) -> dict[str, Any]:
    """The reading options that were given, which must be those of scenes or of spectra."""
    given = {name: value for name, value in request.reading.items() if value is not None}
    for name in given:
        if name not in allowed:
            raise CommandError(f"--{name.replace('_', '-')} is not for {what}; leave it out.")
    return given


def _label(request: ApplyRequest, model: StoredModel) -> None:
    from spectrafuse.dgc.estimator import DeepGlobalClustering
    from spectrafuse.dgc.scenes import check_bands, with_bands_of_model
    from spectrafuse.io.bands import BandsOf
    from spectrafuse.io.limits import at_least

    if request.runs:
        raise CommandError("--runs is for spectra that are unmixed, and this is a model of `segment`; leave it out.")
    options = _checked_options(request, ("key", "layout", "nodata", "scene_size"), "the scenes of this model")
    rows, columns = options.pop("scene_size", None) or (None, None)
    nodata = options.pop("nodata", None)
    console = output_console()
    estimator = DeepGlobalClustering.load(model.folder, device=request.device)
    if request.max_memory is not None:
        estimator.max_memory = request.max_memory
    asked = segmenting.SegmentRequest(
        scenes=request.files,
        output=request.output,
        settings={"nodata": None if nodata is None else str(nodata)},
        rows=rows,
        columns=columns,
        masks=request.masks,
        labels=request.labels,
        ignore_label=request.ignore_label,
        **options,
    )
    with at_least(request.max_memory), waiting("reading"):
        own = BandsOf(estimator.n_bands_in_, estimator.bands_)
        cubes = with_bands_of_model(segmenting.read_request_scenes(asked, bands=own), estimator.axis_)
        check_bands(cubes, estimator.n_features_in_, "the model")
        truth = segmenting.read_truth(asked, cubes)
    inputs = segmenting.described(request.files, cubes)
    for item, cube in zip(inputs, cubes, strict=True):
        console.print(f"{item['reading']}; {_agreement(estimator.axis_, cube.wavelengths)}", soft_wrap=True)
    mapping = estimator.cluster_mapping_
    count = max(mapping) + 1 if mapping else len(estimator.cluster_centers_)
    labels = [content(text) for text in request.labels]
    folder = RunFolder(
        request.output,
        _asked(request, model, inputs, labels=labels, ignore_label=request.ignore_label),
        restart=request.restart,
        trial=lambda place: segmenting.try_maps(place, asked, cubes, truth, count),
        space=sum(segmenting.BYTES_OF_PIXEL * cube.shape[1] * cube.shape[2] for cube in cubes),
        reads=_reads(request, model),
    )
    if folder.finished:
        console.print(f"Nothing to do: '{request.output}' already holds these results. --restart computes them again.")
        return
    with working_in(folder):
        maps = segmenting.labeled(estimator, cubes, truth, folder)
        record = {
            "inputs": inputs,
            "parameters": {"model": str(model.folder), **estimator.get_params()},
            "device": str(next(estimator.model_.parameters()).device),
            "made_by": model.command,
            "stop_reason": f"Nothing was trained: the model in '{model.folder}' was applied as it is.",
            "clusters": maps.cluster_rows(),
            "doubt": [found.record for found in maps.doubt],
            "scores": maps.scores,
        }
        blocks = segmenting.summary(asked, record)
        with waiting("writing"), folder.results(record) as results:
            segmenting.write_maps(results, asked, maps)
            title = title_of("Segmentation", segmenting.scene_names(request.files))
            folder.write_report(results, record, title=title, blocks=blocks, captions=segmenting.CAPTIONS)
        print_blocks(console, blocks)
        console.print(segmenting.where_results_are(request.output, inputs))


def _agreement(model: Any, axis: Any) -> str:
    """What was compared, in words."""
    if model is None or axis is None:
        who = "the model" if model is None else "the file"
        return f"{who} does not say where its bands lie, so that only their number was compared"
    return f"bands where the model has its own ({model})"


def _unmix(request: ApplyRequest, model: StoredModel) -> None:
    from spectrafuse.mcr.estimator import EBgMCR

    if request.labels:
        raise CommandError("--labels is for scenes that are segmented, and this is a model of `unmix`; leave it out.")
    tables = ("header", "index", "spectra_in", "columns", "decimal", "drop_missing")
    options = _checked_options(request, ("key", "layout", "nodata", "scene_size", *tables), "the spectra of this model")
    if request.masks and len(request.masks) != len(request.files):
        raise CommandError(
            f"--mask must be given once per file, in the same order; got {len(request.masks)} for "
            f"{len(request.files)} files."
        )
    console = output_console()
    estimator = EBgMCR.load(model.folder, device=request.device)
    masks: list[Any] = list(request.masks) or [None] * len(request.files)
    spectra = [
        unmixing.read_request(unmixing.UnmixRequest(file, request.output, {}, mask=mask, **options), several=False)
        for file, mask in zip(request.files, masks, strict=True)
    ]
    inputs = [unmixing.described(file, one) for file, one in zip(request.files, spectra, strict=True)]
    # Before the results are tried: all that does not fit the model.
    spectra = [_on_axis_of_model(estimator, one) for one in spectra]
    with waiting("finding concentrations"):
        found = _concentrations(estimator, spectra, in_runs=request.runs)
    for one in spectra:
        console.print(f"'{one.source}': {_agreement(estimator.axis_, one.axis)}", soft_wrap=True)
    places = [""] if len(spectra) == 1 else segmenting.scene_names(request.files)
    names = estimator.component_names_ or unmixing.component_names(
        np.asarray(estimator.component_ids_), estimator.background_row_, None
    )

    def solution(concentrations: np.ndarray) -> unmixing.Solution:
        return unmixing.Solution(
            np.asarray(estimator.components_),
            concentrations,
            estimator.component_ids_,
            estimator.background_row_,
            names,
        )

    def write(target: Path, one: Spectra, concentrations: np.ndarray, nmse: float) -> None:
        target.mkdir(exist_ok=True)
        unmixing.write_solution(
            target,
            one,
            solution(concentrations),
            axis_label=None,
            truth=unmixing.Truth(),
            agreement=None,
            nmse=nmse,
        )

    def try_results(place: Path) -> None:
        for name, one, concentrations in zip(places, spectra, found, strict=True):
            write(place / name, unmixing.few_of(one), concentrations[: unmixing.MOST_TRIED], 0.5)

    folder = RunFolder(
        request.output,
        _asked(request, model, inputs, **({"runs": True} if request.runs else {})),
        restart=request.restart,
        trial=try_results,
        space=unmixing.BYTES_OF_NUMBER * sum(len(one.data) for one in spectra),
        reads=_reads(request, model),
    )
    if folder.finished:
        console.print(f"Nothing to do: '{request.output}' already holds these results. --restart computes them again.")
        return
    with working_in(folder):
        fits = [
            unmixing.reconstruction_scores(one.data, c @ estimator.components_)
            for one, c in zip(spectra, found, strict=True)
        ]
        parts = zip(request.files, found, fits, strict=True)
        runs = [_run(estimator, names, file, c, fit) for file, c, fit in parts]
        stop_reason = f"Nothing was fitted: the model in '{model.folder}' was applied as it is."
        told = [block for _, of_run in runs for block in of_run]
        blocks = [*_without_record(model), *told, *_linked(estimator, request.runs), stop_reason]
        record = {
            "inputs": inputs,
            "parameters": {
                "model": str(model.folder),
                **estimator.get_params(),
                "constraints": [one.name for one in estimator.constraints or ()],
            },
            "device": str(next(estimator.model_.parameters()).device),
            "components": names,
            "made_by": model.command,
            "files_applied_to": [facts for facts, _ in runs],
            "stop_reason": stop_reason,
        }
        with waiting("writing"), folder.results(record) as results:
            for name, one, c, (_, nmse) in zip(places, spectra, found, fits, strict=True):
                write(results / name, one, c, nmse)
            title = title_of("Unmixing", [file.name for file in request.files])
            folder.write_report(results, record, title=title, blocks=blocks, captions=unmixing.CAPTIONS)
        print_blocks(console, blocks)
        kind = "concentration_maps" if spectra[0].grid else "concentrations"
        where = "" if len(spectra) == 1 else ", in a folder for each file"
        console.print(
            f"Results are in '{request.output}'{where}: report.html (all on one page), concentrations.csv, {kind}.png, "
            "residuals.png, components.csv, components.png, run.json"
        )


def _on_axis_of_model(estimator: Any, spectra: Spectra) -> Spectra:
    """Spectra with the bands that the model takes of them, in its order."""
    from dataclasses import replace

    from spectrafuse.mcr.inputs import bands_of_model

    places = bands_of_model(spectra, spectra.data.shape[1], estimator.axis_)
    if len(places) != estimator.n_features_in_:
        raise CommandError(
            f"'{spectra.source}' has {len(places)} bands and the model {estimator.n_features_in_}, and no axis in both "
            "says which are the same. Give data with the model's bands."
        )
    axis = None if spectra.axis is None else spectra.axis[places]
    return replace(spectra, data=spectra.data[:, places], axis=axis)


def _without_record(model: StoredModel) -> list[Block]:
    """What is said of a folder as the published code writes it."""
    if (model.folder / "spectrafuse.json").is_file():
        return []
    return [
        Caution(
            f"'{model.folder}' holds no spectrafuse.json, which says which components of a model are in use: it was "
            "read as a folder of the published code, with all of them. If `unmix` made it, restore that file."
        )
    ]


def _concentrations(estimator: Any, spectra: Sequence[Spectra], *, in_runs: bool) -> list[np.ndarray]:
    """Concentrations (n, k) of the spectra of each file; of runs all at once, as constraints may link them."""
    if not in_runs:
        return [np.asarray(estimator.transform(one)) for one in in_parts(spectra)]
    sizes = [len(one.data) for one in spectra]
    found = np.asarray(estimator.transform(np.concatenate([one.data for one in spectra]), runs=sizes))
    return np.split(found, np.cumsum(sizes)[:-1])


def _linked(estimator: Any, in_runs: bool) -> list[Block]:
    """What is said of constraints that link the spectra of a run."""
    from spectrafuse.mcr.constraints import for_any_spectra

    known = estimator.constraints or ()
    alone = for_any_spectra(known, in_runs=False)
    linked = "; ".join(one.name for one in for_any_spectra(known, in_runs=True) if one not in alone)
    if linked and not in_runs:
        return [f"Each spectrum was taken by itself. Where each file is a run, --runs obeys what links it: {linked}."]
    return [f"Each file is a run, and its concentrations obey what links them: {linked}."] if linked else []


def _run(
    estimator: Any, names: list[str], file: Path, concentrations: np.ndarray, fit: tuple[float, float]
) -> tuple[dict[str, Any], list[Block]]:
    """Of one file what `run.json` holds, and what a person is told."""
    share = unmixing.shares(estimator.components_, concentrations)
    means = concentrations.mean(axis=0)
    facts = {"file": str(file), "r2": fit[0], "nmse": fit[1], "shares": share, "mean_concentrations": means}
    rows = [[name, f"{100 * s:.1f} %", f"{m:.4g}"] for name, s, m in zip(names, share, means, strict=True)]
    blocks: list[Block] = [Grid(file.name, ("component", "share", "mean concentration"), rows, left=("component",))]
    # Of a single spectrum there is no variance to explain.
    explained = f"R2 {fit[0]:.4f}, lack of fit" if len(concentrations) > 1 else "Lack of fit"
    blocks.append(f"{explained} {100 * fit[1] ** 0.5:.3g} %")
    path = (estimator.count_evidence_ or {}).get("path", ())
    before = next((float(row["nmse"]) for row in path if row["chosen"]), None)
    if before is not None and fit[1] > NEW_TO_MODEL * before:
        blocks.append(
            Caution(
                f"The model leaves {100 * fit[1]:.3g} % of the sum of squares of '{file.name}' unexplained, and "
                f"{100 * before:.3g} % of the spectra it was fitted on: these spectra hold something that it does not "
                "know, or are noisier. See residuals.png, and fit them too if it has a shape."
            )
        )
    return facts, blocks
