"""Damaged scans are refused: never a different volume where a length or a checksum exists, never a traceback."""

import gzip
import warnings
import zlib

import numpy as np
import pytest

from sg.scans import Refusal, Scan, files_of, read_scan
from tests.scan_files import LIMITS, ct, write_itk, write_nifti

MUTATIONS = 50


def cut(content, rng):
    return content[: rng.integers(0, len(content))]


def flip(content, rng):
    damaged = bytearray(content)
    damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(damaged)


def zero(content, rng):
    start, length = rng.integers(len(content)), rng.integers(1, 513)
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def drop(content, rng):
    start = rng.integers(len(content))
    return content[:start] + content[start + rng.integers(1, 513) :]


def insert(content, rng):
    start = rng.integers(len(content) + 1)
    return content[:start] + rng.bytes(rng.integers(1, 513)) + content[start:]


def swap(content, rng):
    size = min(512, len(content) // 4)
    first, second = sorted(rng.choice(len(content) // size, 2, replace=False) * size)
    a, b = content[first : first + size], content[second : second + size]
    return content[:first] + b + content[first + size : second] + a + content[second + size :]


DAMAGES = [cut, flip, zero, drop, insert, swap]
LENGTHS = [cut, drop, insert]


def written(folder, name):
    """A whole scan, and the one of its files that is to be damaged."""
    if name in ("gzip", "stored", "nii"):
        path = write_nifti(folder / ("a.nii" if name == "nii" else "a.nii.gz"), ct())
        if name == "stored":  # blocks without compression, as in a file that was compressed in haste
            path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
        return path, path
    path = write_itk(folder / "a.mhd", ct(), compress=name == "zraw")
    if name == "zraw-stored":
        (folder / "a.raw").write_bytes(zlib.compress((folder / "a.raw").read_bytes(), level=0))
        path.write_text(path.read_text().replace("CompressedData = False", "CompressedData = True"))
    return path, files_of(path, folder)[-1]


@pytest.mark.parametrize(
    ("name", "damages"),
    [
        ("gzip", DAMAGES),
        ("stored", DAMAGES),
        ("zraw", DAMAGES),
        ("zraw-stored", DAMAGES),
        ("raw", LENGTHS),
        ("nii", LENGTHS),
    ],
)
def test_of_fifty_damages_none_is_read_as_a_different_volume(tmp_path, name, damages):
    path, file = written(tmp_path, name)
    whole, content = read_scan(path, tmp_path, LIMITS), file.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for number in range(MUTATIONS):
        damage = damages[number % len(damages)]
        damaged = damage(content, rng)
        file.write_bytes(damaged)
        try:
            scan = read_scan(path, tmp_path, LIMITS)
        except Refusal:
            refused += 1
        else:
            # A gzip header's time and the like, or a zero that was zero, tell nothing of the scan
            np.testing.assert_array_equal(scan.array, whole.array, f"{damage.__name__} {number}")
            assert scan.geometry == whole.geometry
    assert refused >= MUTATIONS - 3


@pytest.mark.parametrize("name", ["nii", "mha", "mhd"])
def test_a_header_with_random_bytes_in_it_is_read_or_refused_in_words(tmp_path, name):
    path = write_nifti(tmp_path / "a.nii", ct()) if name == "nii" else write_itk(tmp_path / f"a.{name}", ct())
    content = path.read_bytes()
    head = 352 if name == "nii" else content.index(b"ElementDataFile") + 30
    rng = np.random.default_rng(2)
    outcomes = set()
    for _ in range(200):
        damaged = bytearray(content)
        for position in rng.integers(0, min(head, len(content)), rng.integers(1, 6)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning is a refusal that was forgotten
            try:
                outcomes.add(type(read_scan(path, tmp_path, LIMITS)))
            except Refusal as refusal:
                outcomes.add(refusal.rule)
    assert {Scan, "header", "format"} <= outcomes
