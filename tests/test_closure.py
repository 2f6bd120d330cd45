"""dvc.yaml names all code that a stage runs: a file left out would let DVC serve stale results."""

from pathlib import Path

import pytest

from tests.closure import ROOT, closure, named, written

STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_deps_of_a_stage_are_exactly_the_files_it_imports(stage):
    found, told = closure(ROOT / "stages" / f"{stage}.py"), named()[stage]
    assert not found - told, (
        f"dvc.yaml does not name these for {stage}; `python -m tests.closure --write` adds them"
    )
    assert not told - found, (
        f"dvc.yaml names these for {stage} in vain; `python -m tests.closure --write` removes them"
    )


def test_every_stage_of_dvc_yaml_has_its_script():
    assert sorted(named()) == STAGES


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {
        "stages/a.py": "import json\nfrom sg.top import f\n",
        "sg/__init__.py": "",
        "sg/top.py": "def f():\n    from sg.pack import leaf\n    import sg.errors\n    return leaf\n",
        "sg/pack/__init__.py": "WORD = 1\n",
        "sg/pack/leaf.py": "from sg import base\n",
        "sg/pack/page.html": "<p>",
        "sg/pack/other.py": "",
        "sg/base.py": "X = 1\n",
        "sg/errors.py": "from sg import hidden\n",
        "sg/hidden.py": "",
        "sg/console.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_closure_follows_imports_inside_functions_packages_and_their_templates(tree):
    assert closure(tree / "stages/a.py", tree) == {
        "sg/top.py",
        "sg/pack/__init__.py",
        "sg/pack/leaf.py",
        "sg/pack/page.html",
        "sg/base.py",
    }


def test_closure_does_not_walk_through_exempt_modules(tree):
    assert "sg/hidden.py" not in closure(tree / "stages/a.py", tree)


def test_closure_survives_a_circle_of_imports(tree):
    (tree / "sg/base.py").write_text("from sg import top\n")
    assert "sg/base.py" in closure(tree / "stages/a.py", tree)


def test_writing_replaces_old_names_and_leaves_the_rest_alone():
    text = "stages:\n  a:\n    deps:\n      - stages/a.py\n      - sg/old.py\n      - data/x\n    outs:\n      - data/a\n"
    new = written(text, {"a": {"sg/y.py", "sg/b.py"}})
    assert new == text.replace("      - sg/old.py\n", "      - sg/b.py\n      - sg/y.py\n")
    assert written(new, {"a": {"sg/y.py", "sg/b.py"}}) == new
