"""The one kind of error that a user is shown as a sentence instead of a traceback."""

from __future__ import annotations

import errno


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one or two sentences: where, the rule, the value that broke it, and the remedy.
    """


def in_words(error: BaseException) -> str | None:
    """What to tell the user of an error that is not a bug of ours; None for a bug.

    A full disk, a file that may not be read or written, and memory that ran out are the machine's matter. HDF5
    reports a full disk as a plain OSError or RuntimeError with the number in its text.
    """
    if isinstance(error, InputError):
        return str(error)
    # PyTorch reports memory that ran out as a RuntimeError.
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    ):
        return "the memory ran out; close other programs, use fewer workers (SG_WORKERS=1) or smaller batches"
    if isinstance(error, OSError | RuntimeError):
        number = getattr(error, "errno", None)
        text = str(error)
        if (
            number in (errno.ENOSPC, errno.EDQUOT)
            or "errno = 28" in text
            or "No space left on device" in text
        ):
            return "the disk is full; free some space and run again: no output is left half-written under its final name"
        if isinstance(error, PermissionError):
            return f"{error.filename}: permission denied; make it readable (and its folder writable) for this user"
    return None
