from __future__ import annotations

import os

import numpy as np
import pytest

from sg.blocks import MappedFile

CONTENT = np.random.default_rng(0).bytes(100_000)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "f").write_bytes(CONTENT)
    return tmp_path / "f"


PLACES = [(0, 1), (0, 100_000), (4095, 2), (4096, 4096), (77, 50_001), (99_999, 1)]


@pytest.mark.parametrize(("offset", "size"), PLACES)
def test_the_map_and_a_copy_are_the_bytes_at_a_place(path, offset, size):
    file = MappedFile(path)
    assert file.in_memory(np.array([offset]), size)  # it has just been written
    assert file.bytes[offset : offset + size].tobytes() == CONTENT[offset : offset + size]
    assert file.copy(offset, size).tobytes() == CONTENT[offset : offset + size]


def test_what_was_put_out_of_memory_is_not_in_memory_until_it_was_asked_for(path):
    file = MappedFile(path)
    with path.open("rb") as held:
        os.fsync(held.fileno())
        os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if file.in_memory(np.array([0]), len(CONTENT)):
        pytest.skip("this file system keeps its files in memory")
    assert file.copy(0, len(CONTENT)).tobytes() == CONTENT
    assert file.in_memory(np.array([0, 8000]), 1000)


def test_an_answer_in_pieces_is_put_together_and_a_failing_disk_is_an_error(path, monkeypatch):
    file, whole = MappedFile(path), os.preadv
    monkeypatch.setattr(os, "preadv", lambda number, buffers, at: whole(number, [buffers[0][:1000]], at))
    assert file.copy(33, 50_000).tobytes() == CONTENT[33:50_033]

    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(OSError, match="Input/output error"):
        file.copy(0, 10)


def test_a_file_cut_short_while_open_is_an_error_not_the_end_of_the_process(path):
    file = MappedFile(path)
    os.truncate(path, 50_000)
    assert file.in_memory(np.array([0]), 50_000)
    assert not file.in_memory(np.array([0, 49_999]), 2)
    assert file.copy(0, 50_000).tobytes() == CONTENT[:50_000]
    with pytest.raises(OSError, match="ends before the block"):
        file.copy(49_999, 2)
