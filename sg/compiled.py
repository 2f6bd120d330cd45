"""Loops that arrays cannot say, compiled by numba."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when it is first called, so that importing its module costs nothing.

    It lets go of the interpreter's lock, and rounds as the same lines of Python would (no fast math), so its
    results are the same on every machine. The machine code is kept beside the source, or where numba keeps it for
    a user who may not write there, or nowhere. Its freshness is judged by the one source file: a compiled
    function must not call another module's.
    """

    @functools.cache
    def machine_code() -> Callable[..., Any]:
        import numba

        try:
            return numba.njit(function, cache=True, nogil=True)
        except (
            RuntimeError
        ):  # no place to cache in: neither the source's folder nor the home can be written to
            return numba.njit(function, nogil=True)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return machine_code()(*arguments)

    return call
