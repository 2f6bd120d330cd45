"""sg/paths.py and dvc.yaml name the same places."""

import yaml

from sg import paths
from tests.closure import ROOT


def test_every_output_of_dvc_yaml_is_a_path_of_the_module():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = set()
    for stage in stages.values():
        body = stage.get("do", stage)
        for kind in ("outs", "metrics", "plots"):
            outs |= {entry if isinstance(entry, str) else next(iter(entry)) for entry in body.get(kind, [])}
    known = {str(value) for name, value in vars(paths).items() if name.isupper()}
    known |= {
        str(paths.phantom("${item.cohort}")),
        str(paths.method("${key}")),
        str(paths.target("${key}")),
        str(paths.trials("${item.task}", "${item.initialization}")),
    }
    assert outs <= known
