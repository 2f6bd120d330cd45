"""Stretches of a file at the speed of memory, from a map of it, without the ways in which a map ends a process."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_mincore = ctypes.CDLL(None).mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_ALIGNMENT = 64


class MappedFile:
    """A file open for reading by any number of threads, in the process that opened it; closed when nobody holds it.

    Reading from a map ends the process (SIGBUS) where the system has no page to give: the file was cut short, or its
    disk fails. So only what is in memory is to be read from the map (`bytes`, uint8), and the system is asked for a
    copy of anything else, which gives an error in words. What is left is a file that is cut short in the
    milliseconds between; nothing of ours is written in place. Asking for copies alone takes twice as long
    (43 against 20 microseconds for 256 KiB with its checksum).
    """

    _close = staticmethod(os.close)  # the interpreter takes `os` away before the last files, when it ends

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self.status = os.fstat(self._descriptor)
        self.bytes = np.frombuffer(
            mmap.mmap(self._descriptor, self.status.st_size, prot=mmap.PROT_READ), np.uint8
        )

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self._close(self._descriptor)

    def in_memory(self, offsets: list[int], size: int) -> bool:
        """Whether all of the blocks, each so many bytes from one of those places on, can be read from the map now.

        Of a file that is neither ours nor writable, the system says that all of it is in memory.
        """
        page, address = mmap.PAGESIZE, self.bytes.ctypes.data
        if max(offsets, default=0) + size > os.fstat(self._descriptor).st_size:
            return False
        most = size // page + 2
        found = np.ones(len(offsets) * most, np.uint8)
        at = found.ctypes.data
        for number, offset in enumerate(offsets):
            before = offset % page
            if _mincore(address + offset - before, before + size, at + number * most):
                return False
        return bool((found & 1).all())

    def copy(self, offset: int, size: int) -> np.ndarray:
        """The system's copy of so many bytes from that place on, uint8 (size,); OSError if they cannot be read."""
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
