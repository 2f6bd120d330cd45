"""The wheel holds the whole of `sg`, templates included, and installs the `sg` command."""

import shutil
import subprocess
import sys
import zipfile

import yaml

from tests.closure import ROOT


def test_a_wheel_builds_with_every_file_of_the_package_and_the_command(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    shutil.copytree(ROOT / "sg", source / "sg", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("sg-*.whl")
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if name.startswith("sg/")}
        commands = next(
            file.read(name).decode() for name in file.namelist() if name.endswith("entry_points.txt")
        )
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "sg").rglob("*") if path.is_file()}
    assert held == {name for name in files if "__pycache__" not in name}
    assert "sg = sg.cli:main" in commands


def test_the_citation_names_both_papers():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    numbers = {item["identifiers"][0]["value"] for item in cited["references"]}
    assert numbers == {"arXiv:2007.06959", "arXiv:2102.10680"}


def test_dvc_sends_nothing_home():
    settings = (ROOT / ".dvc" / "config").read_text()
    assert "analytics = false" in settings
    assert "check_update = false" in settings
