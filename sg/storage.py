"""HDF5 in one manner: equal content is equal bytes on writing, and nothing is believed on reading.

    with create_h5(run.output(path)) as file:
        write_array(file, "image", image, chunks=(16, 64, 64), fletcher32=True)
    with open_h5(path) as file:
        image = file["image"][...]

Files that may have come from elsewhere (a remote, a colleague) are checked before any of their arrays is
allocated.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from sg.errors import InputError
from sg.paths import made_by_a_stage

# One stored chunk may unpack to no more than this: a small file cannot ask for much memory.
CHUNK_BYTES_MAX = 64 * 2**20

# HDF5's number of the only filter that our files are packed with
BLOSC2 = 32026

# How HDF5 begins a complaint about a file being read, as h5py passes it on; any other error in the body of a
# `with` is not about that file and is left alone.
_ABOUT_READING = re.compile(
    r"^(\[Errno \d+\] )?(Unable to|Can't) (synchronously )?(?!write|create|flush|extend)"
)
_ANY_WIDTH = {np.bytes_: "texts", np.void: "a table"}
_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError)


def create_h5(path: Path) -> h5py.File:
    """A new HDF5 file, to be used in a `with`; the newest format, in which all metadata has checksums.

    Write it in a fixed order and from one process: equal content is then equal bytes.
    """
    # Blosc2 takes its settings from these, over those that are asked for: bytes would depend on the environment.
    for name in [name for name in os.environ if name.startswith("BLOSC_")]:
        del os.environ[name]
    # Without a cache for blocks, one gets its place in the file when it is written. With it, that would be when its
    # object is closed, that is, when nobody holds it any more: a profiler in another thread would change the bytes.
    return h5py.File(path, "w", libver="latest", rdcc_nbytes=0)


def write_array(
    group: h5py.Group,
    name: str,
    array: np.ndarray,
    *,
    chunks: tuple[int, ...] | None = None,
    fletcher32: bool = False,
    compression: Literal["none", "blosc2"] = "none",
) -> h5py.Dataset:
    """Write one array as the data set `name` (below groups, if it has slashes) and return it.

    `chunks` are cut to the array's shape; None lets h5py choose where a checksum or compression needs chunks,
    and else stores the array in one piece. `fletcher32` keeps a checksum for each chunk, which HDF5 tests on
    reading. Blosc2 is lz4 with bit shuffle. Arrays without elements and scalars are stored plainly.
    """
    array = np.asarray(array)
    made = empty_array(
        group, name, array.shape, array.dtype, chunks=chunks, fletcher32=fletcher32, compression=compression
    )
    if array.size:
        made[...] = array
    return made


def empty_array(
    group: h5py.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.typing.DTypeLike,
    *,
    chunks: tuple[int, ...] | None = None,
    fletcher32: bool = False,
    compression: Literal["none", "blosc2"] = "none",
) -> h5py.Dataset:
    """A data set as `write_array` makes it, to be filled by the caller, every chunk once, whole and in order."""
    if compression not in ("none", "blosc2"):
        raise ValueError(f"compression must be none or blosc2, got {compression!r}")
    filters: dict[str, object] = {}
    if 0 not in shape and shape != ():
        if compression == "blosc2":
            import hdf5plugin

            filters |= hdf5plugin.Blosc2(cname="lz4", clevel=5, filters=hdf5plugin.Blosc2.BITSHUFFLE)
        if chunks is not None:
            filters["chunks"] = tuple(min(side, extent) for side, extent in zip(chunks, shape, strict=True))
        elif fletcher32 or filters:
            filters["chunks"] = True
        if fletcher32:
            filters["fletcher32"] = True
    return group.create_dataset(name, shape, dtype, track_times=False, **filters)


def fixed_texts(texts: Sequence[str], width: int) -> np.ndarray:
    """Texts as UTF-8 of a fixed width (dtype S<width>), as tables in HDF5 keep names; read back with `.decode()`.

    InputError for a text that is longer: NumPy would cut it without a word, and two patients could become one.
    """
    encoded = [text.encode() for text in texts]
    for text, code in zip(texts, encoded, strict=True):
        if len(code) > width:
            raise InputError(f"{text!r}: a name must take at most {width} bytes, got {len(code)}; shorten it")
    return np.array(encoded, dtype=f"S{width}")


@contextmanager
def open_h5(path: Path) -> Iterator[h5py.File]:
    """The file opened for reading, checked as `open_checked` does.

    What turns out unreadable in the body of the `with` is an InputError too.
    """
    with reading(path), open_checked(path) as file:
        yield file


def open_checked(path: Path) -> h5py.File:
    """The file opened for reading, for a caller that keeps it open (and reads within `reading(path)`).

    InputError naming the file if it is missing, truncated or no HDF5; if it holds a link out of itself or any
    soft link, a virtual data set or one kept in another file; if a data set declares more than is stored.
    Open after a fork, never before.
    """
    import hdf5plugin  # noqa: F401 (registers Blosc2 with HDF5)

    if not Path(path).is_file():
        how = "run `dvc repro` to make it" if made_by_a_stage(path) else "name one that is there"
        raise InputError(f"{path}: there is no such file; {how}")
    file = None
    try:
        file = h5py.File(path, "r")
        _check(file, path)
    except BaseException as error:
        if file is not None:
            file.close()
        if isinstance(error, _HDF5_ERRORS) and not isinstance(error, PermissionError):
            raise _unreadable(path, error) from error
        raise
    return file


def remedy(path: Path) -> str:
    """What to do about a damaged file. One that no stage would make again is never to be deleted."""
    if made_by_a_stage(path):
        return "delete it and run `dvc repro` to make it again"
    return "get a whole copy of it, import it again, or name another file"


def data_set(file: h5py.File, path: Path, name: str, kind: type, axes: int) -> h5py.Dataset:
    """The data set `name` of an open file, vouched for by what it holds and how many axes it has.

    `kind` is a NumPy type: a number's, in this machine's order of bytes, or np.bytes_ or np.void, texts and tables of
    any width. InputError if it is another.
    """
    found = file[name]
    if isinstance(found, h5py.Dataset):
        of_kind = np.issubdtype(found.dtype, kind) if kind in _ANY_WIDTH else found.dtype == kind
        if of_kind and found.shape is not None and found.ndim == axes:
            return found
        got = "no values" if found.shape is None else f"{_named(found.dtype)} {found.shape}"
    else:
        got = "a group"
    what = _ANY_WIDTH.get(kind) or np.dtype(kind).name
    along = "1 axis" if axes == 1 else f"{axes} axes"
    raise InputError(f"{path}: {name} must be {what} along {along}, got {got}; {remedy(path)}")


def filters(stored: h5py.Dataset) -> list[int]:
    """HDF5's numbers of the filters that a data set's blocks go through when they are written, in order."""
    properties = stored.id.get_create_plist()
    return [properties.get_filter(place)[0] for place in range(properties.get_nfilters())]


def stored_blocks(path: Path, stored: h5py.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Where each block of a data set lies in its file, and how many bytes it takes there: int64 (n,) each.

    For blocks along the first axis only, in its order, one row each. InputError if one is missing, lies beyond
    the end of the file or over another, or was stored without the checksum that the data set declares.
    """
    declared = filters(stored)
    spared = 0
    if h5py.h5z.FILTER_FLETCHER32 in declared:
        spared = 1 << declared.index(h5py.h5z.FILTER_FLETCHER32)
    count = len(stored)
    # Whatever a file says fits into uint64; a block that is not there stays beyond the end.
    at = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    taken, masks = np.zeros(count, np.uint64), np.zeros(count, np.uint32)

    def note(block: h5py.h5d.StoreInfo) -> None:
        row = block.chunk_offset[0]
        if row < count:
            at[row], taken[row], masks[row] = block.byte_offset, block.size, block.filter_mask

    with reading(path):
        stored.id.chunk_iter(note)
    size = np.uint64(Path(path).stat().st_size)
    name = stored.name.strip("/")
    if (masks & spared).any():
        row = int(np.argmax(masks & spared != 0))
        raise InputError(
            f"{path}: {name}: the block of row {row} was stored without a checksum; {remedy(path)}"
        )
    beyond = (at >= size) | (taken > size - np.minimum(at, size))
    if beyond.any():
        row = int(np.argmax(beyond))
        raise InputError(
            f"{path}: {name}: every block must lie in the file's {size} bytes, got that of row {row} at {at[row]} with "
            f"{taken[row]} bytes; {remedy(path)}"
        )
    order = np.argsort(at, kind="stable")
    over = at[order][1:] < (at + taken)[order][:-1]
    if over.any():
        first = int(np.argmax(over))
        raise InputError(
            f"{path}: {name}: every block must have a place of its own, got those of rows {order[first]} and "
            f"{order[first + 1]} one over the other; {remedy(path)}"
        )
    return at.astype(np.int64), taken.astype(np.int64)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what HDF5 complains about in the body (a checksum, a missing data set) into an InputError."""
    try:
        yield
    except _HDF5_ERRORS as error:
        if not _ABOUT_READING.match(_text(error)):
            raise
        raise _unreadable(path, error) from error


def _text(error: Exception) -> str:
    """The message, of a KeyError without the quotes that str puts around it."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: {_in_words(_text(error))}; {remedy(path)}")


def _named(dtype: np.dtype) -> str:
    if dtype.names:
        return "a table"
    if dtype.kind == "S":
        return f"texts of {dtype.itemsize} bytes"
    return dtype.name if dtype.isnative else f"{dtype.name} in the other order of bytes"


def _in_words(complaint: str) -> str:
    lacking = re.search(r"object '(.*)' doesn't exist|can't locate attribute: '(.*)'", complaint)
    if lacking:
        return f"incomplete: it lacks {lacking[1] or lacking[2]!r}"
    if cut := re.search(
        r"truncated file: eof = (\d+), sblock->base_addr = (\d+), stored_eof = (\d+)", complaint
    ):
        there, before, needed = map(int, cut.groups())
        return f"truncated: it has {there + before} bytes and says that it needs {needed}"
    for sign, words in (
        ("filter returned failure", "damaged: a stored block fails its checksum"),
        ("checksum", "damaged: a part of its structure fails its checksum"),
        ("signature not found", "not an HDF5 file, or its beginning is damaged"),
        ("bad byte number", "not an HDF5 file, or its beginning is damaged"),
    ):
        if sign in complaint:
            return words
    return f"cannot be read ({' '.join(complaint.split())})"


def _check(file: h5py.File, path: Path) -> None:
    """InputError unless every link stays inside the file and every data set is wholly stored in it."""
    size = Path(path).stat().st_size
    links: list[tuple[str, int]] = []
    # Only collected here: an exception would not pass through HDF5's own loop.
    file.id.links.visit(
        lambda name, info: links.append((name.decode(errors="replace"), info.type)), info=True
    )
    for name, kind in links:
        if kind != h5py.h5l.TYPE_HARD:
            raise InputError(f"{path}: {name} must not be a link to another place; {remedy(path)}")
        found = file[name]
        if isinstance(found, h5py.Dataset) and (problem := _not_stored(found, size)):
            raise InputError(
                f"{path}: {name} must be wholly stored in the file, but it {problem}; {remedy(path)}"
            )


def _not_stored(found: h5py.Dataset, file_size: int) -> str | None:
    """What keeps a data set from being wholly in its file; None if it is there."""
    if found.is_virtual:
        return "is a virtual data set"
    if found.external:
        return "keeps its values in another file"
    declared = found.size * found.dtype.itemsize if found.shape is not None else 0
    if declared == 0:
        return None
    if found.chunks is None:
        there = min(file_size, found.id.get_storage_size())
        return f"declares {declared} bytes, of which at most {there} are stored" if declared > there else None
    chunk_bytes = math.prod(found.chunks) * found.dtype.itemsize
    if chunk_bytes > CHUNK_BYTES_MAX:
        return f"has blocks of {chunk_bytes} bytes, more than {CHUNK_BYTES_MAX}"
    needed = math.prod(-(-extent // side) for extent, side in zip(found.shape, found.chunks, strict=True))
    # A block takes some bytes however well it is compressed, so a count beyond the file's size cannot be
    # true, and the blocks are not counted then; and an honest file stores every block.
    if needed > file_size:
        return f"declares {needed} blocks, which is more than the file has bytes, {file_size}"
    there = found.id.get_num_chunks()
    return f"declares {needed} blocks, of which {there} are stored" if there != needed else None
