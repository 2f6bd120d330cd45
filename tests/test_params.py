"""The schema: complete, exact about keys, and in words about what is wrong."""

import re

import pytest
import yaml

from sg import handbook
from sg.params import Params, Section, parse
from tests.closure import ROOT

DEMO = (ROOT / "configs" / "demo.yaml").read_text()


def problems(text: str) -> str:
    with pytest.raises(ValueError) as caught:
        parse(text, "params.yaml")
    return str(caught.value)


def changed(key: str, value: object) -> str:
    """The demo with one value changed."""
    tree = yaml.safe_load(DEMO)
    *way, last = key.split(".")
    place = tree
    for part in way:
        place = place[part]
    place[last] = value
    return yaml.safe_dump(tree)


@pytest.mark.parametrize("config", sorted(path.name for path in (ROOT / "configs").glob("*.yaml")))
def test_every_configuration_is_valid(config):
    parse((ROOT / "configs" / config).read_text(), config)


def test_the_committed_study_is_the_demo():
    assert (ROOT / "params.yaml").read_text() == DEMO


def test_the_page_on_parameters_is_current():
    assert (ROOT / "docs" / "params.md").read_text() == handbook.page(), "run `make docs`"


def test_every_parameter_is_explained():
    rows = [line.split("|") for line in handbook.page().splitlines() if line.startswith("| `")]
    unexplained = [key for _, key, _, meaning, _ in rows if not meaning.strip()]
    assert unexplained == []


def test_no_field_has_a_default():
    def fields(model):
        for name, field in model.model_fields.items():
            yield f"{model.__name__}.{name}", field

    models = [item for item in vars(__import__("sg.params").params).values() if isinstance(item, type)]
    with_default = [
        name
        for model in models
        if issubclass(model, Section)
        for name, field in fields(model)
        if not field.is_required()
    ]
    assert with_default == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("evaluate.alpha", 2.0, r"evaluate\.alpha: must be less than 1, got 2\.0"),
        ("evaluate.alpha", "0.05", r"evaluate\.alpha: must be a valid number, got '0\.05'"),
        ("evaluate.alpha", float("nan"), r"evaluate\.alpha: must be a finite number"),
        ("finetune.trials", 2.5, r"finetune\.trials: must be a valid integer, got 2\.5"),
        ("finetune.trials", True, r"finetune\.trials: must be a valid integer, got True"),
        ("finetune.trials", 0, r"finetune\.trials: must be greater than or equal to 1, got 0"),
        ("embed.widht", 8, r"embed\.widht: there is no such parameter \(did you mean 'width'\?\)"),
        ("coordinates.frame", "lung", r"coordinates\.frame: must be `voxel`, `body` or `lungs`, got 'lung'"),
        (
            "coordinates.rule.tissue_min",
            0.9,
            r"coordinates\.rule: tissue_min must be at most tissue_max, got 0\.9 > 0\.6",
        ),
        ("coordinates.patch_size", [16, 32], r"coordinates\.patch_size\.2: this parameter is missing"),
        (
            "coordinates.patch_size",
            [12, 32, 32],
            r"coordinates\.patch_size: every side must be a multiple of 8",
        ),
        (
            "coordinates.patch_size",
            [32, 32, 32],
            r"coordinates\.patch_size: a patch must fit into resample\.shape_min",
        ),
        (
            "resample.thumbnail_shape",
            [30, 32, 32],
            r"resample\.thumbnail_shape: every side must be a multiple of 8",
        ),
        (
            "resample.oblique",
            "nearest-axes",
            r"resample\.oblique: must be resample for phantoms, got nearest-axes: .* phantom\.cohorts is \['luna16'",
        ),
        ("neighbors.depth", 5, r"neighbors\.depth: must be at least coordinates\.k \(10\), got 5"),
        ("neighbors.search", "nprobe=64", r"neighbors\.search: must be null where neighbors\.index is Flat"),
        *(
            ("neighbors.search", broken, r"neighbors\.search: ")
            for broken in (
                "",
                "nprobe",
                "nprobe=0",
                "nprobe=-3",
                "nprobe=2.5",
                "nprobe=4x",
                "nprobe=4,",
                "=4",
                64,
            )
        ),
        (
            "neighbors.references",
            3,
            r"neighbors\.references: must be at least coordinates\.patterns \(\d+\), .* got 3",
        ),
        (
            "plan.methods",
            ["models-genesis"],
            r"pretrain\.recipes\.semantic-genesis: a recipe must be named in plan\.methods",
        ),
        (
            "plan.methods",
            ["a", "b"],
            r"plan\.methods: each name must be a recipe in pretrain\.recipes, got 'a'",
        ),
        ("plan.targets", ["ncc", "ncc", "lcs"], r"plan\.targets: names must differ"),
        ("finetune.tasks", ["bms"], r"finetune\.tasks: each name must be a name in plan\.targets, got 'bms'"),
        ("finetune.initializations", ["scratch", "i3d"], r"finetune\.initializations: .* got 'i3d'"),
        (
            "finetune.training",
            {},
            r"finetune\.training: each task of finetune\.tasks needs its settings, 'ncc' has none",
        ),
        (
            "phantom.cohorts",
            ["brains"],
            r"phantom\.cohorts: each name must be a recipe in phantom\.recipes, got 'brains'",
        ),
        ("phantom.recipes.liver.test", 16, r"phantom\.recipes\.liver: test must be at most 15"),
        (
            "phantom.recipes.luna16.train",
            -1,
            r"phantom\.recipes\.luna16\.train: must be greater than or equal to 0, got -1",
        ),
        (
            "phantom.recipes.luna16.layout",
            "luna",
            r"phantom\.recipes\.luna16\.layout: must be one of .*`lidc`.*got 'luna'",
        ),
        ("phantom.recipes.luna16.twin", 1, r"phantom\.recipes\.luna16\.twin: .*\(did you mean 'twins'\?\)"),
        (
            "phantom.recipes.luna16.nodules",
            [4, 1],
            r"luna16: nodules must be \[least, largest\], got \[4, 1\]",
        ),
        (
            "phantom.recipes.luna16.nodules",
            [0, 21],
            r"luna16\.nodules\.1: must be less than or equal to 20, got 21",
        ),
        ("phantom.recipes.luna16.candidates", 700, r"luna16\.candidates: must be less than or equal to 600"),
        (
            "phantom.recipes.luna16.twins_of",
            "liver",
            r"phantom\.recipes\.luna16: twins and twins_of go together",
        ),
        (
            "phantom.shared.nodule_mm",
            [4.0, 130.0],
            r"phantom\.shared\.nodule_mm\.1: must be less than or equal to 60, got 130\.0",
        ),
        (
            "phantom.shared.nodule_mm",
            [30.0, 4.0],
            r"nodule_mm must be \[least, largest\], got \[30\.0, 4\.0\]",
        ),
        (
            "phantom.shared.chest_range_mm",
            [-500.0, 100.0],
            r"phantom\.shared\.chest_range_mm\.0: must be greater than or equal to -380, got -500\.0",
        ),
        (
            "phantom.shared.abdomen_range_mm",
            [-100.0, -60.0],
            r"abdomen_range_mm must be \[lower end, upper end\], at least 80 mm apart",
        ),
        (
            "phantom.shared.noise_hu",
            [30.0, 10.0],
            r"noise_hu must be \[least, largest\], got \[30\.0, 10\.0\]",
        ),
        ("cohort.splits.train", 0.7, r"cohort\.splits: train \+ validation \+ test must be 1, got 1\.1"),
        ("cohort.sources.liver.path", "../other", r"cohort\.sources\.liver: path must be relative"),
        ("cohort.sources.liver.use", ["nodules"], r"cohort\.sources\.liver\.use: .* got 'nodules'"),
        ("pretrain.recipes.models-genesis.losses.classification", 0.1, r"losses\.classification must be 0"),
        (
            "pretrain.recipes.models-genesis.reads",
            "../secret.h5",
            r"pretrain\.recipes\.models-genesis\.reads: must be a path to an \.h5 file from the project's root.*'\.\./sec",
        ),
        (
            "embed.training.precision",
            "16-mixed",
            r"embed\.training: precision must be 32-true where accelerator is cpu, got 16-mixed",
        ),
        ("embed.training.precision", "bf16-mixed", r"precision must be 32-true .*, got bf16-mixed"),
        (
            "evaluate.control",
            "scracth",
            r"evaluate\.control: must be one of finetune\.initializations .* got 'scracth'",
        ),
        (
            "phantom.shared.spacing_z_mm",
            [2.0, 60.0],
            r"phantom\.shared\.spacing_z_mm\.1: must be less than or equal to 10",
        ),
        (
            "phantom.cohorts",
            ["lidc", "liver"],
            r"recipes\.lidc\.twins_of names luna16, which phantom\.cohorts does not",
        ),
        ("cohort.limits.spacing_mm", [10.0, 0.1], r"cohort\.limits: spacing_mm must be \[least, largest\]"),
        ("cohort.sources.liver.use", ["ncc"], r"cohort\.sources: some source must be of use for 'lcs'"),
        (
            "cohort.sources",
            {
                "all": {
                    "layout": "luna16",
                    "path": ".",
                    "use": ["ncc", "lcs"],
                    "leave_out": None,
                    "patients": None,
                }
            },
            r"cohort\.sources: some source must be of use for 'pretrain'",
        ),
        (
            "coordinates.patterns",
            1,
            r"coordinates\.patterns: must be at least 2 for pretrain\.recipes\.semantic-genesis",
        ),
        ("seed", -1, r"seed: must be greater than or equal to 0, got -1"),
        ("extra", 1, r"extra: there is no such parameter"),
    ],
)
def test_a_wrong_value_is_reported_with_its_full_key_the_rule_and_the_value(key, value, said):
    assert re.search(said, problems(changed(key, value)))


@pytest.mark.parametrize(
    "key", ["seed", "embed.width", "coordinates.rule.border", "pretrain.shared.training.batch"]
)
def test_a_missing_value_is_reported_with_its_full_key(key):
    tree = yaml.safe_load(DEMO)
    *way, last = key.split(".")
    place = tree
    for part in way:
        place = place[part]
    del place[last]
    assert f"params.yaml: {key}: this parameter is missing" in problems(yaml.safe_dump(tree))


def test_all_problems_are_reported_at_once_one_a_line():
    text = DEMO.replace("alpha: 0.05", "alpha: 5").replace("trials: 3", "trials: 0")
    assert len(problems(text).splitlines()) == 2


def test_a_wrong_effect_in_a_list_is_reported_with_its_place():
    text = DEMO.replace("again: 0.4", "again: 1.4")
    said = problems(text)
    assert (
        "pretrain.recipes.models-genesis.perturbations.0.one_of.0.flip.again: must be less than or equal to 1"
        in said
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold sections, got nothing"),
        ("- 1\n", "must hold sections, got list"),
        ("seed: [", "not a YAML file"),
        (DEMO + "\nseed: 2\n", "the key 'seed' is given twice"),
        ("seed: !!python/object/apply:os.system ['true']", "not a YAML file"),
    ],
)
def test_what_is_not_a_mapping_is_refused(text, said):
    assert said in problems(text)


def test_a_recipe_reads_any_cache_of_the_project():
    for reads in ("imports/theirs.h5", "theirs.h5", "data/imported/x y.h5", "data/patches2/é.h5"):
        study = parse(changed("pretrain.recipes.semantic-genesis.reads", reads), "params.yaml")
        assert study.pretrain.recipes["semantic-genesis"].reads == reads


@pytest.mark.parametrize(
    "reads",
    [
        "/theirs.h5", "a/../../theirs.h5", "./theirs.h5", "a//theirs.h5", "theirs.hdf5", "a/.h5", "a/", "", "~/theirs.h5",
        "a/*.h5", "a?.h5", "[ab].h5", "${seed}.h5", "s3://bucket/theirs.h5", "a\\b.h5", "a\nb.h5", "a\x1b[0m.h5",
    ],
)  # fmt: skip
def test_a_recipe_reads_no_path_that_could_mean_another_place(reads):
    said = problems(changed("pretrain.recipes.semantic-genesis.reads", reads))
    assert said.startswith("params.yaml: pretrain.recipes.semantic-genesis.reads: must be a ")
    assert repr(reads) in said


def test_a_recipe_reads_nothing_of_ones_own_where_stages_make_everything_anew():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    places = {"data/raw", "data/patches", "data/.aside", ".state", "logs"}
    for stage in stages.values():
        for out in stage.get("do", stage)["outs"]:
            name = (out if isinstance(out, str) else next(iter(out))).split("${")[0]
            places.add(name.rpartition("/")[0] if "." in name or name.endswith("/") else name)
    assert {"data/finetune", "data/targets", "data/resampled", "report"} <= places - {"data"}
    for place in places - {"data"}:
        reads = f"{place.rstrip('/')}/theirs.h5"
        said = problems(changed("pretrain.recipes.semantic-genesis.reads", reads))
        assert re.search(f"a file of your own, which cannot lie in .*, got '{reads}'", said)


def test_what_discovery_must_give_is_asked_only_for_a_method_that_reads_it():
    tree = yaml.safe_load(changed("coordinates.patterns", 1))
    assert "coordinates.patterns: must be at least 2" in problems(yaml.safe_dump(tree))
    tree["pretrain"]["recipes"]["semantic-genesis"]["reads"] = "imports/theirs.h5"
    parse(yaml.safe_dump(tree), "params.yaml")


def test_scientific_notation_is_a_number_as_dvc_reads_it():
    study = parse(DEMO.replace("learning_rate: 0.001", "learning_rate: 1e-3"), "params.yaml")
    assert study.pretrain.shared.training.learning_rate == 1e-3


def test_a_phantom_cohort_needs_somebody():
    tree = yaml.safe_load(DEMO)
    tree["phantom"]["recipes"]["luna16"] |= {"train": 0, "validation": 0, "test": 0}
    assert "phantom.recipes.luna16: a phantom cohort needs at least one patient" in problems(
        yaml.safe_dump(tree)
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        (
            {"twins_of": "lungs"},
            "recipes.again.twins_of must name a chest cohort that has no twins itself, got 'lungs'",
        ),
        (
            {"twins_of": "liver"},
            "recipes.again.twins_of must name a chest cohort that has no twins itself, got 'liver'",
        ),
        (
            {"twins_of": "again"},
            "recipes.again.twins_of must name a chest cohort that has no twins itself, got 'again'",
        ),
        ({"twins": 7}, "recipes.again: twins must be at most the cohort's 6 patients, got 7"),
        ({"twins": 0}, "recipes.again: twins and twins_of go together"),
        (
            {"train": 20, "test": 20, "twins": 30},
            "recipes.again.twins must leave each split no more twins than luna16 has patients, got 15 in test",
        ),
    ],
)
def test_twins_are_of_a_chest_cohort_that_has_so_many_patients(changes, said):
    tree = yaml.safe_load(DEMO)
    recipes = tree["phantom"]["recipes"]
    own = {"layout": "lidc", "train": 4, "validation": 0, "test": 2, "twins_of": "luna16", "twins": 3}
    recipes["again"] = recipes["luna16"] | own | changes
    text = yaml.safe_dump(tree)
    if said is None:
        assert parse(text, "params.yaml").phantom.recipes["again"].twins_by_split() == {
            "train": 2, "validation": 0, "test": 1,
        }  # fmt: skip
    else:
        assert said in problems(text)


def test_lists_may_be_empty():
    tree = yaml.safe_load(DEMO)
    tree["plan"] = {"methods": [], "targets": []}
    tree["phantom"]["cohorts"] = []
    tree["pretrain"]["recipes"] = {}
    tree["targets"]["recipes"] = {}
    tree["finetune"] |= {"tasks": [], "initializations": [], "training": {}}
    for source in tree["cohort"]["sources"].values():
        source["use"] = ["pretrain"]
    study = parse(yaml.safe_dump(tree), "params.yaml")
    assert study.finetune.tasks == []


def test_a_ranking_too_shallow_for_the_validation_patients_is_refused():
    tree = yaml.safe_load(DEMO)
    tree["neighbors"]["depth"] = 10
    tree["coordinates"]["k_validation"] = 11
    assert "neighbors.depth: must be at least coordinates.k_validation (11), got 10" in problems(
        yaml.safe_dump(tree)
    )


def test_patches_too_small_to_be_perturbed_are_refused():
    tree = yaml.safe_load(DEMO)
    tree["pretrain"]["shared"]["network"]["depth"] = 3
    tree["coordinates"]["patch_size"] = [4, 8, 8]
    assert "coordinates.patch_size: every side must be at least 8 to be perturbed" in problems(
        yaml.safe_dump(tree)
    )


def test_names_that_give_two_trials_one_name_are_refused():
    """Task a from b-c and task a-b from c would both be the stage finetune@a-b-c."""
    tree = yaml.safe_load(DEMO)
    for table, old, new in (("pretrain", "models-genesis", "x-sg"), ("pretrain", "semantic-genesis", "sg")):
        tree[table]["recipes"][new] = tree[table]["recipes"].pop(old)
    tree["targets"]["recipes"]["ncc-x"] = tree["targets"]["recipes"].pop("lcs")
    tree["plan"] = {"methods": ["x-sg", "sg"], "targets": ["ncc", "ncc-x"]}
    tree["finetune"] |= {"tasks": ["ncc", "ncc-x"], "initializations": ["scratch", "x-sg", "sg"]}
    tree["finetune"]["training"]["ncc-x"] = tree["finetune"]["training"].pop("lcs")
    tree["cohort"]["sources"]["liver"]["use"] = ["ncc-x"]
    said = problems(yaml.safe_dump(tree))
    assert "two pairs of a task and an initialization are both called 'ncc-x-sg'" in said


def test_params_are_frozen():
    study = parse(DEMO, "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        study.seed = 2
    assert isinstance(study, Params)


@pytest.mark.parametrize(("layout", "refused"), [("lidc", True), ("luna16", False)])
def test_cohorts_that_would_share_the_names_of_their_patients_are_refused(layout, refused):
    tree = yaml.safe_load(DEMO)
    recipes = tree["phantom"]["recipes"]
    recipes["more"] = recipes["luna16"] | {"layout": layout}
    parse(yaml.safe_dump(tree), "params.yaml")  # a recipe that makes no cohort harms nobody
    tree["phantom"]["cohorts"].append("more")
    if refused:
        assert "cohorts must name at most one of layout lidc, got lidc and more" in problems(
            yaml.safe_dump(tree)
        )
    else:
        parse(yaml.safe_dump(tree), "params.yaml")
