"""Loops that arrays cannot say, compiled by numba."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any


def compiled(function: Callable[..., Any], symbols: Mapping[str, str] | None = None) -> Callable[..., Any]:
    """The function, compiled when it is first called, so that importing its module costs nothing.

    It lets go of the interpreter's lock, and rounds as the same lines of Python would (no fast math), so its
    results are the same on every machine. The machine code is kept beside the source, or where numba keeps it for
    a user who may not write there, or nowhere. Its freshness is judged by the one source file: a compiled
    function must not call another module's. `symbols` are functions of the C library that it calls as if they were
    globals, with what they give and take in numba's words: {"abs": "intc(intc)"}.
    """

    @functools.cache
    def machine_code() -> Callable[..., Any]:
        import numba

        bound = _bound(function, symbols or {})
        try:
            return numba.njit(bound, cache=True, nogil=True)
        except (
            RuntimeError
        ):  # no place to cache in: neither the source's folder nor the home can be written to
            return numba.njit(bound, nogil=True)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return machine_code()(*arguments)

    return call


def _bound(function: Callable[..., Any], symbols: Mapping[str, str]) -> Callable[..., Any]:
    """The function, those of the C library among its globals: from a closure it would be compiled in every process."""
    if not symbols:
        return function
    from numba.core import sigutils, types

    known = dict(function.__globals__)
    for name, signature in symbols.items():
        takes, gives = sigutils.normalize_signature(signature)
        known[name] = types.ExternalFunction(name, gives(*takes))
    return FunctionType(function.__code__, known, function.__name__)
