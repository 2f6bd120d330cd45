"""The data set of a DICOM file: its values, each held against what the standard says it is.

pydicom reads it, in bounded memory and quietly, and whatever it makes of damaged bytes becomes a refusal.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.filereader import read_partial

from sg.formats.files import AGAIN, Refusal, unreadable

HEADER_MAX = 1 << 26  # bytes
LARGE = 1 << 14  # bytes
TEXT_MAX = 512  # characters; the standard allows 64 a value in all that are asked for here


def guarded(
    name: str,
    work: Callable[..., Any],
    *args: Any,
    why: str = "its header is damaged",
    rule: str = "damaged",
    **options: Any,
) -> Any:
    """`work(*args, **options)`, whose failures are the file's fault; `why` completes "the file cannot be read:".

    Over damaged bytes pydicom and GDCM raise nearly anything: TypeError, KeyError, struct.error, RecursionError, an
    OSError that no system call made. So nothing less than Exception will do here, and `work` should be little more
    than a call of theirs.
    """
    try:
        return work(*args, **options)
    except (Refusal, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Refusal(rule, f"The DICOM file {name} cannot be read: {why}; {AGAIN}.") from error


class Source(io.BufferedReader):
    """An open file. It takes no more memory than it has bytes, whatever length a damaged header asks for."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(io.FileIO(path))
        self.title = name  # for people
        self.length = self.seek(0, 2)
        self._left = HEADER_MAX
        self.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            # Asked for only where the whole data set is deflated: it would be unpacked at once, however long
            raise Refusal(
                "format", f"The data set of {self.title} is deflated, which is not read; write it plainly."
            )
        if size > LARGE:
            size = min(size, max(0, self.length - self.tell()))
        self._left -= size
        if self._left < 0:
            raise Refusal(
                "damaged",
                f"The header of {self.title} is longer than {HEADER_MAX:,} bytes, which cannot be; {AGAIN}.",
            )
        return super().read(size)

    def pixels(self, offset: int, count: int) -> bytes:
        """`count` bytes of the pixels from byte `offset` on."""
        self.seek(offset)
        content = super().read(min(count, max(0, self.length - offset)))
        if len(content) < count:
            raise cut(self.title)
        return content


@contextmanager
def opened(path: Path, name: str) -> Iterator[Source]:
    """The file for reading; what the operating system refuses is a Refusal, and pydicom keeps quiet meanwhile."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        if path.exists() and not path.is_file():
            raise Refusal("format", f"{name} is not a file but a folder or a device.")
        with warnings.catch_warnings(), Source(path, name) as file:
            warnings.simplefilter("ignore")
            if not file.length:
                raise Refusal("empty", f"The file {name} is empty (0 bytes); {AGAIN}.")
            yield file
    except OSError as error:
        raise unreadable(path, error) from None
    finally:
        log.setLevel(level)


class Fields:
    """The values of a data set, or of an item of it, each checked when it is asked for. Raises Refusal."""

    def __init__(self, data: Dataset, name: str) -> None:
        self.data = data
        self.name = name

    def value(self, keyword: str) -> Any:
        """The value as pydicom gives it; None where it is missing or empty."""
        value = guarded(self.name, self.data.get, keyword)
        return None if value is None or (hasattr(value, "__len__") and not len(value)) else value

    def text(self, keyword: str) -> str:
        """One text without blanks around it; empty where there is none."""
        return "\\".join(self.texts(keyword))

    def texts(self, keyword: str) -> list[str]:
        """All its texts, without blanks around them; control characters escaped, since people will read them."""
        value = self.value(keyword)
        values = [] if value is None else [value] if isinstance(value, str) else value
        texts = [str(part).strip(" \0") for part in guarded(self.name, list, values)]
        texts = [text if text.isprintable() else ascii(text)[1:-1] for text in texts]
        if sum(map(len, texts)) > TEXT_MAX:
            raise Refusal("damaged", f"The {keyword} of {self.name} is too long to be one; {AGAIN}.")
        return texts

    def whole(self, keyword: str) -> int:
        """A whole number."""
        value = self.value(keyword)
        if not isinstance(value, int):
            raise self.refusal(keyword, value, "a whole number")
        return int(value)

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """So many finite numbers; None where the field is missing or empty."""
        value = self.value(keyword)
        if value is None:
            return None
        values = [value] if isinstance(value, int | float | str) else value
        numbers = guarded(self.name, lambda: tuple(float(part) for part in values), rule="header")
        if len(numbers) != count or not all(map(isfinite, numbers)):
            raise self.refusal(keyword, value, "a number" if count == 1 else f"{count} numbers")
        return numbers

    def items(self, keyword: str) -> list[Fields]:
        """The items of a sequence; empty where there is none."""
        value = self.value(keyword)
        if value is not None and not all(isinstance(item, Dataset) for item in value):
            raise self.refusal(keyword, value, "a sequence")
        return [Fields(item, self.name) for item in value or ()]

    def refusal(self, keyword: str, value: Any, wanted: str) -> Refusal:
        said = "does not say it" if value is None else f"says {str(value)[:60]!r}"
        return Refusal("header", f"The header must give {keyword} as {wanted}, {self.name} {said}.")


def parse(file: Source, tags: Sequence[int], last: int) -> Fields:
    """The values of these tags, up to the tag `last`; the file then stands at the first element behind it."""
    file.seek(128)
    marked = file.read(4) == b"DICM"
    file.seek(0)

    def behind(tag: int, vr: str | None, length: int) -> bool:
        return int.__gt__(tag, last)

    rule, why = (
        ("damaged", "its header is damaged") if marked else ("format", "it does not begin as DICOM does")
    )
    data = guarded(file.title, read_partial, file, behind, force=True, specific_tags=tags, rule=rule, why=why)
    fields = Fields(data, file.title)
    if not marked and not any(map(fields.text, ("SOPClassUID", "Modality", "SeriesInstanceUID"))):
        raise Refusal("format", f"The file {file.title} is named as DICOM but does not begin as one.")
    return fields


def cut(name: str) -> Refusal:
    """The refusal of a file that ends too early."""
    return Refusal("truncated", f"The file {name} is cut: it ends before its pixels do; {AGAIN}.")
