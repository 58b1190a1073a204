"""Which backend ranks get that are not told one: shared memory where it is there, else gloo."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator
from functools import cache

VARIABLE = "COMM_CORE_BACKEND"
ENTRY_POINTS = "comm_core.backends"

OPTIONAL = ("shm",)  # in order of preference
_FALLBACK = "gloo"
_chosen: list[str] = []


def default_backend() -> str:
    """Return the backend that `run_ranks`, `RankPool` and the fixture `world` use when they are not told one.

    That is the value of the environment variable `COMM_CORE_BACKEND` where it is set; else `"shm"` where comm_shm is
    installed and can be used in this process; else `"gloo"`.

    Example:
        >>> from comm_core.testing import run_ranks
        >>> run_ranks(lambda group: group.backend, world=2) == [default_backend()] * 2
        True
    """
    if _chosen:
        return _chosen[-1]
    if given := os.environ.get(VARIABLE):
        return given
    return next((backend for backend in OPTIONAL if why_not(backend) is None), _FALLBACK)


@contextlib.contextmanager
def using_backend(backend: str) -> Iterator[None]:
    """Make a backend the default one within the block; what the fixture `world_backend` does for a test."""
    _chosen.append(backend)
    try:
        yield
    finally:
        _chosen.remove(backend)


@cache
def why_not(backend: str) -> str | None:
    """Return why an optional backend cannot be used in this process, or None when it can.

    A package that brings a backend says so by an entry point of the group `comm_core.backends`: the backend's name,
    and a function that answers this question for it. comm_core never imports such a package by its name.

    Example:
        >>> why_not("carrier_pigeon")
        "no installed package offers the backend 'carrier_pigeon'"
    """
    found = importlib.metadata.entry_points(group=ENTRY_POINTS, name=backend)
    for entry_point in found:
        try:
            reason = entry_point.load()()
        except Exception as error:  # a broken optional package is as good as none
            reason = f"{entry_point.value} failed: {type(error).__name__}: {error}"
        return None if reason is None else str(reason)
    return f"no installed package offers the backend {backend!r}"
