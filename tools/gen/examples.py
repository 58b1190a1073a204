"""The one example call of each collective that the pages show: on 4 ranks, with 4 elements on each unless it says so.

A parameter has one example value, whichever collective takes it; a function of the rank gives each rank its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from comm_core import Collective, Missing, World, run
from comm_core.groups import AnyGroup

WORLD = 4
ELEMENTS = 4
PARAMETERS: dict[str, Any] = {
    "reduce_op": "sum",
    "dim": 0,
    "src": 1,
    "dst": 1,
    "sizes": [1, 2, 1, 0],
    "reverse": False,
    "sends": lambda rank: [((rank + 1) % WORLD, 3, 0), ((rank - 1) % WORLD, 1, 0)],
    "receives": lambda rank: [((rank - 1) % WORLD, 3, 0), ((rank + 1) % WORLD, 1, 0)],
    "destinations": [1, 2, 3, 0],
    "output_splits": None,
    "input_splits": None,
}

# How many elements each rank has, where that is not ELEMENTS.
ROWS: dict[str, tuple[int, ...]] = {
    "gather": (1, 2, 1, 0),
    "scatter": (0, 4, 0, 0),
    "all_gather_v": (1, 2, 1, 0),
}

Sources = dict[tuple[int, int], float]  # (rank, element) -> how much of it is in a value


@dataclass(frozen=True)
class Holding:
    """What every rank holds, element by element: of which elements each value is made."""

    ranks: tuple[tuple[Sources, ...], ...]


@dataclass(frozen=True)
class Flow:
    """A run of a collective: what the ranks held before and after."""

    before: Holding
    after: Holding


def parameters(entry: Collective, rank: int) -> dict[str, Any]:
    """The example's parameters on one rank.

    Raises:
        SystemExit: no example value is known for one of them.
    """
    unknown = sorted(entry.parameters - PARAMETERS.keys())
    if unknown:
        raise SystemExit(f"tools/gen/examples.py: give PARAMETERS a value for {', '.join(unknown)} of {entry.name}")
    values = {name: PARAMETERS[name] for name in entry.parameters}
    return {name: value(rank) if callable(value) else value for name, value in values.items()}


def call(entry: Collective) -> str:
    """The example call as one would write it, for rank 0."""
    words = [f"{name}={value!r}" for name, value in sorted(parameters(entry, 0).items())]
    return f"{entry.name}({', '.join(['x', *words])})"


def rows(entry: Collective) -> tuple[int, ...]:
    """How many elements each rank of the example has."""
    return ROWS.get(entry.name, (ELEMENTS,) * WORLD)


def forward(entry: Collective) -> Flow:
    """Run the collective on elements that remember where they come from.

    Every element is a row with a single 1, in a column of its own; so a column of the result says how much of that
    element is in it.
    """
    inputs = marked(rows(entry))
    outputs = World(WORLD).run(_run, entry, inputs)
    owners = [(rank, row) for rank, size in enumerate(rows(entry)) for row in range(size)]
    return Flow(holding(inputs, owners), holding(outputs, owners))


def backward(entry: Collective) -> Flow | None:
    """Run the gradient rule on cotangents that remember where they come from; None where there is no rule."""
    if isinstance(entry.gradient, Missing):
        return None
    sizes = tuple(len(rank) for rank in forward(entry).after.ranks)
    cotangents = marked(sizes)
    results = World(WORLD).run(_run_backward, entry, cotangents)
    owners = [(rank, row) for rank, size in enumerate(sizes) for row in range(size)]
    return Flow(holding(cotangents, owners), holding(results, owners))


def marked(sizes: tuple[int, ...]) -> list[torch.Tensor]:
    """One tensor per rank, whose rows together are the rows of an identity matrix."""
    return list(torch.eye(sum(sizes), dtype=torch.float64).split(list(sizes)))


def holding(tensors: list[torch.Tensor], owners: list[tuple[int, int]]) -> Holding:
    """Read of which elements each row is made."""
    return Holding(tuple(tuple(sources(row, owners) for row in tensor) for tensor in tensors))


def sources(row: torch.Tensor, owners: list[tuple[int, int]]) -> Sources:
    """The elements that a row is made of, with their factors."""
    return {owners[column]: row[column].item() for column in row.nonzero().flatten().tolist()}


def _run(group: AnyGroup, entry: Collective, inputs: list[torch.Tensor]) -> torch.Tensor:
    return run(entry, inputs[group.rank].clone(), group, **parameters(entry, group.rank))


def _run_backward(group: AnyGroup, entry: Collective, cotangents: list[torch.Tensor]) -> torch.Tensor:
    cotangent = cotangents[group.rank]
    x = torch.zeros(rows(entry)[group.rank], cotangent.shape[1], dtype=torch.float64, requires_grad=True)
    y = run(entry, x, group, **parameters(entry, group.rank))
    return torch.autograd.grad(y, x, cotangent)[0]
