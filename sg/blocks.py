"""Stretches of a file at the speed of memory, from a map of it, without the ways in which a map ends a process."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

# Reading an address for which the system has no page, because the file was cut short or its disk fails, is SIGBUS.
_mincore = ctypes.CDLL(None).mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_ALIGNMENT = 64


class MappedFile:
    """A file open for reading by any number of threads, in the process that opened it; closed when nobody holds it.

    A checksum over a map takes no longer than copying from it (20 microseconds for 256 KiB; asking the system for a
    copy first takes 43). The system is asked only for what is not in memory, so that a disk that fails gives an
    error, and the file's length is looked at before each block. What is left is a file that is cut short in the
    microseconds after; and nothing of ours is written in place.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self.status = os.fstat(self._descriptor)
        self._bytes = np.frombuffer(
            mmap.mmap(self._descriptor, self.status.st_size, prot=mmap.PROT_READ), np.uint8
        )
        self._address = self._bytes.ctypes.data

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def block(self, offset: int, size: int) -> np.ndarray:
        """So many bytes from that place on, uint8 (size,), not to be written to; OSError if they cannot be read."""
        if offset + size > min(os.fstat(self._descriptor).st_size, len(self._bytes)):
            raise OSError("the file ends before the block does")
        if self._in_memory(offset, size):
            return self._bytes[offset : offset + size]
        return self._asked_for(offset, size)

    def _in_memory(self, offset: int, size: int) -> bool:
        # Of a file that is neither ours nor writable, the system says that all of it is.
        before = offset % mmap.PAGESIZE
        pages = -(-(before + size) // mmap.PAGESIZE)
        found = ctypes.create_string_buffer(pages)
        return (
            _mincore(self._address + offset - before, before + size, found) == 0
            and found.raw == b"\1" * pages
        )

    def _asked_for(self, offset: int, size: int) -> np.ndarray:
        # Put as far from a multiple of 64 as it comes from: else the system's copy takes four times as long.
        room = np.empty(size + 2 * _ALIGNMENT, np.uint8)
        start = (offset - room.ctypes.data) % _ALIGNMENT
        block, done = room[start : start + size], 0
        while done < size:  # network file systems may give less at a time
            got = os.preadv(self._descriptor, [block[done:]], offset + done)
            if got == 0:
                raise OSError("the file ends before the block does")
            done += got
        return block
