"""What is broken between discovery and learning ends a method's run in words, with the name of the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from sg import params
from sg.errors import InputError
from sg.patches import ROW, PatchCache, write_cache
from sg.pretraining import check
from tests.networks.sizes import network

SIZE = (8, 8, 8)
CLIP = (-1000.0, 1000.0)
CACHE = "imports/theirs.h5"
RECIPE = params.MethodRecipe(
    reads=CACHE, losses=params.Losses(restoration=1.0, classification=0.01), perturbations=[]
)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A sound cache of a study's own, twelve patches of two patterns."""
    monkeypatch.chdir(tmp_path)
    Path("imports").mkdir()
    rows = np.zeros(12, ROW)
    rows["pattern"], rows["split"] = np.arange(12) % 2, [b"train"] * 8 + [b"validation"] * 4
    hu = np.random.default_rng(0).integers(-1000, 1001, (12, *SIZE)).astype(np.int16)
    write_cache(
        Path(CACHE),
        rows,
        enumerate(hu),
        hu_min=CLIP[0],
        hu_max=CLIP[1],
        patterns=2,
        patch_size=SIZE,
        compression="none",
    )
    return Path(CACHE)


def learn(path: Path) -> None:
    """What a method does with a cache before and while it learns: check it, and read every patch."""
    patches = PatchCache(path)
    check(patches, network(), RECIPE, CLIP)
    patches.read(np.arange(len(patches)))


def edited(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return edit


def external_link(file: h5py.File) -> None:
    del file["patches"]
    file["patches"] = h5py.ExternalLink("/etc/passwd", "patches")


def kept_elsewhere(file: h5py.File) -> None:
    shape = file["patches"].shape
    del file["patches"]
    file.create_dataset("patches", shape, "i2", external=[("/etc/passwd", 0, 2**20)])


def lying_size(file: h5py.File) -> None:
    del file["patches"]
    file.create_dataset("patches", (10**7, *SIZE), "i2", chunks=(1, *SIZE), fletcher32=True)


def fewer_rows(file: h5py.File) -> None:
    rows = file["rows"][:-1]
    del file["rows"]
    file.create_dataset("rows", data=rows, chunks=True, fletcher32=True)


def other_type(file: h5py.File) -> None:
    rows = file["rows"][...]
    del file["rows"]
    wide = [(name, "i8" if name == "rank" else ROW[name]) for name in ROW.names]
    file.create_dataset("rows", data=rows.astype(wide), chunks=True, fletcher32=True)


def floats(file: h5py.File) -> None:
    patches = file["patches"][...]
    del file["patches"]
    file.create_dataset("patches", data=patches.astype("f4"), chunks=(1, *SIZE), fletcher32=True)


def no_number(file: h5py.File) -> None:
    file.attrs["patterns"] = "two"


def no_range(file: h5py.File) -> None:
    file.attrs["hu_min"] = np.nan


def darker(file: h5py.File) -> None:
    file.attrs["hu_max"] = 400.0


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def test_a_sound_cache_is_read(cache):
    learn(cache)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (cut, "truncated: it has "),
        (nothing, "not an HDF5 file"),
        (Path.unlink, "there is no such file"),
        (edited(external_link), "patches must not be a link to another place"),
        (edited(kept_elsewhere), "it keeps its values in another file"),
        (edited(lying_size), "declares 10000000 blocks, which is more than the file has bytes"),
        (edited(fewer_rows), "`patches` (11, 8, 8, 8), by its rows and patch_size, got (12, 8, 8, 8)"),
        (edited(other_type), "`rows` must have rank <i4, got rank <i8"),
        (edited(floats), "patches must be int16 along 4 axes, got float32 (12, 8, 8, 8)"),
        (edited(no_number), "patterns must be a whole number, got 'two'"),
        (edited(no_range), "hu_min must be less than hu_max, both finite, got nan and 1000"),
        (edited(darker), "to -1000 to 1000 HU, got -1000 to 400"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_cache_is_named_before_anything_is_learned(cache, fault, said):
    fault(cache)
    with pytest.raises(InputError) as caught:
        learn(cache)
    assert str(caught.value).startswith(f"{CACHE}: ")
    assert said in str(caught.value)
    assert "delete" not in str(caught.value)  # it is the user's


def test_64_zeroed_bytes_are_named_with_the_file_wherever_patches_lie(cache):
    content = cache.read_bytes()
    first = content.index(PatchCache(cache).read([0]).tobytes())
    places = np.random.default_rng(1).integers(first, first + 8 * 1024 - 64, 20)
    for place in places.tolist():
        cache.write_bytes(content[:place] + bytes(64) + content[place + 64 :])
        with pytest.raises(InputError, match=f"^{CACHE}: .*damaged"):
            learn(cache)
