"""The page shows what the artifacts say, to anybody, and loads nothing."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from sg import paths
from sg.errors import InputError
from sg.report import discovery
from sg.report.page import write_page
from sg.report.provenance import versions
from sg.storage import create_h5, open_h5, write_array
from tests.report.conftest import PATTERNS, Made, write_quality, write_study
from tests.report.reading import Page

HOSTILE = '"><script>alert({0})</script>&amp;{{{{ 7*7 }}}}'


def write(made: Made, name: str = "index.html") -> str:
    path = made.root / name
    write_page(path, made.root, made.study, versions(), "0123abc")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(made):
    return write(made)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def summary_of(made: Made) -> list[dict[str, str]]:
    with open(made.root / paths.EVALUATE / "summary.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# -------------------------------------------------------------------------------- what every page is


def test_equal_artifacts_give_equal_bytes(made, html):
    assert write(made, "again.html") == html


def test_two_clones_give_equal_bytes(html, make_study):
    assert write(make_study()) == html


def test_every_element_is_closed_where_it_should_be(page):
    assert len(page.elements) > 500


def test_no_id_is_given_twice_and_every_link_leads_to_one(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.named("a") + page.named("use"):
        assert attributes["href"].startswith("#")
        assert attributes["href"][1:] in ids


def test_clip_paths_of_the_charts_are_there(html, page):
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= ids


def test_every_picture_and_chart_says_in_words_what_it_shows(page):
    pictures = page.named("img")
    assert len(pictures) > 50
    assert all(len(attributes["alt"]) > 10 for attributes in pictures)
    charts = [attributes for _, attributes in page.elements if attributes.get("role") == "img"]
    assert charts
    assert all(len(attributes["aria-label"]) > 10 for attributes in charts)


def test_it_loads_nothing_and_runs_nothing(html, page):
    assert "http:" not in html
    assert "https:" not in html
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in page.elements
    }
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "srcset", "action", "data", "poster", "xlink:href"):
            assert (attributes.get(name) or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not re.search(r"@import|url\((?!#)", html)


def test_it_names_no_place_and_no_time(made, html):
    assert str(made.root) not in html
    assert str(Path.cwd()) not in html
    assert not re.search(r"\d\d:\d\d:\d\d|<dc:date>|matplotlib\.org", html)


def test_it_is_small_and_made_fast(made):
    start = time.process_time()
    size = len(write(made, "timed.html").encode())
    assert size < 1_500_000
    assert time.process_time() - start < 6


# ------------------------------------------------------------------------------------------ contents


def test_the_table_holds_the_numbers_of_summary_csv(made, page):
    shown = [[cell.strip() for cell in row] for row in page.tables["summary"][1:]]
    initializations = [row[-6:] for row in shown if not row[-6].startswith("baseline")]
    expected = []
    for row in summary_of(made):
        number = {key: 100 * float(row[key]) for key in ("mean", "sd", "low", "high")}
        expected.append(
            [
                row["initialization"] + (" (control)" if row["initialization"] == "scratch" else ""),
                f"{number['mean']:.2f} ± {number['sd']:.2f}",
                f"{float(row['p_corrected']):.3f}" if row["p_corrected"] else "–",
                row["mark"],
                f"{number['low']:.2f} to {number['high']:.2f}",
                row["trials"],
            ]
        )
    assert initializations == expected
    assert [row[0] for row in shown if len(row) == 7] == [
        "nccAUC; 5 test patients",
        "lcsIoU; 5 test patients",
    ]


def test_it_says_how_much_its_numbers_are_worth(page):
    text = " ".join(page.text.split())
    for words in (
        "over 3 trials",
        "Welch's two-sample t-test, two-sided, over the trials, against the control scratch, with Holm's correction",
        "3 trials are few",
        "on 20 candidates, 5 of them nodules of 5 test patients; trained on 8 patients, stopped by 4 validation",
        "So few test patients leave much to chance",
        "are synthetic",
        "models-genesis is significantly better than scratch on ncc, lcs.",
    ):
        assert words in text


@pytest.fixture(scope="module")
def other(make_study):
    """Another outcome: worse than the control, behind a baseline, much refused, and a method that only classifies."""
    made = make_study(refusals=250)
    summary = made.root / paths.EVALUATE / "summary.csv"
    summary.write_text(summary.read_text().replace(",+,", ",-,"))
    (made.root / paths.EVALUATE / "baselines.csv").write_text(
        "task,metric,name,description,score\nncc,AUC,mean-hu,the mean HU alone,0.99\nlcs,IoU,threshold,by HU,0.1\n"
    )
    examples = made.root / paths.method("semantic-genesis") / "examples.h5"
    with open_h5(examples) as file:
        kept = {name: file[name][...] for name in ("original", "perturbed")}
    examples.unlink()
    with create_h5(examples) as file:
        for name, patches in kept.items():
            write_array(file, name, patches)
    return Page(write(made))


def test_a_baseline_that_does_as_well_is_said_at_the_top(other):
    text = " ".join(other.text.split())
    assert "On ncc no initialization does better on average than a simple baseline (mean-hu)." in text
    assert "On lcs no initialization" not in text


def test_a_significantly_worse_initialization_is_called_that(other):
    assert "models-genesis is significantly worse on ncc, lcs." in " ".join(other.text.split())
    assert [row[-3] for row in other.tables["summary"][2:4]] == ["−", "−"]


def test_of_many_refusals_the_first_are_shown_and_the_others_counted(other):
    text = " ".join(other.text.split())
    assert "Set aside: 250 files" in text
    assert "And 50 more rows in data/cohort/quarantine.csv" in text
    assert text.count("luna16/subset1/bad-") == 200


def test_a_method_that_restores_nothing_shows_originals_and_perturbed_ones(other):
    alts = [attributes["alt"] for attributes in other.named("img")]
    assert sum(alt.startswith("restored") for alt in alts) == 6
    assert sum(alt.startswith("perturbed") for alt in alts) == 12


def test_refusals_duplicates_and_warnings_of_all_stages_are_listed(page):
    text = " ".join(page.text.split())
    assert "the file ends after 1,204 of 516,096 bytes; copy it again" in text
    assert "1 of these is a scan that was there already" in text
    for stage, sentence in (
        ("cohort", "no patients.csv: each file is a patient"),
        ("cohort", "the split validation was empty and took 4 patients"),
        ("neighbors", "depth: 10 of 12 kept"),
        ("targets lcs", "2 candidates lie outside their scan"),
    ):
        assert f"{stage} {sentence}" in text


def test_the_gallery_has_as_many_patterns_and_crops_as_asked_for(made, html):
    assert html.count('<div class="pattern">') == made.study.report.patterns == 4
    gallery = html.split('<div class="gallery">')[1].split("How well discovery worked")[0]
    assert gallery.count("<img") == 4 * (1 + made.study.report.crops)


def test_the_farthest_patient_is_the_one_at_the_largest_distance(made):
    shown = discovery.embedding(made.root, made.study)["references"][0]["shown"]
    train = [entry for entry in shown if not entry["what"].startswith("nearest")]
    assert [entry["what"] for entry in train] == [
        "the reference",
        "no. 1",
        "no. 2",
        "no. 3",
        "no. 4",
        "the farthest",
    ]
    distances = [entry["distance"] for entry in train]
    assert distances[0] == 0
    assert distances == sorted(distances)


def test_the_figures_of_quality_are_said(page):
    text = " ".join(page.text.split())
    assert (
        "Of what the best choice of patients gains over a random one, the nearest patients reach 38 % (95 % interval 10 to "
        "62 %): they show the reference's anatomy "
        "better than random patients do. Patients chosen by geometry alone are farther off by 3.2 mm (mean over patterns; "
        "95 % interval of geometry less nearest 1.1 to 5.4 mm), so the auto-encoder has found more than the field of view."
    ) in text
    assert "its reference is 17 mm; cut at the same place in random patients it is 26 mm, and in the" in text
    assert "4 of 5 patterns lie nearer" in text
    assert (
        "spread by 15.2 mm (5.08 voxels; coordinates.min_distance, by which patterns are kept apart, is 4"
        in text
    )
    assert "names the pattern of 84 % of the validation patients' patches (95 % interval 79 to 89 %)" in text
    assert "by chance it would be 20 %, and on the vectors of the encoder before training it is 62 %" in text


def test_the_table_of_controls_has_those_of_the_studys_frame_between_random_and_the_oracle(page):
    rows = [[" ".join(cell.split()) for cell in row] for row in page.tables["controls"][1:]]
    names = [
        "random patients",
        "geometry alone",
        "nearest patients",
        "affine registration",
        "oracle, whole body",
    ]
    names += ["oracle, that place"]
    assert len(rows) == len(names)
    assert all(row[0].startswith(name) for row, name in zip(rows, names, strict=True))
    assert rows[1][1:] == ["20.516 to 24", "15−6 to 31", "3.21.1 to 5.4", "15.2", "72"]
    assert rows[2][3] == "–"
    assert [rows[0][2], rows[5][2]] == ["0", "100"]  # by definition, so without an interval


def test_the_other_frames_stand_beside_it(page):
    rows = [[" ".join(cell.split()) for cell in row] for row in page.tables["frames"][1:]]
    assert [row[:2] for row in rows] == [
        ["voxel grid", "30.525 to 36"],
        ["lungs' box (this study)", "1713 to 21"],
    ]
    assert rows[0][-1] == "215 to 40"


def test_the_gallery_says_what_is_known_of_each_pattern(page):
    gallery = " ".join(page.text.split("Discovered patterns")[1].split())
    assert "14.5 mmrandom 24 mmspread 15 mmnext pattern 44.5 mm" in gallery


def rewritten(made: Made, **cells: tuple[str, str]) -> str:
    """The page's words after cells of controls.csv in the study's frame were given other values."""
    path = made.root / paths.QUALITY / "controls.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for column, (control, value) in cells.items():
            if row["control"] == control and row["frame"] == "lungs":
                row[column] = value
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return " ".join(Page(write(made)).text.split())


def test_where_geometry_does_as_well_the_page_says_so(copied):
    text = rewritten(copied, against_nearest_low=("geometry", "-1.25"), share_low=("nearest", "-0.001"))
    assert "that they are better than random patients is not shown" in text
    assert (
        "do as well as far as these figures tell; they differ by 3.2 mm (mean over patterns; 95 % interval of geometry "
        "less nearest −1.25 to 5.4 mm). That the auto-encoder has found more than the field of view is not shown."
    ) in text


def test_where_geometry_does_better_the_page_says_so(copied):
    text = rewritten(
        copied,
        against_nearest_mm=("geometry", "-2.5"),
        against_nearest_low=("geometry", "-4"),
        against_nearest_high=("geometry", "-1"),
        share_high=("nearest", "-0.2"),
        share=("nearest", "-0.4"),
        share_low=("nearest", "-0.6"),
    )
    assert "the nearest patients reach −40 % (95 % interval −60 to −20 %): they show" in text
    assert "they show the reference's anatomy worse than random patients do" in text
    assert "are nearer by 2.5 mm" in text
    assert "no more than the field of view, and not all of that" in text


def test_where_everybody_is_taken_nothing_is_judged(copied):
    write_quality(copied.root, True, k=40, patients=40)
    text = " ".join(Page(write(copied)).text.split())
    assert "takes all 40 training patients, so there is no choice of patients to judge" in text
    assert "field of view." not in text.split("How well discovery worked")[1].split("In the phantoms")[0]


def test_half_a_cohort_is_called_that(copied, page):
    note = "the nearest half of a cohort can hardly differ from a random half"
    assert note not in page.text
    write_quality(copied.root, True, k=21, patients=40)
    assert note in Page(write(copied)).text


def test_unknown_controls_and_missing_intervals_are_shown_as_they_are(copied):
    text = rewritten(
        copied, control=("oracle-body", "by-age"), share_low=("nearest", ""), error_low=("nearest", "")
    )
    assert "by-age" in text
    assert "the nearest patients reach 38 %: that they are better" in text


def test_a_table_of_controls_without_a_column_is_named(copied):
    (copied.root / paths.QUALITY / "controls.csv").write_text("frame,control\n")
    with pytest.raises(InputError, match=r"controls\.csv: the table must have the columns \['k'"):
        write(copied)


def test_a_reconstruction_stands_beside_the_mean_of_training_scans(made, html):
    shown = discovery.embedding(made.root, made.study)["reconstructions"]
    with open_h5(made.root / paths.THUMBNAILS) as file:
        mean = file["thumbnails"][...][file["split"][...] == b"train"].astype(float).mean(axis=0)
    with open_h5(made.root / paths.EMBED / "reconstructions.h5") as file:
        inputs, outputs = file["inputs"][...], file["outputs"][...]
    theirs = [((mean + 1000) / 2000 - one).__pow__(2).mean() for one in inputs]
    ours = ((outputs.astype(float) - inputs) ** 2).mean(axis=(1, 2, 3))
    assert [row["mean_error"] for row in shown["shown"]] == pytest.approx(theirs)
    assert shown["kept"] == pytest.approx(1 - sum(ours) / sum(theirs))
    assert shown["averaged"] == 10
    assert "mean of 10 training scans" in html


def test_an_auto_encoder_no_better_than_the_mean_scan_is_called_that(copied):
    path = copied.root / paths.EMBED / "reconstructions.h5"
    with open_h5(path) as file:
        kept = {name: file[name][...] for name in ("inputs", "scan")}
    path.unlink()
    with create_h5(path) as file:
        for name, array in kept.items():
            write_array(file, name, array)
        write_array(file, "outputs", 1 - kept["inputs"])
    text = " ".join(Page(write(copied)).text.split())
    assert "is no worse a copy of these 4 validation scans than what the auto-encoder gives back" in text


def test_the_map_tells_sources_apart_where_there_are_several(copied, page):
    assert "by source:" not in page.text
    scans = copied.root / paths.SCANS
    lines = scans.read_text().splitlines(keepends=True)
    scans.write_text("".join(line.replace(",luna16,luna16,", ",other,luna16,") if n % 2 else line for n, line in enumerate(lines)))  # fmt: skip
    shown = Page(write(copied))
    assert "by source: ● luna16 ■ other" in " ".join(shown.text.split())
    charts = [attributes["aria-label"] for _, attributes in shown.elements if attributes.get("role") == "img"]
    assert sum("marked by source" in label for label in charts) == 1


def test_parameters_are_shown_whole_and_read_back_equal(made, page):
    text = page.text[page.text.index("params.yaml, whole") + len("params.yaml, whole") :]
    assert yaml.safe_load(text[: text.index("Libraries")]) == made.study.model_dump(mode="json")


def test_versions_and_commit_are_named(page):
    assert "Commit 0123abc." in page.text
    for name, value in versions():
        assert name in page.text
        assert value in page.text


# ------------------------------------------------------------------------------------------ variants


def test_without_tasks_the_page_ends_with_pre_training_and_says_so(make_study):
    page = Page(write(make_study(tasks=())))
    assert "This study has no target task" in page.text
    assert "the study ends here" in page.text
    assert "Fine-tuning" not in page.text
    assert "summary" not in page.tables


def test_without_methods_the_page_has_results_from_scratch(make_study):
    page = Page(write(make_study(methods=())))
    assert "This study pre-trains nothing" in page.text
    assert [row[-6] for row in page.tables["summary"][1:]] == ["scratch (control)", "baseline: threshold"] * 2


def test_without_tasks_and_methods_there_is_still_a_page(make_study):
    text = Page(write(make_study(tasks=(), methods=()))).text
    assert "This study pre-trains nothing" in text
    assert f"{PATTERNS} discovered patterns" in text


@pytest.fixture(scope="module")
def bare(make_study):
    return Page(write(make_study(truth=False, trials=1)))


def test_without_truth_it_says_that_only_the_eye_can_judge(bare):
    text = " ".join(bare.text.split())
    assert "is to be judged by eye" in text
    assert "correlate by 0.571 with each other, and by −0.082 with those of other patterns" in text
    assert "84 % of the validation patients' patches" in text
    assert "controls" not in bare.tables
    assert "frames" not in bare.tables
    assert "random" not in bare.text.split("Discovered patterns")[1].split("How well discovery worked")[0]


def test_one_trial_has_no_spread_and_no_test(bare):
    assert "With one trial there is neither a standard deviation nor a test." in bare.text
    assert [row[-4] for row in bare.tables["summary"][1:4]] == ["–", "–", "–"]
    assert bare.tables["summary"][1][-5].endswith("± –")


# ------------------------------------------------------------------------------------------- hostile


def test_names_and_sentences_of_data_sets_are_harmless(tmp_path):
    made = write_study(tmp_path, patient=HOSTILE[:60])
    quarantine = made.root / paths.QUARANTINE
    quarantine.write_text(quarantine.read_text().replace("truncated", "<img src=x onerror=alert(1)>"))
    (made.root / paths.COHORT_SUMMARY).write_text(
        json.dumps({"warnings": ["</style><script>1</script> \ud800"]})
    )
    (made.root / paths.EVALUATE / "baselines.csv").write_text(
        "task,metric,name,description,score\nncc,AUC,--><script>$x^$</script><!--,<b>bold</b> {{ 7*7 }},0.5\n"
    )
    html = write(made)
    page = Page(html)
    assert "<script" not in html
    assert not page.named("script")
    assert any("<script>alert(" in attributes["alt"] for attributes in page.named("img"))
    assert "--><script>$x^$</script><!--" in page.text
    assert "<b>bold</b> {{ 7*7 }}" in page.text
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "\\ud800" in page.text
    assert all("onerror" not in attributes for attributes in page.named("img"))


def test_a_missing_table_is_named(copied):
    (copied.root / paths.EVALUATE / "trials.csv").unlink()
    with pytest.raises(InputError, match=r"trials\.csv: there is no such file; run `dvc repro`"):
        write(copied)


def test_a_table_without_a_column_is_named(copied):
    (copied.root / paths.EMBED / "history.csv").write_text("epoch,train\n1,0.5\n")
    with pytest.raises(InputError, match=r"history\.csv: the table must have the columns \['validation'\]"):
        write(copied)


def test_a_damaged_patch_is_named(copied):
    path = copied.root / paths.PATTERNS
    with open_h5(path) as file:
        start = file["patches"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[start + 100] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"patterns\.h5: damaged"):
        discovery.patterns(copied.root, copied.study)


# --------------------------------------------------------------------------------- stage and browser


def test_the_stage_writes_the_same_page_whatever_the_hash_seed(project):
    made = write_study(project.root)
    (project.root / "params.yaml").write_text(
        yaml.safe_dump(made.study.model_dump(mode="json"), sort_keys=False)
    )
    pages = []
    for seed in ("1", "2"):
        done = project.run("report", PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        assert "report/index.html" in done.stdout + done.stderr
        pages.append((project.root / "report" / "index.html").read_bytes())
    assert pages[0] == pages[1]


def test_a_browser_shows_it(made, html, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    from PIL import Image

    shot = tmp_path / "page.png"
    subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1200,4000", f"--screenshot={shot}", (made.root / "index.html").as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    image = Image.open(shot).convert("RGB")
    assert image.size == (1200, 4000)
    colours = image.getcolors(maxcolors=1200 * 4000)
    assert len(colours) > 200
    background = max(colours)[0] / (1200 * 4000)
    assert 0.3 < background < 0.97
    # The bars of the three initializations are drawn, in the page's own colours.
    inks = {colour for count, colour in colours if count > 30}
    assert {(0x0F, 0x7F, 0x77), (0xC2, 0x58, 0x1C), (0x5B, 0x50, 0xB8)} <= inks or {
        (0x43, 0xB8, 0xAB)
    } <= inks
