"""The command line: `spectrafuse segment | unmix | apply | info | profile | demo | doctor`.

Only typer is imported here; each command imports what it needs when it runs, so `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from spectrafuse.cli.terminal import INTERRUPTED, CommandError, catch_interrupts, friendly

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
profiles = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(profiles, name="profile", help="Show what takes the time in `segment` or `unmix`, and what would help.")


class RecipeName(str, Enum):
    """Recipes that both algorithms have."""

    corrected = "corrected"
    published = "published"


class UnmixRecipeName(str, Enum):
    """Recipes of EB-gMCR."""

    corrected = "corrected"
    trained = "trained"
    published = "published"


class LayoutName(str, Enum):
    """Order of a cube's axes in its file."""

    auto = "auto"
    chw = "chw"
    hwc = "hwc"
    hcw = "hcw"
    cwh = "cwh"


class PlaceName(str, Enum):
    """Where a spectrum stands in a table."""

    auto = "auto"
    rows = "rows"
    columns = "columns"


class DecimalName(str, Enum):
    """Decimal sign of a table."""

    auto = "auto"
    point = "point"
    comma = "comma"


class DropName(str, Enum):
    """What is left out where values are missing."""

    channels = "channels"
    bands = "bands"
    spectra = "spectra"


class PreferenceName(str, Enum):
    """Which of mixtures that fit equally well is taken."""

    first = "first"
    pure = "pure"
    smooth = "smooth"
    least_volume = "least volume"


class NormalizationName(str, Enum):
    """Methods of `spectrafuse.dgc.normalise.Normalization`, or chosen from the scenes."""

    auto = "auto"
    meanstd = "meanstd"
    minmax = "minmax"
    unit = "unit"
    snv = "snv"
    unit_meanstd = "unit+meanstd"
    signal_meanstd = "signal+meanstd"


TRAINING = "Training"
READING = "Reading the file"
KNOWN = "What is known"
SIGNS = "Signs"
RESULTS = "Results"
SCORING = "Comparing with the truth"

OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the results. An interrupted run in it is resumed.")
]
RecipeOption = Annotated[
    RecipeName,
    typer.Option(help="corrected: what the paper describes; published: what its code does, mistakes included."),
]
SeedOption = Annotated[
    int,
    typer.Option(min=0, help="Random seed. On the CPU, the same seed gives the same result.", rich_help_panel=TRAINING),
]
EpochsOption = Annotated[
    int | None, typer.Option(min=1, help="Most epochs to train for. Default: the recipe's.", rich_help_panel=TRAINING)
]
RateOption = Annotated[
    float | None, typer.Option(help="Learning rate of the optimizer. Default: the recipe's.", rich_help_panel=TRAINING)
]
DeviceOption = Annotated[
    str | None,
    typer.Option(help="cpu, cuda or cuda:1. Default: the GPU if there is one.", rich_help_panel=TRAINING),
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads. Default: as many as torch chooses.", rich_help_panel=TRAINING)
]
RestartOption = Annotated[
    bool,
    typer.Option("--restart", help="Start from the beginning and replace earlier results in the folder."),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        help="Variable in a .mat, .npz or HDF5 file: 'hsi.Data', 'group/name'. Default: found by name and shape.",
        rich_help_panel=READING,
    ),
]


LayoutOption = Annotated[
    LayoutName,
    typer.Option(
        help="Order of a scene's axes: c for bands, h for rows, w for columns; hwc is rows, columns, bands.",
        rich_help_panel=READING,
    ),
]
NodataOption = Annotated[
    float | None,
    typer.Option(
        help="Value that marks pixels of a scene without data, or nan, or missing values of a table. Default: what "
        "an ENVI header says.",
        rich_help_panel=READING,
    ),
]
SceneBandsOption = Annotated[
    str | None,
    typer.Option(
        help="Bands of a scene to use, counted from 0: '0-95,110-'; or by wavelength: '450-900nm'.",
        rich_help_panel=READING,
    ),
]
DropOption = Annotated[
    str | None,
    typer.Option(
        help="Bands of a scene to leave out: '1340-1460nm,1790-1960nm' or '0-3,220-'.", rich_help_panel=READING
    ),
]
MaskOption = Annotated[
    str | None,
    typer.Option(
        help="Pixels of a scene to leave out: a map that is 1 there, or LabelMe shapes.",
        metavar="FILE[:KEY]",
        rich_help_panel=READING,
    ),
]
AllBandsOption = Annotated[
    bool,
    typer.Option(
        "--all-bands", help="Use bands that the file calls bad or that are empty, too.", rich_help_panel=READING
    ),
]


SceneSizeOption = Annotated[
    tuple[int, int] | None,
    typer.Option(
        help="Rows and columns of a scene, if the file holds a bands x pixels matrix.",
        metavar="ROWS COLUMNS",
        rich_help_panel=READING,
    ),
]
HeaderOption = Annotated[
    bool | None,
    typer.Option(help="The table has a header row, or none. Default: found out.", rich_help_panel=READING),
]
IndexOption = Annotated[
    bool | None,
    typer.Option(help="The first column holds sample names, or numbers. Default: found out.", rich_help_panel=READING),
]
SpectraInOption = Annotated[
    PlaceName,
    typer.Option(help="Where a spectrum stands: in rows or columns. Default: found out.", rich_help_panel=READING),
]
TransposeOption = Annotated[
    bool, typer.Option("--transpose", help="The same as --spectra-in columns.", rich_help_panel=READING)
]
TableColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="Columns of the table to read, from 1 or by title: '1,4-63'. Default: all.",
        rich_help_panel=READING,
    ),
]
DecimalOption = Annotated[
    DecimalName, typer.Option(help="Decimal sign of the table. Default: found out.", rich_help_panel=READING)
]
DropMissingOption = Annotated[
    DropName | None,
    typer.Option(
        help="Leave out channels (or bands, the same) or spectra with missing values. Default: these values alone.",
        rich_help_panel=READING,
    ),
]
MasksOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Pixels to leave out: a map that is 1 there, or LabelMe shapes. Once per scene.",
        metavar="FILE[:KEY]",
        rich_help_panel=READING,
    ),
]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option(help="True labels to compare with. Once per scene.", metavar="FILE[:KEY]", rich_help_panel=SCORING),
]
IgnoreLabelOption = Annotated[
    int | None, typer.Option(help="Value in --labels that means not labeled.", rich_help_panel=SCORING)
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        help="Memory for labeling a scene strip by strip, such as 700MB. Default: 256MiB.",
        metavar="SIZE",
        rich_help_panel=READING,
    ),
]


def _place_of_spectra(spectra_in: PlaceName, transpose: bool) -> str:
    """`--spectra-in` and `--transpose` as one."""
    if transpose and spectra_in is PlaceName.rows:
        raise CommandError("--transpose and --spectra-in rows say the opposite; give one of them.")
    return "columns" if transpose else spectra_in.value


def _given(**settings: Any) -> dict[str, Any]:
    """The settings that were given, as plain values; the estimator's own defaults stand for the others."""
    return {
        name: value.value if isinstance(value, Enum) else value for name, value in settings.items() if value is not None
    }


def _show_version(wanted: bool) -> None:
    if wanted:
        from spectrafuse import __version__

        typer.echo(f"spectrafuse {__version__}")
        raise typer.Exit


@app.callback()
def spectrafuse(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Segment hyperspectral scenes and unmix spectra, without labels.

    Stop a long command with Ctrl-C; the same command resumes it.
    """


@profiles.callback()
def _quiet() -> None:
    # torch reads these when it is loaded; without them its profiler writes whenever it starts or stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _carry_out(context: typer.Context, request: Any, run: Callable[[Any], None]) -> None:
    """Do what was asked for, or, under `spectrafuse profile`, record the beginning of it."""
    if context.parent is not None and context.parent.info_name == "profile":
        from spectrafuse.cli.profile import profile as run
    run(request)


@profiles.command()
@app.command()
@friendly
def segment(
    context: typer.Context,
    scenes: Annotated[
        list[Path],
        typer.Argument(help="Hyperspectral cubes: ENVI, GeoTIFF, .mat, .h5, .nc, .npy, .npz, .zarr.", metavar="SCENE"),
    ],
    output: OutputOption,
    n_clusters: Annotated[int, typer.Option(min=1, help="Number of clusters (materials) to look for.")] = 4,
    recipe: RecipeOption = RecipeName.corrected,
    network: Annotated[
        bool | None,
        typer.Option(
            "--network/--no-network",
            help="Train a network on the labels that spectra give, or only make these agree with their like around "
            "them. Default: only if an option is about training.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    merge: Annotated[str | None, typer.Option(help="Merge clusters: '0=0,2;1=1' makes 0 of clusters 0 and 2.")] = None,
    tree: Annotated[
        bool, typer.Option("--tree", help="Show fewer clusters too, and how they merge: tree.png.")
    ] = False,
    restart: RestartOption = False,
    key: KeyOption = None,
    layout: LayoutOption = LayoutName.auto,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rows of the scene, if the file holds a bands x pixels matrix.", rich_help_panel=READING
        ),
    ] = None,
    columns: Annotated[
        int | None,
        typer.Option(
            min=1, help="Columns of the scene, if the file holds a bands x pixels matrix.", rich_help_panel=READING
        ),
    ] = None,
    nodata: NodataOption = None,
    mask: MasksOption = None,
    bands: SceneBandsOption = None,
    drop: DropOption = None,
    all_bands: AllBandsOption = False,
    max_memory: MaxMemoryOption = None,
    labels: LabelsOption = None,
    ignore_label: IgnoreLabelOption = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Class names in LabelMe --labels, numbered from 0 (background), or a JSON file of names and numbers.",
            metavar="NAME,NAME,...",
            rich_help_panel=SCORING,
        ),
    ] = None,
    max_epoch: EpochsOption = None,
    crop_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Height and width of the training crops, in pixels. Default: the recipe's.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Crop pairs per training step. Default: the recipe's.", rich_help_panel=TRAINING),
    ] = None,
    learning_rate: RateOption = None,
    normalization: Annotated[
        NormalizationName | None,
        typer.Option(help="Normalization of the spectra. Default: the recipe's.", rich_help_panel=TRAINING),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Segment hyperspectral scenes without labels (Deep Global Clustering).

    [bold]spectrafuse segment[/] scene.mat --n-clusters 4 --output out/
    """
    from spectrafuse.cli.scene_options import parse_bands_options
    from spectrafuse.cli.segment import SegmentRequest, parse_bytes, parse_classes, parse_merge
    from spectrafuse.cli.segment import segment as run

    settings = _given(
        n_clusters=n_clusters,
        recipe=recipe,
        network=network,
        crop_size=crop_size,
        batch_size=batch_size,
        max_epoch=max_epoch,
        learning_rate=learning_rate,
        normalization=normalization,
        random_state=seed,
        device=device,
        nodata=None if nodata is None else str(nodata),
        bands=parse_bands_options(bands, drop, all_bands),
        max_memory=parse_bytes(max_memory),
    )
    _carry_out(
        context,
        SegmentRequest(
            scenes=scenes,
            output=output,
            settings=settings,
            key=key,
            layout=layout.value,
            rows=rows,
            columns=columns,
            labels=labels or [],
            ignore_label=ignore_label,
            classes=parse_classes(classes),
            masks=mask or [],
            merge=parse_merge(merge),
            tree=tree,
            threads=threads,
            restart=restart,
        ),
        run,
    )


@profiles.command()
@app.command()
@friendly
def unmix(
    context: typer.Context,
    spectra: Annotated[
        list[Path],
        typer.Argument(
            help="Spectra in a table (.csv, .txt, .xlsx, ...), .spc, .spa, .wdf, .npy or .mat, or a scene. Several are "
            "runs that share their components.",
            metavar="SPECTRA",
        ),
    ],
    output: OutputOption,
    n_components: Annotated[
        int | None,
        typer.Option(min=1, help="Exactly so many components. The summary says how many the spectra ask for."),
    ] = None,
    max_components: Annotated[int | None, typer.Option(min=1, help="At most so many components.")] = None,
    pool_size: Annotated[int, typer.Option(min=1, help="Places for components.")] = 1024,
    recipe: Annotated[
        UnmixRecipeName,
        typer.Option(
            help="corrected: candidates chosen among the spectra, no training; trained: candidates from trained "
            "networks; published: as the paper's code."
        ),
    ] = UnmixRecipeName.corrected,
    non_negative: Annotated[
        bool,
        typer.Option(help="Keep component spectra at or above zero, or let them be negative.", rich_help_panel=SIGNS),
    ] = True,
    non_negative_concentrations: Annotated[
        bool, typer.Option(help="Keep concentrations at or above zero, or let them be negative.", rich_help_panel=SIGNS)
    ] = True,
    prefer: Annotated[
        PreferenceName | None,
        typer.Option(
            help="Of mixtures that fit equally well take the one that was found first, that the purest spectra lead "
            "to, of smoothest spectra, or of least volume. Default: one with most values that may be zero."
        ),
    ] = None,
    sparse: Annotated[bool, typer.Option("--sparse", help="Let each component use some bands only.")] = False,
    background: Annotated[
        bool,
        typer.Option(
            "--background", help="Add a constant baseline that is not counted as a component.", rich_help_panel=KNOWN
        ),
    ] = False,
    noise: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Standard deviation of the noise. Default: estimated from the data.", rich_help_panel=KNOWN
        ),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(
            help="Known spectra, with their names: the first components start as these.", rich_help_panel=KNOWN
        ),
    ] = None,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Spectra of --known stay as they are.", rich_help_panel=KNOWN)
    ] = False,
    unimodal: Annotated[
        bool,
        typer.Option(
            "--unimodal",
            help="Concentrations have one maximum along the spectra, as in elution.",
            rich_help_panel=KNOWN,
        ),
    ] = False,
    closure: Annotated[
        float | None,
        typer.Option(min=0.0, help="Concentrations of each spectrum add up to this number.", rich_help_panel=KNOWN),
    ] = None,
    trilinear: Annotated[
        bool,
        typer.Option(
            "--trilinear",
            help="A component has one profile in all runs, of another size in each.",
            rich_help_panel=KNOWN,
        ),
    ] = False,
    side_by_side: Annotated[
        bool,
        typer.Option(
            "--side-by-side",
            help="Several files are of the same samples, from different instruments.",
            rich_help_panel=KNOWN,
        ),
    ] = False,
    robust: Annotated[
        bool,
        typer.Option("--robust", help="Remove spikes of single spectra, such as cosmic rays, before the fit."),
    ] = False,
    feasible_bands: Annotated[
        bool | None,
        typer.Option(
            help="Say how far spectra and concentrations could be others that fit as well. Default: up to 5 "
            "components.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    restart: RestartOption = False,
    key: KeyOption = None,
    header: HeaderOption = None,
    index: IndexOption = None,
    spectra_in: SpectraInOption = PlaceName.auto,
    transpose: TransposeOption = False,
    table_columns: TableColumnsOption = None,
    decimal: DecimalOption = DecimalName.auto,
    drop_missing: DropMissingOption = None,
    layout: LayoutOption = LayoutName.auto,
    scene_size: SceneSizeOption = None,
    nodata: NodataOption = None,
    mask: MaskOption = None,
    bands: SceneBandsOption = None,
    drop: DropOption = None,
    all_bands: AllBandsOption = False,
    axis_label: Annotated[
        str | None,
        typer.Option(
            help="Name of the spectral axis for the pictures, such as 'Raman shift (cm⁻¹)'.", rich_help_panel=RESULTS
        ),
    ] = None,
    true_components: Annotated[
        Path | None, typer.Option(help="True spectra of the components, to compare with.", rich_help_panel=SCORING)
    ] = None,
    true_concentrations: Annotated[
        Path | None, typer.Option(help="True concentrations, to compare with.", rich_help_panel=SCORING)
    ] = None,
    max_epoch: EpochsOption = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Spectra per training step. Default: the recipe's.", rich_help_panel=TRAINING),
    ] = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Unmix spectra and find how many components there are (EB-gMCR).

    [bold]spectrafuse unmix[/] spectra.csv --output out/
    """
    from spectrafuse.cli.scene_options import parse_bands_options
    from spectrafuse.cli.unmix import UnmixRequest
    from spectrafuse.cli.unmix import unmix as run

    if n_components is not None and max_components is not None:
        raise CommandError("Give --n-components or --max-components, not both.")
    if fixed and known is None:
        raise CommandError("--fixed is about the spectra of --known, which is not given.")
    if closure is not None and not closure > 0:
        raise CommandError(f"--closure must be above 0; got {closure:g}.")
    settings = _given(
        n_components=n_components,
        max_components=max_components,
        pool_size=pool_size,
        recipe=recipe,
        non_negative=non_negative,
        non_negative_concentrations=non_negative_concentrations,
        prefer=prefer,
        sparse=sparse,
        background=background,
        noise=noise,
        robust=robust,
        batch_size=batch_size,
        max_epoch=max_epoch,
        learning_rate=learning_rate,
        random_state=seed,
        device=device,
    )
    _carry_out(
        context,
        UnmixRequest(
            spectra=spectra[0],
            more=tuple(spectra[1:]),
            side_by_side=side_by_side,
            trilinear=trilinear,
            output=output,
            settings=settings,
            key=key,
            header="auto" if header is None else header,
            index="auto" if index is None else index,
            spectra_in=_place_of_spectra(spectra_in, transpose),
            columns=table_columns,
            decimal=decimal.value,
            drop_missing=None if drop_missing is None else drop_missing.value,
            layout=layout.value,
            nodata=nodata,
            bands=parse_bands_options(bands, drop, all_bands),
            mask=mask,
            scene_size=scene_size,
            axis_label=axis_label,
            true_components=true_components,
            true_concentrations=true_concentrations,
            threads=threads,
            restart=restart,
            feasible_bands=feasible_bands,
            unimodal=unimodal,
            closure=closure,
            known=known,
            fixed=fixed,
        ),
        run,
    )


def _reading(
    key: str | None,
    header: bool | None,
    index: bool | None,
    spectra_in: str,
    columns: str | None,
    decimal: DecimalName,
    drop_missing: DropName | None,
    layout: LayoutName,
    scene_size: tuple[int, int] | None,
    nodata: float | None,
) -> dict[str, Any]:
    """The options of reading that were given."""
    chosen = {"spectra_in": spectra_in, "decimal": decimal.value, "layout": layout.value}
    return _given(
        key=key,
        header=header,
        index=index,
        columns=columns,
        drop_missing=drop_missing,
        scene_size=scene_size,
        nodata=nodata,
        **{name: None if value == "auto" else value for name, value in chosen.items()},
    )


@app.command()
@friendly
def apply(
    model: Annotated[
        Path,
        typer.Argument(help="Output folder of `segment` or `unmix`, or the folder 'model' in it.", metavar="MODEL"),
    ],
    files: Annotated[list[Path], typer.Argument(help="New scenes, or tables of new spectra.", metavar="FILE")],
    output: OutputOption,
    restart: RestartOption = False,
    key: KeyOption = None,
    layout: LayoutOption = LayoutName.auto,
    scene_size: SceneSizeOption = None,
    nodata: NodataOption = None,
    mask: MasksOption = None,
    max_memory: MaxMemoryOption = None,
    header: HeaderOption = None,
    index: IndexOption = None,
    spectra_in: SpectraInOption = PlaceName.auto,
    transpose: TransposeOption = False,
    table_columns: TableColumnsOption = None,
    decimal: DecimalOption = DecimalName.auto,
    drop_missing: DropMissingOption = None,
    runs: Annotated[
        bool,
        typer.Option("--runs", help="Each file is a run, as in `unmix`: constraints that link its spectra are obeyed."),
    ] = False,
    labels: LabelsOption = None,
    ignore_label: IgnoreLabelOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Use a stored model on new data: labels of scenes, or concentrations of spectra; nothing is trained.

    [bold]spectrafuse apply[/] out/ new.mat --output new/
    """
    from spectrafuse.cli.apply import ApplyRequest
    from spectrafuse.cli.apply import apply as run
    from spectrafuse.cli.segment import parse_bytes

    place = _place_of_spectra(spectra_in, transpose)
    run(
        ApplyRequest(
            model=model,
            files=files,
            output=output,
            device=device,
            max_memory=parse_bytes(max_memory),
            reading=_reading(
                key, header, index, place, table_columns, decimal, drop_missing, layout, scene_size, nodata
            ),
            masks=mask or [],
            labels=labels or [],
            ignore_label=ignore_label,
            threads=threads,
            restart=restart,
            runs=runs,
        )
    )


@app.command()
@friendly
def info(
    paths: Annotated[list[Path], typer.Argument(help="Scenes, tables of spectra, or model folders.", metavar="PATH")],
    key: KeyOption = None,
    layout: LayoutOption = LayoutName.auto,
    scene_size: SceneSizeOption = None,
    nodata: NodataOption = None,
    mask: MaskOption = None,
    bands: SceneBandsOption = None,
    drop: DropOption = None,
    all_bands: AllBandsOption = False,
    header: HeaderOption = None,
    index: IndexOption = None,
    spectra_in: SpectraInOption = PlaceName.auto,
    transpose: TransposeOption = False,
    table_columns: TableColumnsOption = None,
    decimal: DecimalOption = DecimalName.auto,
    drop_missing: DropMissingOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what a file holds as it would be read, or what a stored model is, before any long run.

    [bold]spectrafuse info[/] scene.hdr spectra.csv out/
    """
    from spectrafuse.cli.info import info as run
    from spectrafuse.cli.scene_options import parse_bands_options, read_mask

    place = _place_of_spectra(spectra_in, transpose)
    options = _reading(key, header, index, place, table_columns, decimal, drop_missing, layout, scene_size, nodata)
    chosen = parse_bands_options(bands, drop, all_bands)
    options |= _given(bands=chosen, mask=None if mask is None else read_mask(mask))
    run(paths, options, as_json=as_json)


@app.command()
@friendly
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for data and pictures.")] = Path("demo"),
    restart: RestartOption = False,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """Segment a real scene and unmix real spectra, in a few minutes (needs the extra 'demo')."""
    from spectrafuse.cli.demo import demo as run

    run(output, seed=seed, threads=threads, restart=restart)


@app.command()
@friendly
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what this machine can run, and why it cannot run the rest."""
    from spectrafuse.cli.doctor import examine, print_examination

    found = examine()
    if as_json:
        import json

        typer.echo(json.dumps(found, indent=2))
        return
    from spectrafuse.cli.terminal import output_console

    print_examination(found, output_console(markup=True))


def main() -> None:
    """Entry point of the console script."""
    catch_interrupts()
    try:
        app(prog_name="spectrafuse")
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        # Threads may still be inside kernels: where the interpreter ends under them, C++ aborts the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
