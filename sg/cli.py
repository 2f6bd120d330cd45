"""The `sg` command: what is not a stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from sg import console, paths
from sg.errors import in_words

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From raw CT scans to pre-trained 3-D networks and the statistics that judge them.",
)


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
    from rich.console import Console

    from sg.evaluation import results_table

    if not (paths.EVALUATE / "summary.csv").is_file():
        console.complain(f"{paths.EVALUATE}/summary.csv: there are no results yet; run `dvc repro`")
        raise typer.Exit(2)
    Console(width=None if sys.stdout.isatty() else 110).print(results_table(paths.EVALUATE))
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
