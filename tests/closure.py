"""Which files of `sg` a stage's result may depend on, found by reading the imports, and dvc.yaml's word on it.

python -m tests.closure          says where the two differ
python -m tests.closure --write  brings dvc.yaml up to date
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent

# What cannot change a byte of an output; not walked through either.
EXEMPT = {"sg/params.py", "sg/console.py", "sg/logs.py", "sg/errors.py", "sg/cli.py"}


def closure(script: Path, root: Path = ROOT) -> set[str]:
    """Files of `sg` that a script imports, directly or not, relative to the root; those of imports in functions too.

    A package stands for its `__init__.py` (unless empty) and for the files in it that are not Python (templates).
    """
    found: set[str] = set()
    waiting = [script]
    while waiting:
        for module in _modules(waiting.pop()):
            for file in _files(module, root):
                name = str(file.relative_to(root))
                if name in found or name in EXEMPT:
                    continue
                found.add(name)
                if file.suffix == ".py":
                    waiting.append(file)
    return found


def _modules(file: Path) -> set[str]:
    """Dotted names that a file imports and that could be modules of sg."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{file}: relative imports are not followed; write `from sg...`")
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name == "sg" or name.startswith("sg.")}


def _files(module: str, root: Path) -> list[Path]:
    path = root.joinpath(*module.split("."))
    files = [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else []
    for package in [path, *path.parents]:
        if package == root:
            break
        start = package / "__init__.py"
        if start.is_file() and start.stat().st_size:
            files.append(start)
    if path.is_dir() and path != root / "sg":
        files += sorted(
            file for file in path.iterdir() if file.is_file() and file.suffix not in (".py", ".pyc")
        )
    return files


def named(pipeline: Path = ROOT / "dvc.yaml") -> dict[str, set[str]]:
    """The files of `sg` that dvc.yaml names for each stage."""
    stages = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]
    bodies = {name: stage.get("do", stage) for name, stage in stages.items()}
    return {name: {dep for dep in body["deps"] if dep.startswith("sg/")} for name, body in bodies.items()}


def written(text: str, closures: dict[str, set[str]]) -> str:
    """dvc.yaml with the code files of every stage as they should be, right behind the stage's script."""
    lines = []
    for line in text.splitlines():
        entry = line.strip()
        if entry.startswith("- sg/"):
            continue
        lines.append(line)
        if entry.startswith("- stages/"):
            indent = line[: len(line) - len(line.lstrip())]
            lines += [f"{indent}- {name}" for name in sorted(closures[Path(entry).stem])]
    return "\n".join(lines) + "\n"


def main() -> None:
    closures = {script.stem: closure(script) for script in sorted((ROOT / "stages").glob("*.py"))}
    if "--write" in sys.argv:
        pipeline = ROOT / "dvc.yaml"
        pipeline.write_text(written(pipeline.read_text(encoding="utf-8"), closures), encoding="utf-8")
    for name, files in named().items():
        for file in sorted(files ^ closures.get(name, set())):
            print(f"{name}: {'dvc.yaml names in vain' if file in files else 'dvc.yaml does not name'} {file}")


if __name__ == "__main__":
    main()
