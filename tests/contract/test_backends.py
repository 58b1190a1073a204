"""Compiled is eager, row by row of the matrix, on the backends eager, aot_eager and inductor, over gloo and over shm.

Each backend compiles a part of the rows by default (`test_compiled.py` all, on aot_eager). In `nox -s matrix`,
which sets `COMMBOOK_EVERY_ROW=1`, each compiles all of them, in groups of 1 to 4 ranks, with every dtype and reduce op;
`nox -s matrix -- --world-backends shm` over one transport.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest
import torch

from comm_core import Group, run
from comm_core.catalog import CATALOG
from comm_core.testing import run_ranks

from .case import GLOO_ONLY_MOVES, WORLDS, Case, over_dtypes
from .cases import CASES
from .judge import wrong
from .test_compiled import backwards

EVERY_ROW = bool(os.environ.get("COMMBOOK_EVERY_ROW"))
PARTS = {"eager": (3, 2), "aot_eager": (1, 1), "inductor": (2, 1)}  # the group's size, and rows of a collective
SIZES = [(backend, world) for backend, (own, _) in PARTS.items() for world in (WORLDS if EVERY_ROW else (own,))]

Row = tuple[str, Case]


def rows_of(name: str, world: int, most: int) -> list[Row]:
    return [(name, case) for case in CASES[name](world)[: None if EVERY_ROW else most]]


def dtype_rows(name: str, world: int, transport: str) -> list[Row]:
    typical = CASES[name](world)[0]
    left_out = GLOO_ONLY_MOVES if transport == "gloo" else ()
    return [(name, case) for case in over_dtypes(typical) if case.dtype not in left_out]


def compiled_rows(group: Group, rows: list[Row], backend: str, gradients: bool) -> list[str]:
    """Compile all rows as one graph, and say where it differs from eager, forward and backward."""
    inputs = [case.inputs()[group.rank] for _, case in rows]

    def call(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        made = zip(inputs, rows, strict=True)
        return [run(CATALOG[name], x.clone(), group, **case.params[group.rank]).clone() for x, (name, case) in made]

    def outcome(f: Any) -> list[torch.Tensor]:
        return backwards(f, inputs) if gradients else f(inputs)

    torch.compiler.reset()
    eager = outcome(call)
    got = outcome(torch.compile(call, fullgraph=True, backend=backend))
    ways = ("forward", "backward") if gradients else ("forward",)
    labels = [f"{name}, {case.label}, {way}" for way in ways for name, case in rows]
    said = [wrong(one, other) for one, other in zip(got, eager, strict=True)]
    return [f"{label}: {words}" for label, words in zip(labels, said, strict=True) if words]


def jobs_of(world: int, backend: str, transport: str) -> list[tuple[list[Row], bool]]:
    """Lists of rows, each one graph, and whether it has gradients: small graphs where they are large in all."""
    most = PARTS[backend][1]
    by_name = [rows_of(name, world, most) for name in CATALOG]
    if not EVERY_ROW:  # as one graph
        return [([row for rows in by_name for row in rows], True)]
    dtypes = [dtype_rows(name, world, transport) for name in CATALOG] if EVERY_ROW and world == 2 else []
    return [(rows, True) for rows in by_name] + [(rows, False) for rows in dtypes]


def on_rank(group: Group, backend: str, transport: str) -> list[str]:
    found = []
    for rows, gradients in jobs_of(group.world, backend, transport):
        found += compiled_rows(group, rows, backend, gradients)
    return found


@cache
def on_ranks(backend: str, world: int, transport: str) -> list[list[str]]:
    return run_ranks(on_rank, world, transport, 1500.0 if EVERY_ROW else 240.0, (backend, transport))


@pytest.mark.timeout(1800 if EVERY_ROW else 300)
@pytest.mark.parametrize(("backend", "world"), SIZES)
def test_every_row_compiled_is_the_row(backend: str, world: int, world_backend: str) -> None:
    assert on_ranks(backend, world, world_backend) == [[]] * world


def bools_on_rank(group: Group, transport: str) -> list[str]:
    rows = [row for name in CATALOG for row in dtype_rows(name, group.world, transport) if row[1].dtype is torch.bool]
    assert len(rows) > len(CATALOG) // 2
    return compiled_rows(group, rows, "inductor", False)


def test_bools_stay_bools_under_inductor(world_backend: str) -> None:
    """Its lowerings of torch's all-gather, reduce-scatter and broadcast make int64 of them (2.13)."""
    assert run_ranks(bools_on_rank, 2, world_backend, 240.0, (world_backend,)) == [[], []]
