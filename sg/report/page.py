"""The HTML page: everything a study made, in one file that loads nothing.

    write_page(run.output(paths.REPORT) / "index.html", Path("."), study, versions(), commit(Path(".")))

Equal artifacts and parameters give equal bytes. Names and sentences come from data sets: they are escaped, and
control characters in them are spelled out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sg.params import Params
from sg.report import discovery, learning, material, refusals, tables
from sg.report.provenance import as_yaml

HERE = Path(__file__).parent
TESTS = {"welch": "Welch's two-sample t-test", "student": "Student's two-sample t-test (equal variances)"}
CORRECTIONS = {"holm": "Holm's correction", "none": "no correction"}


def write_page(
    path: Path, root: Path, study: Params, versions: list[tuple[str, str]], commit: str | None
) -> None:
    """Write the page of the study whose artifacts lie below `root`. InputError where one is missing or damaged."""
    # A half character, which a file name in a JSON file may hold, has no UTF-8; it is spelled out.
    page = render(contents(root, study, versions, commit)).encode("utf-8", errors="backslashreplace")
    path.write_bytes(page)


def contents(
    root: Path, study: Params, versions: list[tuple[str, str]], commit: str | None
) -> dict[str, Any]:
    """All that the template shows, section by section."""
    results = learning.results(root)
    return {
        "study": study,
        "results": results,
        "verdicts": learning.verdicts(results, study.evaluate.control),
        "material": material.material(root, study),
        "embedding": discovery.embedding(root, study),
        "patterns": discovery.patterns(root, study),
        "pretraining": learning.pretraining(root),
        "finetuning": learning.finetuning(root),
        "parameters": as_yaml(study),
        "versions": versions,
        "commit": commit,
        "test_name": TESTS[study.evaluate.test],
        "correction_name": CORRECTIONS[study.evaluate.correction],
    }


def render(values: dict[str, Any]) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: tables.visible(value) if type(value) is str else value,
    )
    environment.filters |= {
        "percent": tables.percent,
        "whole_percent": tables.whole_percent,
        "p": tables.p_value,
        "figure": tables.figure,
        "many": tables.many,
        "short": tables.short,
        "plain": tables.number_in_words,
        "correlation": tables.correlation,
        "meaning": lambda rule: refusals.MEANINGS.get(rule, "–"),
    }
    css = (HERE / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(css=Markup(css), **values)
