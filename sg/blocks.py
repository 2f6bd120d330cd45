"""Stretches of a file at the speed of memory, from a map of it, without the ways in which a map ends a process."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from sg.compiled import compiled

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

    def in_memory(self, offsets: np.ndarray, size: int) -> bool:
        """Whether all of the blocks, each so many bytes from one of those places (int64 (n,)) on, can be read from
        the map now.

        Of a file that is neither ours nor writable, the system says that all of it is in memory.
        """
        if offsets.max(initial=0) + size > os.fstat(self._descriptor).st_size:
            return False
        found = np.empty(size // mmap.PAGESIZE + 2, np.uint8)
        return _all_in_memory(self.bytes.ctypes.data, offsets, size, found, mmap.PAGESIZE)

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


def _pages_in_memory(address: int, offsets: np.ndarray, size: int, found: np.ndarray, page: int) -> bool:
    """`MappedFile.in_memory` of a map that begins at an address; `found`, uint8, has room for the pages of a block."""
    for offset in offsets:
        before = offset % page
        if mincore(address + offset - before, before + size, found.ctypes.data) != 0:  # noqa: F821
            return False
        resident = np.uint8(1)
        for place in range((before + size + page - 1) // page):
            resident &= found[place]
        if resident == 0:
            return False
    return True


# Asked from Python, it would take longer than a third of the reading.
_all_in_memory = compiled(_pages_in_memory, {"mincore": "intc(uintp, uintp, uintp)"})
