"""The `sg` command: what is not a stage."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sg import console, paths
from sg.errors import InputError, in_words

if TYPE_CHECKING:
    from rich.console import Console

    from sg.placing import Tally

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From raw CT scans to pre-trained 3-D networks and the statistics that judge them.",
)

patches = typer.Typer(no_args_is_help=True, help="Caches of patches: check them, look at them, make one.")
app.add_typer(patches, name="patches")


@app.command()
def use(
    config: Annotated[Path, typer.Argument(help="a complete configuration, such as configs/folder.yaml")],
) -> None:
    """Check a configuration and put it in place as params.yaml, never over uncommitted edits."""
    from sg.study import use

    console.say(use(config))


@app.command()
def check() -> None:
    """Check params.yaml: every key, type and range, and whether its sections agree."""
    from sg.stage import PARAMS, load

    load()
    console.say(f"{PARAMS}: no problem found")


@app.command()
def params() -> None:
    """Print the page that explains every parameter (docs/params.md)."""
    from sg.handbook import page

    sys.stdout.write(page())


@app.command()
def results() -> None:
    """Print the table of the last evaluation, and where the report is."""
    from sg.evaluation import results_table

    if not (paths.EVALUATE / "summary.csv").is_file():
        console.complain(f"{paths.EVALUATE}/summary.csv: there are no results yet; run `dvc repro`")
        raise typer.Exit(2)
    _page().print(results_table(paths.EVALUATE))
    console.say(f"report: {(paths.REPORT / 'index.html').resolve()}")


@app.command()
def accept(
    stages: Annotated[list[str], typer.Argument(help="stages as `dvc stage list` names them")],
) -> None:
    """Tell DVC that an edit of code or parameters changes no result of these stages, so that they need not rerun.

    DVC then records the outputs that lie here as those of the present code and parameters, unchecked: if the edit
    does change a result, every later reader of that record is served a stale one. For an edit of comments, names or
    speed only; when in doubt, `dvc repro`.
    """
    done = subprocess.run(["dvc", "commit", "--force", *stages], check=False)
    raise typer.Exit(done.returncode)


@app.command()
def scan(
    files: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="files and folders, however mixed and nested")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="write one JSON array to standard output, and nothing else there")
    ] = False,
    params_file: Annotated[
        Path | None,
        typer.Option("--params", metavar="FILE", help="a configuration whose cohort.limits to apply"),
    ] = None,
) -> None:
    """Say of any file or folder what scans it holds, and whether they can be used and why.

    Every scan is read to its end, in processes of their own: SG_WORKERS at a
    time, else one a core. The limits of size, spacing and intensity are those
    of params.yaml here, else of the project's configs/folder.yaml.

    Exit code: 0 if all can be used, 1 if any is refused, 2 for a wrong call.

    --json writes an object for each scan or refused file, sorted by path;
    null is what could not be learned. Sizes and positions are x, y, z in LPS.

    path: as given, or below a folder that was; of a DICOM series its folder
    files: how many the scan consists of
    format: NIfTI, MetaImage, NRRD or DICOM
    usable, rule, reason: true or false, and why not: a word and a sentence
    modality, patient, series: series is the SeriesInstanceUID
    size, spacing_mm, origin_mm: voxels, their distances, centre of the first
    direction: 3 x 3 by rows; the columns are the directions of the stored axes
    orientation: where the stored axes mainly lead, such as LPS
    oblique_degrees: angle between stored axes and the patient's
    tilt_degrees: how far stored axes are from right angles (a tilted gantry)
    low_hu, high_hu: least and largest value, unless damaged or no CT
    bytes: of the voxels, decoded
    """
    with _interruptible("scan"):
        _begin("sg.cli", "sg.inspection")
        from sg import inspection
        from sg.cohorts.walking import shown
        from sg.stage import workers

        limits, source = inspection.limits_of(params_file)
        print(f"limits: cohort.limits of {source}", file=sys.stderr)
        found = inspection.inspect(files, limits, workers())
    for warning in found.warnings:
        console.warn(shown(warning))
    # A terminal that lacks a character of a name is shown its number
    sys.stdout.reconfigure(errors="backslashreplace")
    if as_json:
        objects = ",\n".join(json.dumps(scan.as_dict(), allow_nan=False) for scan in found.scans)
        _write(f"[\n{objects}\n]\n")
        print(found.summary, file=sys.stderr)
    else:
        page = _page()
        with page.capture() as captured:
            for line in inspection.lines(found, files, page.width):
                page.print(line)
        _write(captured.get())
    raise typer.Exit(1 if found.refused else 0)


@patches.command("check")
def check_patches(
    caches: Annotated[
        list[Path], typer.Argument(metavar="CACHE", help="files such as data/patches/patterns.h5")
    ],
) -> None:
    """Say of caches of patches how many patches are good, and which are damaged and how.

    Every patch is read and its checksum tested, and every row held against the
    rules that a cache keeps, in processes of their own: SG_WORKERS at a time,
    else one a core. A file is refused as a whole if its structure fails its
    checksums, if it declares more than it stores, or if it leads to another
    file. Nothing is changed.

    Exit code: 0 if all is good, 1 if anything is damaged, 2 for a wrong call.
    """
    with _interruptible("patches check"):
        _begin("sg.cli", "sg.soundness")
        from sg import soundness
        from sg.stage import workers

        found = soundness.check(caches, workers())
    sys.stdout.reconfigure(errors="backslashreplace")
    _write("".join(f"{line}\n" for checked in found for line in soundness.lines(checked)))
    raise typer.Exit(0 if all(checked.whole for checked in found) else 1)


@patches.command("show")
def show_patches(
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="a file such as data/patches/patterns.h5")],
    output: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="where to draw; the cache's name with .png, here, unless given"),
    ] = None,
    patterns: Annotated[int, typer.Option(help="rows: the first so many patterns")] = 12,
    crops: Annotated[int, typer.Option(help="columns: so many crops of each, from the reference on")] = 8,
    force: Annotated[bool, typer.Option("--force", help="replace the picture that is there")] = False,
) -> None:
    """Draw the patches of a cache as one picture: a row for each pattern, its reference first, then neighbours.

    Shown are middle axial slices of the fixed crops in training patients, at
    evenly spaced ranks up to the farthest; of random sub-volumes, a row a scan.
    """
    from sg import gallery
    from sg.outputs import whole
    from sg.patches import PatchCache

    picture = output or Path(cache.stem + ".png")
    with _interruptible("patches show"), whole(picture, force) as aside:
        said = gallery.show(PatchCache(cache), patterns, crops, aside)
    console.say(f"{picture}: {said}")


@patches.command("import")
def import_patches(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the folder of the authors' .npy files")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the cache to write; DIR/patterns.h5 unless given")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the file that is there")] = False,
) -> None:
    """Turn the patch arrays that the authors of Semantic Genesis publish into a cache like data/patches/patterns.h5.

    DIR holds train_data1_vwGen_ex_ref_fold1.0.npy, the like of train_label1,
    val_data1 and val_label1, and more folds and crops if there are: patches
    float (n, x, y, z) in [0, 1], which become HU, and classes. Arrays that
    disagree or are damaged are refused, and nothing is written then.

    The arrays do not tell scans, patients or positions: these stay empty or -1.
    """
    with _interruptible("patches import"):
        from sg.outputs import whole
        from sg.published import write_published

        cache = output or folder / "patterns.h5"
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder; name the one that holds the arrays")
        with whole(cache, force) as aside:
            done = write_published(folder, aside)
    if done.ignored:
        console.warn(
            f"{done.ignored} other .npy files in {folder} are none of the authors' arrays and were left out"
        )
    size = " x ".join(map(str, done.size))
    console.say(
        f"{cache}: {done.patches} patches of {size} voxels (z, y, x) in {done.patterns} patterns, "
        f"{done.validation} of them for validation"
    )


@contextmanager
def _interruptible(command: str) -> Iterator[None]:
    """Say of an interruption that it was one; a file is put in place whole at the end, so none is half-written."""
    try:
        yield
    except KeyboardInterrupt:
        console.complain(f"{command}: interrupted; nothing was changed")
        raise typer.Exit(130) from None


@app.command()
def embed(
    files: Annotated[
        list[Path], typer.Argument(metavar="SCAN", help="files and folders, as `sg scan` takes them")
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="the table to write; standard output unless given"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the table that is there")] = False,
) -> None:
    """Place any readable CT in the space of the study's embedding, and write the vectors as a table.

    Scans are read, vouched for and resampled as the pipeline does it, with
    params.yaml here, and embedded by the auto-encoder under data/embed. A scan of
    the cohort gets the vector that the pipeline gave it.

    A row for each scan, by path: path, patient and series where the files tell
    (else the patient is the file's name), scan (the first 12 digits of its
    SHA-256), split (if the cohort has this scan), e0, e1, ...

    Files that hold no scan are counted. Exit code: 0 if all scans are in the
    table, 1 if any is refused, 2 for a wrong call or where there is no scan.
    """
    with _interruptible("embed"):
        _begin("sg.cli", "sg.outside")
        from sg.outputs import check_free, whole
        from sg.stage import load, workers

        if output is not None:
            check_free(output, force)  # before all else, which takes a while
        from sg.placing import place, read_embedder, table

        embedder = read_embedder(load())
        tally, placed = place(files, embedder, workers())
        text = table(placed, embedder.model.channels)
        if output is not None:
            with whole(output, force) as aside:
                aside.write_text(text, encoding="utf-8")
        else:
            _write(text)
    _tell(tally)
    others = ", ".join(f"{kind} {count}" for kind, count in sorted(tally.ignored.items()))
    ignored = f", {tally.ignored.total()} other files ignored ({others})" if others else ""
    print(f"{tally.placed} embedded, {len(tally.refused)} refused{ignored}", file=sys.stderr)
    raise typer.Exit(1 if tally.refused else 0)


@app.command()
def neighbors(
    file: Annotated[
        Path, typer.Argument(metavar="SCAN", help="one scan: a file, or a folder with one DICOM series")
    ],
    k: Annotated[int, typer.Option("--k", help="how many patients to list")] = 8,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="draw the scan beside these patients; no picture unless given"),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="search all embedded patients, those of validation and test too")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace the picture that is there")] = False,
) -> None:
    """List the patients of the cohort that are most like a scan, which need not be of the cohort.

    The scan is embedded as `sg embed` does it. Searched are the patients that
    data/cohort/roles.csv allows as neighbours, which are training patients of
    pre-training; each counts by its nearest scan. If the scan is itself in the
    cohort, that is said, and its patient is left out.

    Exit code: 0 if the scan was placed, 1 if it is refused, 2 for a wrong call.
    """
    with _interruptible("neighbors"):
        _begin("sg.cli", "sg.outside")
        from sg import alike
        from sg.outputs import check_free, whole

        alike.check_request(k, picture is not None)
        if picture is not None:
            check_free(picture, force)  # before all else, which takes a while
        from sg.cohorts.records import ScanRow, read_rows
        from sg.neighbors import read_embeddings
        from sg.placing import place_one, read_embedder
        from sg.report.thumbnails import read_thumbnails
        from sg.roles import read_roles
        from sg.stage import load, workers

        embedder = read_embedder(load())
        embeddings = read_embeddings(paths.EMBEDDINGS, read_roles(paths.ROLES))
        tally, query = place_one(file, embedder, workers())
        _tell(tally)
        if query is None:
            raise typer.Exit(1)
        own = alike.in_cohort(query.thumbnail.scan, read_rows(paths.SCANS, ScanRow))
        found = alike.nearest(query, own, embeddings, k, every)
        if picture is not None:
            with whole(picture, force) as aside:
                alike.picture(query, found, read_thumbnails(Path()), aside)
    sys.stdout.reconfigure(errors="backslashreplace")
    _write("".join(f"{line}\n" for line in alike.lines(query, own, found, embeddings, every)))


def _tell(tally: Tally) -> None:
    """Say on standard error which scans were left out, and why."""
    from sg.cohorts.walking import shown

    for warning in tally.warnings:
        console.warn(warning)
    for path, refusal in sorted(tally.refused, key=lambda item: str(item[0])):
        console.complain(f"{shown(path)}: {refusal.rule}: {shown(refusal.reason)}")


def _begin(*modules: str) -> None:
    """Start the process that readers are forked from (sg/isolated.py); it imports these modules while this one does."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([*modules])
    # It inherits this: to tell of an interruption is this process's matter, which hears of it a moment later
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _page() -> Console:
    """Standard output, as wide as the terminal is or COLUMNS says."""
    from rich.console import Console

    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if known else console.WIDTH, highlight=False)


def _write(text: str) -> None:
    """Text on standard output, whose reader may have had enough of it (`| head`)."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer goes nowhere, instead of failing again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Entry point of the console script: errors in words, exit code 2."""
    try:
        app()
    except Exception as error:
        words = in_words(error)
        if words is None or os.environ.get("SG_TRACEBACK") == "1":
            raise
        console.complain(words)
        sys.exit(2)
