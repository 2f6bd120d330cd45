"""HDF5: equal bytes on writing, and no file that is believed before it is checked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg.errors import InputError
from sg.storage import (
    create_h5,
    data_set,
    empty_array,
    fixed_texts,
    open_checked,
    open_h5,
    reading,
    write_array,
)
from tests.closure import ROOT

STORED = np.random.default_rng(0).integers(-1000, 1000, (20, 30, 40)).astype(np.int16)
WAYS = [("none", False), ("none", True), ("blosc2", False), ("blosc2", True)]


def write(path: Path) -> Path:
    with create_h5(path) as file:
        for index, (compression, fletcher32) in enumerate(WAYS):
            write_array(
                file,
                f"group/a{index}",
                STORED,
                chunks=(8, 16, 64),
                fletcher32=fletcher32,
                compression=compression,
            )
        write_array(file, "names", fixed_texts(["b", "ä"], 12), fletcher32=True)
        write_array(file, "none", np.zeros((0, 3), np.int16), fletcher32=True, compression="blosc2")
        write_array(file, "number", np.float64(2))
        file.attrs["patient"] = "Müller"
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "file.h5")


def test_what_is_written_is_read(file):
    with open_h5(file) as found:
        for index in range(len(WAYS)):
            assert np.array_equal(found[f"group/a{index}"], STORED)
        assert [name.decode() for name in found["names"]] == ["b", "ä"]
        assert (found["none"].shape, found["number"][()], found.attrs["patient"]) == ((0, 3), 2.0, "Müller")
        assert [found[f"group/a{index}"].fletcher32 for index in range(4)] == [False, True, False, True]


def test_equal_content_is_equal_bytes_at_another_time_and_in_another_environment(tmp_path, file):
    time.sleep(1.01)  # HDF5's time stamps, were there any, count seconds
    assert write(tmp_path / "later.h5").read_bytes() == file.read_bytes()
    code = f"from tests.test_storage import write, Path; write(Path({str(tmp_path / 'other.h5')!r}))"
    more = {
        "BLOSC_NTHREADS": "4",
        "BLOSC_CLEVEL": "9",
        "BLOSC_COMPRESSOR": "zstd",
        "BLOSC_SHUFFLE": "NOSHUFFLE",
    }
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **more}, check=True)
    assert (tmp_path / "other.h5").read_bytes() == file.read_bytes()


def test_bytes_do_not_depend_on_who_still_holds_an_array_that_was_written(tmp_path):
    contents = []
    for name, hold in (("dropped.h5", False), ("held.h5", True)):
        held = []
        with create_h5(tmp_path / name) as file:
            for index in range(4):
                made = write_array(file, f"a{index}", STORED, chunks=(7, 16, 64), fletcher32=True)
                rows = empty_array(
                    file, f"b{index}", STORED.shape, "i2", chunks=(1, 30, 40), compression="blosc2"
                )
                for row in range(20):
                    rows[row] = STORED[row]
                held += [made, rows] if hold else []
                del made, rows
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_filling_an_empty_array_gives_the_bytes_of_writing_it_at_once(tmp_path):
    with create_h5(tmp_path / "a.h5") as file:
        write_array(file, "x", STORED, chunks=(1, 30, 40), fletcher32=True, compression="blosc2")
    with create_h5(tmp_path / "b.h5") as file:
        rows = empty_array(
            file, "x", STORED.shape, STORED.dtype, chunks=(1, 30, 40), fletcher32=True, compression="blosc2"
        )
        for index, row in enumerate(STORED):
            rows[index] = row
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_name_that_is_too_long_is_not_cut():
    assert fixed_texts(["abc"], 3).tolist() == [b"abc"]
    assert fixed_texts([], 3).dtype == "S3"
    with pytest.raises(InputError, match="'abcd': a name must take at most 3 bytes, got 4"):
        fixed_texts(["abcd"], 3)
    with pytest.raises(InputError, match="got 4"):
        fixed_texts(["ääa"[:2]], 3)


# ---------------------------------------------------------------------------------- damaged and hostile


@pytest.mark.parametrize("keep", [0, 10, 100, 2000, -1])
def test_a_truncated_file_is_refused(file, keep):
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    why = "not an HDF5 file"
    if keep not in (0, 10):
        why = f"truncated: it has {len(whole[:keep])} bytes and says that it needs {len(whole)};"
    with pytest.raises(InputError, match=rf"file\.h5: {why}"), open_h5(file):
        pass


@pytest.mark.parametrize(
    ("place", "made"),
    [
        ("data/patches/patterns.h5", True),
        ("./data/../data/resampled/a.h5", True),
        ("data/finetune/NCC/scratch/predictions.h5", True),
        (".state/finetune/f/0.h5", True),
        ("data/patches/theirs.h5", False),
        ("data/imported/theirs.h5", False),
        ("data/raw/ct/a.nii", False),
        ("imports/theirs.h5", False),
        ("data/patches/../../imports/theirs.h5", False),
    ],
)
def test_only_what_a_stage_makes_again_is_to_be_deleted(tmp_path, monkeypatch, place, made):
    monkeypatch.chdir(tmp_path)
    for path in (Path(place), tmp_path / place):
        with pytest.raises(InputError, match="there is no such file") as caught:
            open_checked(path)
        assert ("dvc repro" in str(caught.value)) == made
    Path(place).parent.resolve().mkdir(parents=True)
    for parent in ("data/patches", "data"):
        Path(parent).mkdir(parents=True, exist_ok=True)
    for path in (Path(place), tmp_path / place):
        path.write_text("no HDF5")
        with pytest.raises(InputError, match="not an HDF5 file") as caught:
            open_checked(path)
        assert ("delete" in str(caught.value)) == ("dvc repro" in str(caught.value)) == made
    monkeypatch.chdir("data")
    with pytest.raises(InputError) as caught:  # not seen from the project's root
        open_checked(tmp_path / place)
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "kind", "axes", "words"),
    [
        (np.zeros(3, "i4"), np.int32, 2, r"x must be int32 along 2 axes, got int32 \(3,\)"),
        (np.zeros(3, "f8"), np.float32, 1, r"x must be float32 along 1 axis, got float64 \(3,\)"),
        (np.zeros(3, ">i2"), np.int16, 1, r"must be int16 .* got int16 in the other order of bytes \(3,\)"),
        (np.zeros(3, "i4"), np.bytes_, 1, r"must be texts .* got int32 \(3,\)"),
        (np.zeros(3, [("a", "i4")]), np.int32, 1, r"must be int32 .* got a table \(3,\)"),
        (np.zeros(3, "i4"), np.void, 1, r"must be a table .* got int32 \(3,\)"),
        (h5py.Empty("i4"), np.int32, 1, r"must be int32 .* got no values"),
        (None, np.int32, 1, "must be int32 .* got a group"),
    ],
)
def test_a_data_set_of_another_kind_is_named_with_what_it_is(tmp_path, values, kind, axes, words):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        if values is None:
            file.create_group("x")
        else:
            file["x"] = values
    with h5py.File(path) as file, pytest.raises(InputError, match=rf"x\.h5: .*{words}"):
        data_set(file, path, "x", kind, axes)


def test_a_data_set_of_the_kind_is_given_whatever_the_width_of_texts_and_tables(file):
    with open_h5(file) as found:
        assert data_set(found, file, "names", np.bytes_, 1) == found["names"]
        assert data_set(found, file, "group/a1", np.int16, 3) == found["group/a1"]


@pytest.mark.parametrize("name", ["group/a1", "group/a3"])
def test_a_block_with_a_wrong_checksum_is_refused_when_it_is_read(file, name):
    with open_h5(file) as found:
        block = found[name].id.get_chunk_info(1)
    content = bytearray(file.read_bytes())
    content[block.byte_offset + block.size // 2] ^= 4
    file.write_bytes(content)
    with open_h5(file) as found:
        found["group/a0"][...]
    with (
        pytest.raises(InputError, match=r"file\.h5: damaged: a stored block fails its checksum"),
        open_h5(file) as found,
    ):
        found[name][...]


WHOLE: dict[str, bytes] = {}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 64), st.binary(min_size=1, max_size=1))
def test_no_overwritten_stretch_is_read_as_if_nothing_were(tmp_path_factory, place, length, value):
    """Either the file is refused in words, or the checksummed arrays come back as they were."""
    path = tmp_path_factory.getbasetemp() / "overwritten.h5"
    if not WHOLE:
        with create_h5(path) as found:
            write_array(found, "a", STORED[:6], chunks=(4, 16, 64), fletcher32=True)
            write_array(found, "b", STORED[:6], chunks=(4, 16, 64), fletcher32=True, compression="blosc2")
        WHOLE["bytes"] = path.read_bytes()
    content = bytearray(WHOLE["bytes"])
    place %= len(content)
    content[place : place + length] = (value * length)[: len(content) - place]
    path.write_bytes(content)
    try:
        with open_h5(path) as found:
            read = found["a"][...], found["b"][...]
    except InputError as error:
        read, refusal = (), str(error)
    else:
        refusal = ""
    assert "overwritten.h5: " in refusal or len(read) == 2
    assert all(np.array_equal(array, STORED[:6]) for array in read)


def hostile(kind: str, file: h5py.File, beside: Path) -> None:
    match kind:
        case "external link":
            file["x"] = h5py.ExternalLink(str(beside), "/names")
        case "soft link":
            file["x"] = h5py.SoftLink("/elsewhere")
        case "link in a group":
            file["group/x"] = h5py.ExternalLink(str(beside), "/names")
        case "virtual data set":
            layout = h5py.VirtualLayout((2,), "S12")
            layout[:] = h5py.VirtualSource(str(beside), "names", (2,))
            file.create_virtual_dataset("x", layout)
        case "external storage":
            file.create_dataset("x", (50,), "i2", external=[(str(beside), 0, 100)])
        case "huge in one piece":
            file.create_dataset("x", (2**40,), "i2")
        case "huge in blocks":
            file.create_dataset("x", (2**20, 2**20), "i2", chunks=(64, 64))
        case "partly stored":
            file.create_dataset("x", (64, 64), "i2", chunks=(16, 16))[:16] = 1
        case "huge block":
            file.create_dataset("x", (2**13, 2**13 + 1), "u1", chunks=(2**13, 2**13 + 1), compression="lzf")[
                ...
            ] = 0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("external link", "x must not be a link"),
        ("soft link", "x must not be a link"),
        ("link in a group", "group/x must not be a link"),
        ("virtual data set", "it is a virtual data set"),
        ("external storage", "keeps its values in another file"),
        ("huge in one piece", "declares 2199023255552 bytes, of which at most 0 are stored"),
        ("huge in blocks", "declares 268435456 blocks, which is more than the file has bytes, [0-9]+;"),
        ("partly stored", "declares 16 blocks, of which 4 are stored"),
        ("huge block", "has blocks of 67117056 bytes"),
    ],
)
def test_what_reaches_out_of_the_file_or_claims_more_than_it_stores_is_refused(tmp_path, file, kind, words):
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w") as made:
        hostile(kind, made, file)
    with pytest.raises(InputError, match=rf"hostile\.h5: .*{words}"):
        open_checked(path)


def test_what_the_file_lacks_is_named(file):
    with pytest.raises(InputError, match=r"file\.h5: incomplete: it lacks 'image'"), open_h5(file) as found:
        found["image"]
    with pytest.raises(InputError, match=r"file\.h5: incomplete: it lacks 'key'"), open_h5(file) as found:
        found.attrs["key"]
    with (
        pytest.raises(InputError, match=r"gone\.h5: there is no such file"),
        open_h5(file.with_name("gone.h5")),
    ):
        pass


@pytest.mark.parametrize(
    "error", [KeyError("patient"), ValueError("a bug"), OSError(28, "No space left on device")]
)
def test_errors_that_are_not_about_the_file_are_left_alone(file, error):
    with pytest.raises(type(error)) as raised, reading(file):
        raise error
    assert raised.value is error
