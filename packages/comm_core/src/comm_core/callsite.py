"""Which line of the user's called a collective."""

from __future__ import annotations

import functools
import itertools
import sys
from types import CodeType

from comm_core import compat

Started = tuple[int, CodeType, int]  # a number that grows, the code that called, and the place in it

_OURS = ("functional_collectives", "fsdp_collectives", "func_map", "comm_lowering", "comm_core", "torch", "contextlib")
_numbers = itertools.count()
_is_ours: dict[str, bool] = {}  # of the names of modules seen


@compat.never_compiled  # where a graph breaks, Dynamo would walk it for every frame
def caller(up: int = 1) -> Started:
    """Return the nearest place outside of commbook and torch; a frame itself would keep its variables alive.

    Args:
        up: at which frame to begin; those below are known to be ours.

    Example:
        >>> place(caller()).rpartition(":")[2].isdigit()
        True
    """
    frame = sys._getframe(up)
    while True:
        try:
            ours = _is_ours[frame.f_globals["__name__"]]
        except KeyError:
            ours = _seen(frame.f_globals.get("__name__", ""))
        if not ours or (outer := frame.f_back) is None:
            return next(_numbers), frame.f_code, frame.f_lasti
        frame = outer


def _seen(name: str) -> bool:
    """Tell whether a module that may be new is ours, and keep the answer."""
    return _is_ours.setdefault(name, name.partition(".")[0] in _OURS)


def place(started: Started) -> str:
    """Return a place as `file:line`."""
    return _place(*started[1:])


@functools.lru_cache(maxsize=1024)
def _place(code: CodeType, instruction: int) -> str:
    lines = [line for start, end, line in code.co_lines() if start <= instruction < end]
    return f"{code.co_filename}:{lines[0] if lines else code.co_firstlineno}"
