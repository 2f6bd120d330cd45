"""Files whose bytes are checked: ordinary, in their folder, whole, and with a right checksum.

Libraries return cut files as full volumes and do not look at the checksums of compressed ones. Here a part that
is asked for comes whole or is refused, and a compressed stream is read to its end so that its checksum counts.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any, BinaryIO

# Inflates 1.4 to 2.3 times as fast as zlib, and looks at the same checksums
from isal import isal_zlib

CHUNK = 1 << 18  # bytes; larger pieces are mapped anew by the allocator every time
DEFLATE_RATIO_MAX = 1032  # deflate cannot make more bytes out of one (zlib's technical notes)
GZIP = b"\x1f\x8b"

AGAIN = "copy it again from its source"


class Refusal(Exception):
    """A file that is not used: `rule` is a short name of why, `reason` a sentence for a person."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, reason)
        self.rule = rule
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


def check_file(path: Path, root: Path, header: Path | None = None) -> None:
    """Refuse what is not an ordinary, filled file below `root`, links resolved.

    A data file must also lie in the folder of the `header` that names it, or below.
    """
    try:
        real = path.resolve(strict=True)
        status = real.stat()
        homes = [root.resolve()] if header is None else [root.resolve(), header.resolve().parent]
    except FileNotFoundError:
        if header is None:
            raise Refusal("missing-data-file", f"The file {path.name} is not there.") from None
        raise Refusal(
            "missing-data-file",
            f"The header names the data file {path.name}, which is not there; copy both together.",
        ) from None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a link that leads to itself
        raise unreadable(path, error) from None
    if not all(real.is_relative_to(home) for home in homes):
        raise Refusal(
            "outside-folder",
            f"The file {path.name} is a link that leads out of the data folder; put the file itself there.",
        )
    if not stat.S_ISREG(status.st_mode):
        raise Refusal("format", f"{path.name} is not a file but a folder or a device.")
    if status.st_size == 0:
        raise Refusal("empty", f"The file {path.name} is empty (0 bytes); {AGAIN}.")


def unreadable(path: Path, error: Exception) -> Refusal:
    """The refusal of a file that the operating system does not let us read."""
    words = (getattr(error, "strerror", None) or str(error)).lower()
    return Refusal("unreadable", f"The file {path.name} cannot be read: {words}.")


class Stream:
    """The bytes of a file from `start` on."""

    ratio = 1  # most bytes that come out of one

    def __init__(self, file: BinaryIO, name: str, start: int = 0) -> None:
        self._file = file
        self._name = name
        self.stored = max(0, file.seek(0, 2) - start)
        self.position = 0  # in what comes out
        file.seek(start)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        buffer = bytearray(count)
        self.fill(memoryview(buffer))
        return bytes(buffer)

    def skip(self, count: int) -> None:
        """Pass over `count` bytes."""
        while count > 0:
            count -= len(self.take(min(count, CHUNK)))

    def fill(self, view: memoryview) -> None:
        """Fill the view with the next bytes."""
        done = 0
        while done < len(view):
            piece = self._next(min(len(view) - done, CHUNK))
            if not piece:
                there = self.position + done
                raise Refusal(
                    "truncated",
                    f"The file {self._name} ends too early: at least {len(view) - done:,} bytes are missing "
                    f"after the first {there:,}; {AGAIN}.",
                )
            view[done : done + len(piece)] = piece
            done += len(piece)
        self.position += done

    def check_length(self, total: int) -> None:
        """Refuse a file from which `total` bytes cannot come, before any memory is taken for them."""
        what = f"The header of {self._name} claims {total:,} bytes"
        if self.stored * self.ratio < total:
            more = "" if self.ratio == 1 else f", which {self.stored:,} compressed bytes cannot hold"
            raise Refusal("truncated", f"{what}{more or f', there are {self.stored:,}'}; {AGAIN}.")
        if self.ratio == 1 and self.stored > total:
            raise Refusal(
                "surplus", f"{what}, there are {self.stored:,}; header and voxels do not belong together."
            )

    def finish(self) -> None:
        """Refuse the file if anything follows, or if its checksum is wrong."""
        if self._next(1):
            raise Refusal(
                "surplus",
                f"The file {self._name} holds more than the {self.position:,} bytes that its header accounts for; "
                "header and voxels do not belong together.",
            )

    def _next(self, limit: int) -> bytes:
        return self._file.read(limit)


class Inflating(Stream):
    """The same for what comes out of a gzip or zlib stream; never more memory than is asked for."""

    ratio = DEFLATE_RATIO_MAX

    def __init__(self, file: BinaryIO, name: str, start: int = 0) -> None:
        super().__init__(file, name, start)
        self._gzip = file.read(2) == GZIP
        file.seek(start)
        self._inflate = _inflater()
        self._pending = b""

    def _next(self, limit: int) -> bytes:
        while True:
            if self._inflate.eof and not self._another_member():
                return b""
            given = self._pending or self._file.read(CHUNK)
            try:
                piece = self._inflate.decompress(given, limit)
            except isal_zlib.error as error:
                raise self._damage(str(error)) from None
            self._pending = self._inflate.unconsumed_tail
            if piece:
                return piece
            if not given and not self._inflate.eof:
                raise Refusal(
                    "truncated",
                    f"The compressed file {self._name} ends too early, after {self.stored:,} bytes; {AGAIN}.",
                )

    def _another_member(self) -> bool:
        """Go on to a further gzip member, as parallel compressors write them; False at the end of the file."""
        rest = self._inflate.unused_data or self._file.read(CHUNK)
        if self._gzip and rest[:1] == GZIP[:1]:
            self._inflate, self._pending = _inflater(), rest
            return True
        # gzip allows zeros at the end, with which some storage fills up its blocks
        while self._gzip and rest and not rest.strip(b"\0"):
            rest = self._file.read(CHUNK)
        if rest:
            raise Refusal(
                "surplus", f"Something else follows the compressed voxels in {self._name}; {AGAIN}."
            )
        return False

    def _damage(self, text: str) -> Refusal:
        if "checksum" in text:
            return Refusal(
                "checksum",
                f"The checksum of the compressed file {self._name} is wrong, so its content has changed since it was "
                f"written; {AGAIN}.",
            )
        return Refusal(
            "damaged", f"The compressed file {self._name} is damaged and cannot be unpacked; {AGAIN}."
        )


def _inflater() -> Any:
    return isal_zlib.decompressobj(47)  # gzip or zlib, told apart by the first bytes
