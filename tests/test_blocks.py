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


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("offset", "size"), [(0, 1), (0, 100_000), (4095, 2), (4096, 4096), (77, 50_001), (99_999, 1)]
)
def test_a_block_is_the_bytes_at_its_place(path, monkeypatch, in_memory, offset, size):
    monkeypatch.setattr(MappedFile, "_in_memory", lambda *_: in_memory)
    assert MappedFile(path).block(offset, size).tobytes() == CONTENT[offset : offset + size]


def test_what_is_in_memory_is_not_asked_for_and_what_is_not_is(path, monkeypatch):
    file = MappedFile(path)
    file.block(0, len(CONTENT))
    monkeypatch.setattr(os, "preadv", lambda *_: pytest.fail("asked for"))
    assert file.block(5, 5000).tobytes() == CONTENT[5:5005]


def test_an_answer_in_pieces_is_put_together_and_a_failing_disk_is_an_error(path, monkeypatch):
    monkeypatch.setattr(MappedFile, "_in_memory", lambda *_: False)
    file, whole = MappedFile(path), os.preadv
    monkeypatch.setattr(os, "preadv", lambda number, buffers, at: whole(number, [buffers[0][:1000]], at))
    assert file.block(33, 50_000).tobytes() == CONTENT[33:50_033]

    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(OSError, match="Input/output error"):
        file.block(0, 10)


def test_a_file_cut_short_while_open_is_an_error_not_the_end_of_the_process(path):
    file = MappedFile(path)
    os.truncate(path, 50_000)
    assert file.block(0, 50_000).tobytes() == CONTENT[:50_000]
    with pytest.raises(OSError, match="ends before the block"):
        file.block(49_999, 2)
    os.truncate(path, 200_000)
    with pytest.raises(OSError, match="ends before the block"):
        file.block(150_000, 10)  # longer than when it was opened: beyond the map
