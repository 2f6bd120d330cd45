"""`sg patches check`: damage of any kind is told, and named by its row where it is a patch's."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from sg import soundness
from sg.errors import InputError
from sg.formats.files import Refusal
from sg.patches import ROW, PatchCache, write_cache
from sg.soundness import check, damaged_patches, lines, structure
from sg.storage import create_h5, write_array
from tests.hand_made import name, noise
from tests.test_cli import sg

SIZE = (4, 8, 8)
COUNT = 40


def rows(count: int = COUNT, **changes) -> np.ndarray:
    """Rows of a sound cache, three to a pattern, every fourth of validation; `changes` are {field: {row: value}}."""
    table = np.zeros(count, ROW)
    table["pattern"] = np.arange(count) // 3
    table["rank"] = np.arange(count) % 3
    table["scan"] = [name(i).encode() for i in range(count)]
    table["patient"] = [f"patient-{i}".encode() for i in range(count)]
    table["split"] = np.where(np.arange(count) % 4, b"train", b"validation")
    table["corner"] = np.arange(count)[:, None]
    table["extent"] = SIZE
    for field, values in changes.items():
        for row, value in values.items():
            table[field][row] = value
    return table


def write(path, table=None, patches=None, compression="none", patterns=14, hu=(-1000, 1000)):
    table = rows() if table is None else table
    patches = noise(1, (len(table), *SIZE)) if patches is None else patches
    write_cache(
        path, table, enumerate(patches), hu_min=hu[0], hu_max=hu[1], patterns=patterns, patch_size=SIZE,
        compression=compression,
    )  # fmt: skip
    return path


def verdict(path) -> str | dict[int, str]:
    """The reason against the whole file, or the damaged rows; found in this process."""
    try:
        count, broken = structure(path)
    except Refusal as refusal:
        return refusal.reason
    return broken | damaged_patches(path, 0, count)


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_a_sound_cache_is_good_in_every_patch(tmp_path, compression):
    path = write(tmp_path / "c.h5", compression=compression)
    (found,) = check([path, path], 1)
    assert (found.patches, found.good, found.whole) == (COUNT, COUNT, True)
    assert list(lines(found)) == [f"{path}: 40 of 40 patches good"]


def test_random_sub_volumes_and_rows_that_leave_open_where_they_are_from_are_sound(tmp_path):
    random = rows(pattern=dict.fromkeys(range(COUNT), -1), rank=dict.fromkeys(range(COUNT), -1))
    assert verdict(write(tmp_path / "random.h5", random, patterns=0)) == {}
    unknown = rows()
    unknown["scan"], unknown["patient"], unknown["corner"], unknown["extent"] = b"", b"", -1, (4, -1, -1)
    assert verdict(write(tmp_path / "unknown.h5", unknown)) == {}
    assert verdict(write(tmp_path / "empty.h5", rows(0))) == {}


@pytest.mark.parametrize("compression", ["none", "blosc2"])
def test_no_64_zeroed_bytes_that_were_not_zero_before_go_unseen(tmp_path, compression):
    path = write(tmp_path / "c.h5", compression=compression)
    whole = path.read_bytes()
    rng = np.random.default_rng(6)
    damaged = tmp_path / "damaged.h5"
    of_patches = 0
    # Anywhere; and again in the first and last bytes, where the structure is
    places = [*rng.integers(len(whole) - 64, size=120), *rng.integers(2500, size=40)]
    places += list(len(whole) - 64 - rng.integers(2500, size=40))
    for at in map(int, places):
        if not any(whole[at : at + 64]):
            continue
        damaged.write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
        found = verdict(damaged)
        assert found, at
        of_patches += isinstance(found, dict)
    assert of_patches > 60


def test_a_damaged_patch_is_named_by_its_row_and_the_others_are_good(tmp_path):
    patches = noise(5, (COUNT, *SIZE))
    path = write(tmp_path / "c.h5", patches=patches)
    whole = path.read_bytes()
    for row in (3, 17):
        at = whole.index(patches[row].tobytes())
        whole = whole[: at + 100] + bytes(64) + whole[at + 164 :]
    path.write_bytes(whole)
    (found,) = check([path], 2)
    assert (found.good, found.patches, sorted(found.damage)) == (38, 40, [3, 17])
    said = list(lines(found))
    assert said[0] == f"{path}: 38 of 40 patches good, 2 damaged"
    assert said[1] == (
        f"  row 3: its patch of scan {name(3)}, corner [3, 3, 3], is damaged: its checksum fails or its block cannot be read"
    )
    assert said[3] == "  get a whole copy of it, import it again, or name another file"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_cache_cut_off_anywhere_is_refused_as_a_whole(tmp_path, share):
    path = write(tmp_path / "c.h5")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    (found,) = check([path], 1)
    assert (found.patches, found.good, found.whole) == (None, 0, False)
    assert "truncated" in found.reason or "not an HDF5 file" in found.reason


def test_links_out_of_the_file_and_values_kept_elsewhere_are_refused(tmp_path):
    sound = write(tmp_path / "sound.h5")
    for kind in ("external", "soft", "virtual", "raw"):
        path = tmp_path / f"{kind}.h5"
        shutil.copy(sound, path)
        with h5py.File(path, "r+") as file:
            del file["patches"]
            shape = (COUNT, *SIZE)
            if kind == "external":
                file["patches"] = h5py.ExternalLink("sound.h5", "/patches")
            elif kind == "soft":
                file["patches"] = h5py.SoftLink("/rows")
            elif kind == "virtual":
                layout = h5py.VirtualLayout(shape, np.int16)
                layout[...] = h5py.VirtualSource(str(sound), "patches", shape)
                file.create_virtual_dataset("patches", layout)
            else:
                file.create_dataset("patches", shape, np.int16, external=[(str(sound), 0, 40 * 512)])
    words = {"external": "link", "soft": "link", "virtual": "virtual", "raw": "in another file"}
    for kind, word in words.items():
        assert word in verdict(tmp_path / f"{kind}.h5")


def test_a_size_that_lies_is_refused_whichever_tells_it(tmp_path):
    path = write(tmp_path / "c.h5")
    for trial, lie in enumerate(["more patches than stored", "patch_size", "rows"]):
        lying = tmp_path / f"{trial}.h5"
        shutil.copy(path, lying)
        with h5py.File(lying, "r+") as file:
            if lie == "patch_size":
                file.attrs["patch_size"] = [8, 8, 8]
            elif lie == "rows":
                del file["rows"]
                write_array(file, "rows", rows(41), fletcher32=True)
            else:
                del file["patches"]
                made = file.create_dataset(
                    "patches", (10**9, *SIZE), np.int16, chunks=(1, *SIZE), fletcher32=True
                )
                made[0] = 1
        assert ("declares 1000000000 blocks" if trial == 0 else "must hold `patches` (4") in verdict(lying)


def test_a_block_that_was_stored_without_its_checksum_is_refused(tmp_path):
    path = write(tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        file["patches"].id.write_direct_chunk((7, 0, 0, 0), bytes(512), filter_mask=1)
    assert verdict(path) == "the block of /patches at row 7 must have a checksum, it is stored without one"
    with create_h5(tmp_path / "plain.h5") as file:
        write_array(file, "patches", noise(1, (COUNT, *SIZE)), chunks=(1, *SIZE), fletcher32=True)
        write_array(file, "rows", rows())
        file.attrs["patch_size"], file.attrs["patterns"] = SIZE, 14
        file.attrs["hu_min"], file.attrs["hu_max"] = -1000.0, 1000.0
    assert verdict(tmp_path / "plain.h5") == "/rows must be kept in blocks with checksums"


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("pattern", 14, "its pattern must be 0 to 13, got 14"),
        ("rank", -2, "its rank must be at least 0, or -1 where it has none, got -2"),
        ("resolution", -1, "its resolution must be at least 0, got -1"),
        ("split", b"test", "its split must be train or validation, got 'test'"),
        ("scan", b"../../etc", "its scan must be 12 hexadecimal digits, got '../../etc'"),
        ("scan", b"", r"without a scan its corner must be -1, got [5, 5, 5]"),
        ("corner", (0, -1, 0), "its corner must lie inside the scan, got [0, -1, 0]"),
        ("extent", (4, 0, 8), "its extent must be at least 1, got [4, 0, 8]"),
        ("patient", b"patient-4", "its patient is in the other split elsewhere, got 'patient-4'"),
        ("scan", name(3).encode(), "its scan is another patient's elsewhere, got '000000000003'"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named_with_the_rule(tmp_path, field, value, rule):
    assert verdict(write(tmp_path / "c.h5", rows(**{field: {5: value}}))) == {5: rule}


def test_groups_in_place_of_arrays_and_names_that_are_no_text_are_answered(tmp_path):
    for part in ("patches", "rows"):
        path = write(tmp_path / f"{part}.h5")
        with h5py.File(path, "r+") as file:
            del file[part]
            file.create_group(part)
        (found,) = check([path], 1)
        assert f"{part}" in found.reason
        assert "a group" in found.reason
    path = write(tmp_path / "named.h5", rows(scan={7: b"\xff\xfe\xfd"}))
    offset = int(PatchCache(path)._known().offsets[7])
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    (found,) = check([path], 1)
    assert list(found.damage) == [7]
    with pytest.raises(InputError, match=r"row 7 \(scan \\xff\\xfe\\xfd, corner"):
        PatchCache(path).read([7])


def test_values_beyond_the_clip_and_an_impossible_clip_are_damage(tmp_path):
    patches = noise(5, (COUNT, *SIZE))
    patches[9, 0, 0, 0] = 1001
    (damage,) = verdict(write(tmp_path / "c.h5", patches=patches)).items()
    assert damage[0] == 9
    assert damage[1].startswith("its values must lie in -1000 to 1000 HU")
    for number, hu in enumerate([(1000, -1000), (np.nan, 1000), (-1000, np.inf)]):
        assert "hu_min must be less than hu_max" in verdict(write(tmp_path / f"{number}.h5", hu=hu))


def test_of_many_damaged_rows_the_first_are_named_and_the_others_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(soundness, "NAMED", 2)
    (found,) = check([write(tmp_path / "c.h5", rows(rank=dict.fromkeys(range(5), -9)))], 1)
    said = list(lines(found))
    assert len(said) == 5
    assert said[3] == "  and 3 more rows"


def test_paths_that_are_no_files_are_input_errors(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.h5: there is no such file"):
        check([tmp_path / "nowhere.h5"], 1)
    with pytest.raises(InputError, match=r"is a folder; name the \.h5 files in it"):
        check([tmp_path], 1)


def test_the_command_ends_with_1_for_damage_and_2_for_a_wrong_call(tmp_path):
    write(tmp_path / "good.h5")
    (tmp_path / "bad.h5").write_text("no cache")
    done = sg("patches", "check", "good.h5", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "good.h5: 40 of 40 patches good\n"), done.stderr
    done = sg("patches", "check", "good.h5", "bad.h5", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "\nbad.h5: no patch can be vouched for: not an HDF5 file" in done.stdout
    done = sg("patches", "check", "none.h5", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "none.h5: there is no such file\n")
