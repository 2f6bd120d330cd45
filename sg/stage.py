"""What every stage does alike: its parameters, seed, lock, resumable state, and outputs whole or not at all.

    with stage("patches", __doc__) as run:
        settings = run.read("patches")
        write_patches(run.output(paths.PATCHES) / "patterns.h5", settings, run.seed)
        run.summary("2,400 patches of 12 patterns")

dvc.yaml is the authority on what a stage may read: `run.read` of a parameter that dvc.yaml does not declare for
this stage is a bug and fails at once, because DVC would serve stale results.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from sg import console, logs, params
from sg.errors import InputError, in_words
from sg.paths import ASIDE, STATE

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")


class Run:
    """One run of a stage: what it may read and where it writes."""

    def __init__(
        self, name: str, items: dict[str, str], study: params.Params, known: dict[str, list[str]]
    ) -> None:
        self.name = name
        self.items = items
        self.label = "-".join([name, *items.values()])
        self._study = study
        self._declared = known
        self._outputs: dict[Path, Path] = {}
        self._state: Path | None = None
        self._summary = ""
        self._began = self._own()

    @property
    def seed(self) -> int:
        """The study's seed."""
        return self.read("seed")

    @property
    def workers(self) -> int:
        """Processes for work on single scans; no result depends on it."""
        return workers()

    def read(self, key: str) -> Any:
        """The parameter or section of that dotted key; the whole study for "", where dvc.yaml names the whole file."""
        if not any(known in ("", key) or key.startswith(f"{known}.") for known in self._declared["params"]):
            raise AssertionError(f"dvc.yaml does not name the parameter {key} for stage {self.label}")
        return lookup(self._study, key)

    def place(self, key: str) -> Path:
        """A parameter that only says where something lies, which no result depends on and dvc.yaml need not name."""
        return Path(lookup(self._study, key))

    def output(self, path: Path) -> Path:
        """Where to write what shall lie at `path`, an output that dvc.yaml names for this stage.

        A folder is made; of a file, the folder above. It appears under its own name when the stage succeeds.
        """
        if str(path) not in self._declared["outs"]:
            raise AssertionError(f"dvc.yaml does not name the output {path} for stage {self.label}")
        aside = _aside(self.label, path)
        if path not in self._outputs:
            (aside.parent if path.suffix else aside).mkdir(parents=True, exist_ok=True)
            self._outputs[path] = aside
        return aside

    def fingerprint(self) -> str:
        """Hex digest of the declared parameters and of the contents of the declared inputs and code files."""
        digest = hashlib.sha256()
        for key in self._declared["params"]:
            value = lookup(self._study, key)
            digest.update(f"{key}={json.dumps(plain(value), sort_keys=True)}\n".encode())
        for dep in self._declared["deps"]:
            for file in _files(Path(dep)):
                with open(file, "rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
                digest.update(f"{file}:{content}\n".encode())
        return digest.hexdigest()[:16]

    def code_fingerprint(self) -> str:
        """Hex digest of the code files that dvc.yaml names for this stage."""
        digest = hashlib.sha256()
        for dep in self._declared["deps"]:
            if dep.endswith(".py"):
                digest.update(dep.encode() + b"\0" + Path(dep).read_bytes() + b"\0")
        return digest.hexdigest()[:16]

    def state(self) -> Path:
        """A folder that outlives a killed run, for exactly these parameters, inputs and code; removed on success."""
        if self._state is None:
            home = STATE / self.label
            self._state = home / self.fingerprint()
            for other in home.iterdir():
                if other.is_dir() and other not in (self._state, home / "items"):
                    shutil.rmtree(other)
            self._state.mkdir(parents=True, exist_ok=True)
        return self._state

    def store(self) -> Path:
        """A folder that outlives a killed run whatever has changed since; removed on success.

        For finished items that carry their own key, such as resampled scans.
        """
        items = STATE / self.label / "items"
        items.mkdir(parents=True, exist_ok=True)
        return items

    def summary(self, text: str) -> None:
        """The one line that the stage ends with."""
        self._summary = text

    def _own(self) -> str:
        """Hex digest of the stage's code files and declared parameters as they lie on disk now."""
        digest = hashlib.sha256(self.code_fingerprint().encode())
        values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
        for key in self._declared["params"]:
            digest.update(json.dumps(_dig(values, key), sort_keys=True, default=str).encode())
        return digest.hexdigest()

    def _unchanged(self) -> bool:
        try:
            return self._own() == self._began
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            return False

    def recover(self) -> None:
        """Put back what a run that was killed while it replaced an output had moved out of the way."""
        for name in self._declared["outs"]:
            path = Path(name)
            old = _old(_aside(self.label, path))
            if old.exists() and not path.exists():
                os.rename(old, path)
        _clear_aside(self.label)

    def _publish(self) -> None:
        if not self._unchanged():
            raise InputError(
                f"the stage's code or parameters were edited while it ran, and DVC would record its outputs as those of "
                f"the new ones; run {self.label} again (or undo the edit first: what was learned so far is then taken up)"
            )
        for path, aside in self._outputs.items():
            if not aside.exists():
                raise AssertionError(f"stage {self.label} did not write {path}")
            for file in _files(aside):
                with open(file, "rb") as stream:
                    os.fsync(stream.fileno())
        for path, aside in self._outputs.items():
            replace(aside, path)
        for leftover in (self._state, STATE / self.label / "items"):
            if leftover is not None:
                shutil.rmtree(leftover, ignore_errors=True)


def replace(new: Path, path: Path) -> None:
    """Put `new` at `path`, whole; what was there goes. Never writes into existing files: they may be DVC's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        old = _old(new)
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
        os.rename(new, path)
        shutil.rmtree(old)
    else:
        os.replace(new, path)


@contextmanager
def stage(name: str, doc: str | None, *items: str) -> Iterator[Run]:
    """Run the body as stage `name`; `items` names the command-line arguments of a foreach or matrix stage.

    Ends the process with exit code 2 and a sentence for what the user can mend (InputError, a full disk), with a
    traceback for a bug. SG_TRACEBACK=1 shows the traceback always.
    """
    parser = argparse.ArgumentParser(prog=f"python stages/{name}.py", description=doc)
    for item in items:
        parser.add_argument(item)
    given = vars(parser.parse_args())
    clock = logs.Clock()
    label = "-".join([name, *given.values()])
    try:
        _die_with_parent()
        _enter_root(name)
        study = load()
        with _lock(label):
            known = declared(name, given)
            for key in known["params"]:
                lookup(study, key)  # an item that the study does not have is said in words
            run = Run(name, given, study, known)
            run.recover()
            logs.begin_reads(label)
            try:
                yield run
                run._publish()
            finally:
                _clear_aside(label)
        logs.record(label, clock, "done", summary=run._summary)
        reading = clock.reading()
        console.say(f"{label}: {run._summary} ({reading['wall_s']:.1f} s, {reading['peak_mib']:.0f} MiB)")
    except KeyboardInterrupt:
        logs.record(label, clock, "interrupted")
        console.complain(
            f"{label}: interrupted; what a training has learned so far is taken up by the next run"
        )
        sys.exit(130)
    except Exception as error:
        words = in_words(error)
        if words is None or os.environ.get("SG_TRACEBACK") == "1":
            raise
        console.complain(f"{label}: {words}")
        logs.record(label, clock, "refused", error=words)
        sys.exit(2)


def workers() -> int:
    """Processes for work on single scans: SG_WORKERS, else one a core. InputError if that is no such number."""
    value = os.environ.get("SG_WORKERS", "")
    if value and not re.fullmatch(r"[1-9][0-9]{0,3}", value):
        raise InputError(f"SG_WORKERS must be a whole number of processes, at least 1, got {value!r}")
    return int(value) if value else len(os.sched_getaffinity(0))


def load(path: Path = PARAMS) -> params.Params:
    """The whole of params.yaml, checked. InputError names every problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path}: there is no such file; run from the project's root, or `sg use configs/tiny.yaml`"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be UTF-8 text, byte {error.start} is not; save it as UTF-8") from None
    try:
        return params.parse(text, str(path))
    except ValueError as error:
        raise InputError(str(error)) from None


def lookup(study: params.Params, key: str) -> Any:
    """The value at a dotted key, through sections and dictionaries. InputError where there is none."""
    value: Any = study
    for part in key.split(".") if key else []:
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        if value is None:
            raise InputError(f"params.yaml: {key}: there is no such parameter in this study")
    return value


def plain(value: Any) -> Any:
    """A parameter as JSON knows it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def declared(name: str, items: dict[str, str]) -> dict[str, list[str]]:
    """What dvc.yaml names for one stage: `deps`, `params` and `outs` (metrics and plots among them), resolved.

    In a foreach stage `${key}` is the only command-line argument, in a matrix stage `${item.x}` that of name x;
    `${item.x}` of a foreach stage and `${section.x}` are looked up in params.yaml.
    """
    try:
        stages = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["stages"]
        definition = stages[name]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(
            f"{PIPELINE}: the stage {name} cannot be read from it ({error!r}); restore it from git"
        ) from None
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    item: Any = items
    if "foreach" in definition:
        (key,) = items.values()
        where = definition["foreach"][2:-1]
        recipes = _dig(values, where)
        if key not in recipes:
            raise InputError(f"{PARAMS}: {where} has no {key!r}; there are: {', '.join(recipes) or 'none'}")
        item = recipes[key]
        definition = definition["do"]

    def resolved(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            dotted = match[1]
            if dotted == "key":
                return key
            if dotted.startswith("item."):
                return str(_dig(item, dotted[5:]))
            return str(_dig(values, dotted))

        return re.sub(r"\$\{([^}]+)\}", value, text)

    names: dict[str, list[str]] = {"deps": [], "params": [], "outs": []}
    for entry in definition.get("deps", []):
        names["deps"].append(resolved(entry))
    for entry in definition.get("params", []):
        # `- params.yaml:` stands for the whole file
        names["params"].append(resolved(entry) if isinstance(entry, str) else "")
    for kind in ("outs", "metrics", "plots"):
        for entry in definition.get(kind, []):
            names["outs"].append(resolved(entry if isinstance(entry, str) else next(iter(entry))))
    return names


def _aside(label: str, path: Path) -> Path:
    """Where an output is made: on the file system that it will lie on, for a rename cannot leave it."""
    return (ASIDE if path.is_relative_to(ASIDE.parent) else STATE / "aside") / label / path


def _old(aside: Path) -> Path:
    return aside.with_name(aside.name + ".old")


def _clear_aside(label: str) -> None:
    for home in (ASIDE, STATE / "aside"):
        shutil.rmtree(home / label, ignore_errors=True)


def _dig(tree: Any, dotted: str) -> Any:
    for part in dotted.split(".") if dotted else []:
        tree = tree[part]
    return tree


def _files(path: Path) -> list[Path]:
    """The file itself, or all files below a folder, sorted; none for what is not there."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return [path] if path.is_file() else []


def _enter_root(name: str) -> None:
    root = Path(sys.argv[0]).resolve().parent.parent
    if not (root / PIPELINE).is_file():
        raise InputError(
            f"{root}: there is no dvc.yaml here; run stages/{name}.py from a checkout of the project"
        )
    here = Path(__file__).resolve().parent.parent
    if here != root:
        raise InputError(
            f"{root}: its stages would run with the package `sg` of {here}, so DVC would record the wrong code; "
            "run `make env` here and use .venv of this checkout, or set PYTHONPATH to it"
        )
    os.chdir(root)


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies: DVC, killed, would leave it running."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the process that started this stage has died")


@contextmanager
def _lock(label: str) -> Iterator[None]:
    """Hold the stage's lock; the kernel lets it go when the process ends, however it ends."""
    home = STATE / label
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"{home / 'lock'}: another run of stage {label} is going on (process {file.read().strip() or 'unknown'}); "
                "wait for it, or end it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
