"""`spectrafuse unmix`: from spectra to components, concentrations, pictures and a record of the run."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spectrafuse.cli.experiments import Experiments, joined
from spectrafuse.cli.run_folder import RunFolder, fit_in_folder, set_threads, working_in
from spectrafuse.cli.scene_options import content, read_mask, split_key
from spectrafuse.cli.terminal import CommandError, output_console, print_blocks, waiting

if TYPE_CHECKING:
    from rich.console import Console

    from spectrafuse.io.spectra import Spectra
    from spectrafuse.mcr.feasible_bands import FeasibleBands
    from spectrafuse.reports.page import Block

# Components and spectra in the results that are tried before the fit.
MOST_TRIED = 8
# In the tables of components and concentrations, of one component.
BYTES_OF_NUMBER = 8
MOST_BANDS, LARGEST_FOR_BANDS = 5, 2_000_000
"""Components, and numbers in the spectra, up to which feasible bands cost less than the fit."""
CAPTIONS = {
    "components.png": "the spectrum of each component",
    "concentrations.png": "how much of each component is in each spectrum",
    "concentration_maps.png": "how much of each component is in each pixel",
    "concentrations_against_true.png": "found concentrations against the true ones",
    "feasible_bands.png": "how far spectra and concentrations could be others that fit as well",
    "residuals.png": "what the components leave unexplained",
    "count_path.png": "what each component explains: the evidence for the count",
    "count_curve.png": "components against the fit, through the search",
    "loss.png": "course of the training",
}
"""What pictures show, in the order that a report has them in."""
CURVE_COLUMNS = ("r2_from", "r2_to", "count", "r2", "nmse", "epoch")
PATH_COLUMNS = ("count", "r2", "nmse", "cost", "chosen")


@dataclass(frozen=True)
class UnmixRequest:
    """What the command line asked for; None leaves a setting to the recipe.

    Attributes
    ----------
    settings : dict
        Arguments of `EBgMCR`.
    header, index, spectra_in, columns, decimal, drop_missing, layout, nodata, bands, scene_size
        As in `spectrafuse.io.spectra.read_spectra`.
    mask : str or None
        `FILE[:KEY]` of the pixels of a scene without data.
    feasible_bands : bool or None
        Compute feasible bands; None: for few components and not too many numbers.
    unimodal : bool
        Concentrations have one maximum along the spectra.
    closure : float or None
        What the concentrations of a spectrum add up to.
    known : Path or None
        Spectra to start from.
    fixed : bool
        They stay as they are.
    more : tuple of Path
        Further files: other runs, or other instruments.
    side_by_side : bool
        They are other instruments.
    trilinear : bool
        Components have one profile in all runs.
    """

    spectra: Path
    output: Path
    settings: dict[str, Any]
    key: str | None = None
    header: bool | str = "auto"
    index: bool | str = "auto"
    spectra_in: str = "auto"
    columns: str | None = None
    decimal: str = "auto"
    drop_missing: str | None = None
    layout: str = "auto"
    nodata: float | None = None
    bands: str | None = None
    mask: str | None = None
    scene_size: tuple[int, int] | None = None
    axis_label: str | None = None
    true_components: Path | None = None
    true_concentrations: Path | None = None
    threads: int | None = None
    restart: bool = False
    feasible_bands: bool | None = None
    unimodal: bool = False
    closure: float | None = None
    known: Path | None = None
    fixed: bool = False
    more: tuple[Path, ...] = ()
    side_by_side: bool = False
    trilinear: bool = False


@dataclass(frozen=True)
class Truth:
    """Known components `(m, d)` and concentrations `(n, m)`, as far as they were given, and their names."""

    components: np.ndarray | None = None
    concentrations: np.ndarray | None = None
    names: list[str] | None = None


@dataclass(frozen=True, eq=False)
class Solution:
    """Components as they are written and drawn, from the largest share to the smallest.

    Attributes
    ----------
    components : ndarray, shape (k, d)
    concentrations : ndarray, shape (n, k)
    ids : ndarray of int, shape (k,)
        The components' numbers in the model.
    background : int or None
        Row of `components` that is the background.
    names : list of str
        As `component_names` gives them.
    """

    components: np.ndarray
    concentrations: np.ndarray
    ids: np.ndarray
    background: int | None
    names: list[str]


def component_names(ids: np.ndarray, background: int | None, known: list[str] | None) -> list[str]:
    """`component 1`, `component 2`, ..., `background`; known spectra, the first in the model, have their own names."""
    names = [f"component {row + 1}" for row in range(len(ids))]
    for row, number in enumerate(ids.tolist()):
        if known is not None and number < len(known):
            names[row] = known[number]
    if background is not None:
        names[background] = "background"
    return names


@dataclass(frozen=True)
class Agreement:
    """How found components compare with known ones.

    Attributes
    ----------
    pairs : dict of int to (int, float)
        Component: index of the true one, and the cosine (with known spectra) or correlation of concentrations.
    how : str
        What the pairs were matched by, in words.
    rows : list of dict
        One row a pair, for `run.json`; `index` is the component's column, `true` the known one's name.
    """

    pairs: dict[int, tuple[int, float]]
    how: str
    rows: list[dict[str, Any]]


class NamedSpectra(NamedTuple):
    """Spectra (m, d) and their names."""

    components: np.ndarray
    names: list[str] | None


def _read_components(option: str, file: Path, spectra: Spectra) -> NamedSpectra:
    """Spectra that an option names, with the bands in the order of `spectra`."""
    from spectrafuse.io.spectra import read_spectra

    known, bands = read_spectra(file), spectra.data.shape[1]
    components, names = known.data, known.names
    if components.shape[1] != bands:
        if components.shape[0] != bands:
            raise CommandError(
                f"{option} '{file}' must hold spectra of {bands} bands; got a table of {components.shape[0]} x "
                f"{components.shape[1]}."
            )
        components, names = components.T, known.band_names
    if known.axis is not None and spectra.axis is not None and len(known.axis) == bands:
        order = np.argsort(known.axis)[np.argsort(np.argsort(spectra.axis))]
        if np.allclose(known.axis[order], spectra.axis, rtol=1e-6):
            components = components[:, order]
    return NamedSpectra(components, names)


def _read_truth(request: UnmixRequest, spectra: Spectra) -> Truth:
    from spectrafuse.io.spectra import read_spectra

    samples = len(spectra.data)
    components = concentrations = None
    names: list[str] | None = None
    if request.true_components is not None:
        components, names = _read_components("--true-components", request.true_components, spectra)
    if request.true_concentrations is not None:
        table = read_spectra(request.true_concentrations, spectra_in="rows")
        concentrations, titles = table.data, table.band_names
        if len(concentrations) != samples:
            if concentrations.shape[1] != samples:
                raise CommandError(
                    f"--true-concentrations '{request.true_concentrations}' must hold one row for each of the "
                    f"{samples} spectra; got a table of {concentrations.shape[0]} x {concentrations.shape[1]}."
                )
            concentrations, titles = concentrations.T, table.names
        if components is not None and len(components) != concentrations.shape[1]:
            raise CommandError(
                f"--true-components holds {len(components)} spectra, but --true-concentrations has "
                f"{concentrations.shape[1]} columns."
            )
        names = names or titles
    return Truth(components, concentrations, names)


def read_experiments(request: UnmixRequest) -> Experiments:
    """The spectra of all files of a request, said in one line for each.

    Raises
    ------
    CommandError
        If it is one spectrum, or files do not fit together.
    """
    files = (request.spectra, *request.more)
    parts = [read_request(replace(request, spectra=file), several=len(files) == 1) for file in files]
    experiments = joined(parts, beside=request.side_by_side)
    if request.trilinear and len(experiments.runs) < 2:
        raise CommandError("--trilinear is about several runs; give a file for each.")
    return experiments


def read_request(request: UnmixRequest, *, several: bool = True) -> Spectra:
    """The spectra of a request, said in one line.

    Raises
    ------
    CommandError
        If it is one spectrum where several are needed.
    """
    from spectrafuse.io.errors import ReadingNote
    from spectrafuse.io.spectra import read_spectra

    mask = None if request.mask is None else read_mask(request.mask)
    with waiting("reading"), warnings.catch_warnings():
        # The line that says what was read says it.
        warnings.simplefilter("ignore", ReadingNote)
        spectra = read_spectra(
            request.spectra,
            key=request.key,
            header=request.header,
            index=request.index,
            spectra_in=request.spectra_in,
            columns=request.columns,
            decimal=request.decimal,
            drop_missing=request.drop_missing or "values",
            layout=request.layout,
            nodata=request.nodata,
            bands=request.bands,
            mask=mask,
            scene_size=request.scene_size,
        )
    output_console().print(f"read: {spectra.reading}", soft_wrap=True)
    if several and len(spectra.data) == 1:
        raise CommandError(
            f"'{request.spectra}' holds one spectrum, and unmixing needs several in which components vary. Put them "
            "into one table: a column for each beside the axis."
        )
    return spectra


def described(path: Path, spectra: Spectra) -> dict[str, Any]:
    """What `run.json` says of spectra that were read."""
    samples, bands = spectra.data.shape
    return {
        "file": str(path),
        "sha256": spectra.sha256,
        "key": spectra.key,
        "layout": spectra.layout,
        "samples": samples,
        "bands": bands,
        "reading": spectra.reading,
    }


def unmix(request: UnmixRequest) -> None:
    """Unmix the spectra and write the output folder."""
    console = output_console()
    set_threads(request.threads)
    experiments = read_experiments(request)
    spectra = experiments.spectra
    truth = _read_truth(request, spectra)
    samples, bands = spectra.data.shape
    known = None if request.known is None else _read_components("--known", request.known, spectra)
    beside = {
        "true_components": (truth.components, truth.names),
        "true_concentrations": (truth.concentrations, truth.names),
        "known": (None, None) if known is None else known,
    }
    inputs = [described(Path(part.source), part) for part in experiments.parts]
    folder = RunFolder(
        request.output,
        {
            "command": "unmix",
            "parameters": dict(request.settings),
            "constraints": [request.unimodal, request.closure, request.fixed, request.trilinear, request.side_by_side],
            "axis_label": request.axis_label,
            "feasible_bands": request.feasible_bands,
            "data": [
                {k: item[k] for k in ("sha256", "key", "layout")} | {"values": _digest(part.data, part.axis)}
                for item, part in zip(inputs, experiments.parts, strict=True)
            ],
            "mask": None if request.mask is None else content(request.mask),
            "truth": {name: _digest(values, names) for name, (values, names) in beside.items() if values is not None},
        },
        restart=request.restart,
        trial=lambda place: _try_results(place, request, experiments, truth, known),
        space=BYTES_OF_NUMBER * (samples + bands),
        reads=[path for path in (request.spectra, *request.more, *_beside(request)) if path is not None],
    )
    if folder.finished:
        console.print(f"Nothing to do: '{request.output}' already holds these results. --restart computes them again.")
        return
    with working_in(folder):
        _fit_and_write(request, experiments, truth, known, inputs, folder, console)


def _beside(request: UnmixRequest) -> list[Path | None]:
    """The files that a command reads beside its spectra."""
    mask = None if request.mask is None else Path(split_key(request.mask)[0])
    return [request.true_components, request.true_concentrations, request.known, mask]


def _digest(values: np.ndarray, beside: np.ndarray | list[str] | None) -> str:
    """What tells numbers that were read, and their axis or names, from others, whatever files they came from."""
    digest = hashlib.sha256(json.dumps(values.shape).encode())
    digest.update(np.ascontiguousarray(values).data)
    digest.update(json.dumps(None if beside is None else np.asarray(beside).tolist()).encode())
    return digest.hexdigest()


def _try_results(
    place: Path, request: UnmixRequest, experiments: Experiments, truth: Truth, known: NamedSpectra | None
) -> None:
    """Write all results for a few spectra and components, with the names and the axis of the real ones."""
    from types import SimpleNamespace

    spectra = experiments.spectra
    rows, bands = min(len(spectra.data), MOST_TRIED), spectra.data.shape[1]
    counts = [
        table.shape[axis] for table, axis in ((truth.components, 0), (truth.concentrations, 1)) if table is not None
    ]
    count = min([*counts, MOST_TRIED])
    components = np.ones((count, bands), np.float32)
    concentrations = np.arange(1, rows * count + 1, dtype=np.float32).reshape(rows, count)
    few = Truth(
        None if truth.components is None else truth.components[:count],
        None if truth.concentrations is None else truth.concentrations[:rows, :count],
        truth.names,
    )
    step = {"r2_from": 0.0, "r2_to": 1.0, "count": 1, "r2": 0.5, "nmse": 0.5, "epoch": 1, "cost": 0.0, "chosen": True}
    estimator = SimpleNamespace(
        components_=components,
        n_components_=count,
        component_ids_=list(range(count)),
        background_row_=None,
        count_curve_=[step],
        count_evidence_={"path": [step]},
        chosen_reason_="",
        stop_reason_="",
        history_=[step],
        save=lambda path: path.mkdir(),
    )
    few_spectra = few_of(spectra)
    names = component_names(np.arange(count), None, None if known is None else known.names)
    solution = Solution(components, concentrations, np.arange(count), None, names)
    write_solution(
        place,
        few_spectra,
        solution,
        axis_label=request.axis_label,
        truth=few,
        agreement=compare(components, concentrations, few),
        nmse=0.5,
    )
    # Names of files may be no names of results.
    tried = experiments.parts if experiments.beside else [replace(part, names=None) for part in experiments.parts]
    every = np.ones((sum(len(part.data) for part in tried), count), np.float32)
    _write_parts(place, replace(experiments, parts=tried), replace(solution, concentrations=every), request.axis_label)
    _write_search(place, estimator, 0.5)
    (place / "model" / "param.json").touch()
    if request.feasible_bands is not False:
        from spectrafuse.mcr.feasible_bands import feasible_bands

        spectrum, profile = np.ones((1, bands)), np.ones((rows, 1))
        _write_bands(place, feasible_bands(profile, spectrum, 0.0), request, few_spectra, solution.names[:1])


def few_of(spectra: Spectra) -> Spectra:
    """The first few spectra, for results that are tried."""
    rows = min(len(spectra.data), MOST_TRIED)
    return replace(
        spectra,
        data=spectra.data[:rows],
        names=spectra.names and spectra.names[:rows],
        process=spectra.process and (spectra.process[0], spectra.process[1][:rows]),
        positions=None,
        grid=spectra.grid and replace(spectra.grid, shape=(1, rows), pixels=np.arange(rows)),
    )


def _fit_and_write(
    request: UnmixRequest,
    experiments: Experiments,
    truth: Truth,
    known: NamedSpectra | None,
    inputs: list[dict[str, Any]],
    folder: RunFolder,
    console: Console,
) -> None:
    from spectrafuse.mcr.constraints import Closure, Constraint, Trilinear, Unimodal
    from spectrafuse.mcr.estimator import EBgMCR

    spectra = experiments.spectra
    constraints: list[Constraint] = [Unimodal()] if request.unimodal else []
    if request.trilinear:
        constraints.append(Trilinear())
    if request.closure is not None:
        constraints.append(Closure(request.closure))
    first: dict[str, Any] = {"sample_weight": experiments.sample_weight}
    if experiments.runs:
        first["runs"] = [size for _, size in experiments.runs]
    if known is not None:
        first |= {"components": known.components, "fixed": np.full(len(known.components), request.fixed)}
    estimator = EBgMCR(**request.settings, constraints=constraints or None)
    fit_in_folder(estimator, spectra, folder, "unmixing", **first)
    components = np.asarray(estimator.components_)
    # Of the fit: `transform` knows no weights, and no constraints beyond single spectra.
    concentrations = np.asarray(estimator.C_opt_)
    share = shares(components, concentrations)
    order = by_share(share, estimator.background_row_)
    background = None if estimator.background_row_ is None else len(order) - 1
    components, concentrations, share = components[order], concentrations[:, order], share[order]
    r2, nmse = reconstruction_scores(spectra.data, concentrations @ components)
    agreement = compare(components, concentrations, truth)
    ids = np.asarray(estimator.component_ids_)[order]
    names = component_names(ids, background, None if known is None else known.names)
    solution = Solution(components, concentrations, ids, background, names)
    record = {
        "inputs": inputs,
        "parameters": {**estimator.get_params(), "constraints": [one.name for one in constraints]},
        "seed": request.settings.get("random_state"),
        "device": str(next(estimator.model_.parameters()).device),
        "epochs": getattr(estimator, "n_iter_", None),
        "stop_reason": estimator.stop_reason_,
        "chosen_reason": estimator.chosen_reason_,
        "n_components": int(estimator.n_components_),
        "component_ids": solution.ids,
        "background_row": background,
        "shares": share,
        "r2": r2,
        "nmse": nmse,
        "lack_of_fit_percent": 100 * nmse**0.5,
        "mean_concentrations": concentrations.mean(axis=0),
        "count_curve": estimator.count_curve_,
        "constraints": estimator.constraint_reports_,
        "count_evidence": estimator.count_evidence_,
        "compactions": [one._asdict() for one in estimator.compactions_],
        "scores": None if agreement is None else {"matching": agreement.how, "pairs": agreement.rows},
    }
    bands = None
    if _wants_bands(request, estimator, spectra.data.size):
        with waiting("looking for feasible bands"):
            kept = np.array([i for i in order if i != estimator.background_row_])
            bands = estimator.feasible_bands(spectra.data, runs=first.get("runs")).ordered(kept)
        record["feasible_bands"] = {
            **{name: getattr(bands, name) for name in ("lowest", "highest", "contribution", "cosine", "method")},
            "sentences": bands.told(solution.names[: len(bands.lowest)]),
        }
    estimator.arrange(order, names)
    if estimator.count_evidence_ is not None:
        record["count_evidence"] = {**estimator.count_evidence_, "cautions": estimator.cautions_}
    blocks = _summary(record, agreement)
    with waiting("writing"), folder.results(record) as results:
        if bands is not None:
            _write_bands(results, bands, request, spectra, solution.names[: len(bands.lowest)])
        write_solution(
            results,
            spectra,
            solution,
            axis_label=request.axis_label,
            truth=truth,
            agreement=agreement,
            nmse=nmse,
            runs=experiments.runs,
        )
        _write_parts(results, experiments, solution, request.axis_label)
        _write_search(results, estimator, r2)
        title = f"Unmixing of {request.spectra.name}"
        folder.write_report(results, record, title=title, blocks=blocks, captions=CAPTIONS)
    print_blocks(console, blocks)
    picture = "concentration_maps" if spectra.grid else "concentrations"
    loss = "loss.png, " if record["epochs"] else ""
    console.print(
        f"Results are in '{request.output}': report.html (all on one page), components.png, {picture}.png, "
        f"residuals.png, count_path.png, {loss}components.csv, concentrations.csv, run.json, model/"
    )


def shares(components: np.ndarray, concentrations: np.ndarray) -> np.ndarray:
    """Share (k,) of the components in the spectra: mean concentration times the sum of the spectrum's sizes, of all."""
    sizes = np.abs(concentrations).mean(axis=0) * np.abs(components).sum(axis=1)
    return sizes / max(float(sizes.sum()), 1e-30)


def by_share(share: np.ndarray, background: int | None) -> np.ndarray:
    """The components' order, (k,): from the largest share to the smallest, a background last."""
    order = np.argsort(-share, kind="stable")
    return order if background is None else np.append(order[order != background], background)


def _wants_bands(request: UnmixRequest, estimator: Any, size: int) -> bool:
    """Whether feasible bands are asked for, or cost little."""
    count = len(estimator.component_ids_)
    if request.feasible_bands is None:
        if not estimator.non_negative_concentrations:
            return False
        return 1 < count <= MOST_BANDS and size <= LARGEST_FOR_BANDS
    return request.feasible_bands and count > 0


def reconstruction_scores(data: np.ndarray, reconstruction: np.ndarray) -> tuple[float, float]:
    """R2 against the column means, and nMSE = sum of squared residuals / sum of squares."""
    from spectrafuse.mcr.metrics import nmse_of, r2_of

    x = data.astype(np.float64)
    residual = float(np.nansum((x - reconstruction) ** 2))
    variation, power = float(np.nansum((x - np.nanmean(x, axis=0)) ** 2)), float(np.nansum(x * x))
    return r2_of(residual, variation), nmse_of(residual, power)


def correlations(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Pearson correlations `(n, m)` of the columns of two tables; 0 for a constant column."""
    a, b = found - found.mean(axis=0), true - true.mean(axis=0)
    norms = np.linalg.norm(a, axis=0)[:, None] * np.linalg.norm(b, axis=0)[None, :]
    return np.divide(a.T @ b, norms, out=np.zeros_like(norms), where=norms > 0)


def compare(components: np.ndarray, concentrations: np.ndarray, truth: Truth) -> Agreement | None:
    """Match found components to known ones: by spectra if those are known, else by concentrations."""
    from spectrafuse.mcr.matching import Match, match_components, score_concentrations

    if (truth.components is None and truth.concentrations is None) or not len(components):
        return None
    if truth.components is not None:
        match = match_components(components, truth.components)
        how, measure = "components matched to true spectra by the Hungarian method on cosines", "cosine"
    else:
        from scipy.optimize import linear_sum_assignment

        assert truth.concentrations is not None
        matrix = correlations(concentrations.astype(np.float64), truth.concentrations.astype(np.float64))
        found, true = linear_sum_assignment(-matrix)
        order = np.argsort(true)
        found, true = found[order], true[order]
        unused = (np.setdiff1d(np.arange(n), used) for n, used in zip(matrix.shape, (found, true), strict=True))
        match = Match(found, true, matrix[found, true], *unused)
        how, measure = (
            "components matched to true concentrations by the Hungarian method on correlations",
            "correlation",
        )
    rows: list[dict[str, Any]] = [
        {"index": int(f), "true": truth.names[t] if truth.names else int(t), measure: float(c)}
        for f, t, c in zip(match.found, match.true, match.cosine, strict=True)
    ]
    if truth.concentrations is not None:
        scores = score_concentrations(concentrations, truth.concentrations, match)
        for index, row in enumerate(rows):
            row.update({name: float(getattr(scores, name)[index]) for name in ("scale", "rmse", "r2", "nmse")})
    pairs = {int(f): (int(t), float(c)) for f, t, c in zip(match.found, match.true, match.cosine, strict=True)}
    return Agreement(pairs, how, rows)


def _axis_label(asked: str | None, spectra: Spectra) -> str:
    from spectrafuse.io import axes

    if asked is not None:
        return asked
    return "band number" if spectra.axis is None else axes.axis_label(spectra.axis_title, spectra.axis_unit)


def _spectral(asked: str | None, spectra: Spectra) -> dict[str, Any]:
    """How pictures draw the axis of the bands."""
    from spectrafuse.io import axes

    axis = spectra.axis
    falling = axis is not None and axes.falls(spectra.axis_title, spectra.axis_unit, axis)
    return {"axis": axis, "axis_label": _axis_label(asked, spectra), "falling": falling}


def _write_bands(
    place: Path, bands: FeasibleBands, request: UnmixRequest, spectra: Spectra, names: Sequence[str]
) -> None:
    """The tables and the picture of feasible bands."""
    from spectrafuse.reports.feasible_bands import save_feasible_bands

    bands.write(place, axis=spectra.axis, names=spectra.names)
    save_feasible_bands(
        place / "feasible_bands.png",
        bands,
        names=names,
        **_spectral(request.axis_label, spectra),
    )


def write_solution(
    results: Path,
    spectra: Spectra,
    solution: Solution,
    *,
    axis_label: str | None,
    truth: Truth,
    agreement: Agreement | None,
    nmse: float,
    runs: Sequence[tuple[str, int]] = (),
) -> None:
    """Write components and concentrations into a folder, as tables and pictures."""
    from spectrafuse.io.results import write_components, write_concentrations, write_maps
    from spectrafuse.reports.unmixing import (
        save_against_truth,
        save_components,
        save_concentration_maps,
        save_concentrations,
        save_residuals,
    )

    components, concentrations, names = solution.components, solution.concentrations, solution.names
    axis, spectral = spectra.axis, _spectral(axis_label, spectra)
    process = spectra.process
    along: dict[str, Any] = {
        "sample_label": "spectrum number, as in the file" if process is None else process[0],
        "positions": None if process is None else process[1],
    }
    if runs:
        along = {"sample_label": "spectrum number, run after run", "positions": None}
    write_components(results, components, axis, ids=solution.ids, names=names)
    write_concentrations(
        results,
        concentrations,
        ids=solution.ids,
        names=spectra.names or [str(i + 1) for i in range(len(concentrations))],
        components=names,
        title="spectrum" if process is None or spectra.names is None else process[0],
    )
    pairs = agreement.pairs if agreement is not None else {}
    save_components(
        results / "components.png",
        components,
        names=names,
        weights=concentrations.mean(axis=0),
        truth=truth.components,
        match=pairs,
        truth_names=truth.names,
        **spectral,
    )
    if spectra.grid is None:
        save_concentrations(results / "concentrations.png", concentrations, names=names, runs=runs, **along)
    else:
        maps = spectra.grid.maps(concentrations)
        write_maps(results, maps, names, place=spectra.grid.place)
        save_concentration_maps(results / "concentration_maps.png", maps, names=names)
    save_residuals(
        results / "residuals.png",
        spectra.data,
        concentrations @ components,
        lack_of_fit=100 * nmse**0.5,
        **spectral,
        **along,
    )
    if agreement is not None and truth.concentrations is not None:
        measured = correlations(concentrations.astype(np.float64), truth.concentrations.astype(np.float64))
        save_against_truth(
            results / "concentrations_against_true.png",
            concentrations,
            truth.concentrations,
            {component: true for component, (true, _) in pairs.items()},
            names=names,
            scores={
                row["index"]: f"correlation {measured[row['index'], pairs[row['index']][0]]:.3f}, R² {row['r2']:.3f}"
                for row in agreement.rows
            },
            truth_names=truth.names,
        )


def _write_parts(results: Path, experiments: Experiments, solution: Solution, axis_label: str | None) -> None:
    """Tables of the concentrations of each run, and tables and pictures of the spectra from each instrument."""
    from spectrafuse.io.results import write_components, write_concentrations
    from spectrafuse.reports.unmixing import save_components

    start = 0
    for (run, size), part in zip(experiments.runs, experiments.parts, strict=False):
        write_concentrations(
            results,
            solution.concentrations[start : start + size],
            ids=solution.ids,
            names=part.names or [str(i + 1) for i in range(size)],
            components=solution.names,
            name=f"concentrations_{run}",
        )
        start += size
    for name, part, bands in experiments.instruments:
        components = solution.components[:, bands]
        write_components(
            results, components, part.axis, ids=solution.ids, names=solution.names, name=f"components_{name}"
        )
        save_components(
            results / f"components_{name}.png",
            components,
            names=solution.names,
            weights=solution.concentrations.mean(axis=0),
            **_spectral(axis_label, part),
        )


def _write_search(results: Path, estimator: Any, r2: float) -> None:
    """Write how the count was found, and the model of a fitted estimator, into a folder."""
    from spectrafuse.reports.style import save_curves
    from spectrafuse.reports.unmixing import save_count_curve, save_count_path

    curve, count = list(estimator.count_curve_), int(estimator.n_components_)
    _write_table(results / "count_curve.csv", CURVE_COLUMNS, curve)
    if estimator.count_evidence_ is not None:
        path = estimator.count_evidence_["path"]
        _write_table(results / "count_path.csv", PATH_COLUMNS, path)
        save_count_path(results / "count_path.png", path, reason=estimator.chosen_reason_)
    save_count_curve(
        results / "count_curve.png",
        curve,
        chosen=(r2, count) if np.isfinite(r2) and count else None,
        reason=estimator.chosen_reason_,
    )
    if estimator.history_:
        save_curves(
            results / "loss.png",
            estimator.history_,
            keys=("nmse", "r2", "count"),
            logarithmic=("nmse",),
            names={"nmse": "nMSE", "r2": "R²", "count": "components in use"},
            title=f"Training. {estimator.stop_reason_}",
        )
    estimator.save(results / "model")


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    lines = [",".join(columns), *(",".join(str(row[column]) for column in columns) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _summary(record: dict[str, Any], agreement: Agreement | None) -> list[Block]:
    """What a person is told at the end."""
    from spectrafuse.mcr.constraints import Report
    from spectrafuse.reports.page import Caution, Grid

    count = record["n_components"]
    by_component = {row["index"]: row for row in agreement.rows} if agreement is not None else {}
    measures = [m for m in ("cosine", "correlation", "r2", "rmse") if any(m in r for r in by_component.values())]
    columns = ["component", "share", "mean concentration"]
    columns += ["true component", *measures] if by_component else []
    grid = Grid(f"{count} component{'s' * (count != 1)}", columns, left=("true component",))
    for index in range(count):
        name = "background" if index == record["background_row"] else str(index + 1)
        cells = [name, f"{100 * record['shares'][index]:.1f} %", f"{record['mean_concentrations'][index]:.4g}"]
        if by_component:
            row = by_component.get(index)
            cells += ["-"] * (1 + len(measures)) if row is None else [str(row["true"])]
            cells += [f"{row[measure]:.3f}" for measure in measures] if row is not None else []
        grid.rows.append(cells)
    blocks: list[Block] = [grid, f"R2 {record['r2']:.4f}, lack of fit {record['lack_of_fit_percent']:.3g} %"]
    if agreement is not None:
        blocks.append(f"Compared with the truth: {agreement.how}.")
    blocks.append(record["chosen_reason"])
    blocks += [Report(**report).sentence for report in record["constraints"]]
    blocks += [Caution(text) for text in (record["count_evidence"] or {}).get("cautions", ())]
    blocks += record.get("feasible_bands", {}).get("sentences", ())
    return [*blocks, record["stop_reason"]]
