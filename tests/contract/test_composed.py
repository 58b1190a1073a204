"""Programs of two to six collectives, drawn at random, against one process that has all ranks' tensors in a list.

The oracle is a program over lists: each step takes all ranks' tensors and gives all ranks' tensors, with torch's own
differentiable ops and no word of comm_core. Plain autograd differentiates the sum of all ranks' losses through it, in
float64. `COMM_COMPOSED_EXAMPLES` asks for more examples than the default suite runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comm_core import Group, SimulatedGroup, World, run
from comm_core.catalog import CATALOG
from comm_core.testing import run_ranks

EXAMPLES = int(os.environ.get("COMM_COMPOSED_EXAMPLES", "60"))
ON_RANKS = max(4, EXAMPLES // 10)
DTYPES = (torch.float64, torch.float32, torch.complex128)
WIDE = {torch.float64: torch.float64, torch.float32: torch.float64, torch.complex128: torch.complex128}
ROWS = 12  # so that every group of up to 4 ranks divides them
Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class Step:
    """One collective of a program: its name, its parameters, and on which ranks it runs; the others keep theirs."""

    name: str
    params: dict[str, Any]
    members: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """Collectives one after the other, with something that is not linear between them."""

    world: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    steps: tuple[Step, ...]
    seed: int = field(default=0)

    def leaf(self, rank: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(100 * self.seed + rank)
        real = torch.randint(-4, 5, self.shape, generator=generator).double() / 4
        if self.dtype.is_complex:
            return torch.complex(real, real.flip(0) / 2).to(self.dtype).requires_grad_()
        return real.to(self.dtype).requires_grad_()

    def groups(self) -> list[tuple[int, ...]]:
        return sorted({step.members for step in self.steps})


def between(x: torch.Tensor, rank: int) -> torch.Tensor:
    """What stands between two collectives: not linear, and another one on each rank."""
    return x * (1 + 0.25 * rank) + x * x * 0.125


def loss(y: torch.Tensor, rank: int) -> torch.Tensor:
    squared = (y * y.conj()).real if y.is_complex() else y * y
    return (squared * (rank + 1)).sum()


def whole_rows(x: torch.Tensor) -> torch.Tensor:
    """Bring a result back to the leaf's number of rows, so that the next collective can be any."""
    return torch.cat([x, x.new_ones(ROWS, *x.shape[1:])])[:ROWS]


# ---- ours: one rank's side ------------------------------------------------------------------------------------------


def of_ours(group: Group | SimulatedGroup, program: Program) -> tuple[torch.Tensor, torch.Tensor]:
    found = made(group, program)
    x = program.leaf(group.rank)
    y = x
    for step in program.steps:
        y = between(y, group.rank)
        if group.rank in step.members:
            place = step.members.index(group.rank)
            params = {name: value(place) if callable(value) else value for name, value in step.params.items()}
            sent = given_rows(y, step, place)
            y = whole_rows(run(CATALOG[step.name], sent, found[step.members], **params))
    loss(y, group.rank).backward()
    assert x.grad is not None
    return y.detach(), x.grad


def made(group: Group | SimulatedGroup, program: Program) -> dict[tuple[int, ...], Any]:
    """The sub-groups of a program; over real ranks every rank makes them all."""
    if isinstance(group, SimulatedGroup):
        return {members: group.subgroup(members) for members in program.groups() if group.rank in members}
    return {members: dist.new_group(list(members)) for members in program.groups()}


def given_rows(y: torch.Tensor, step: Step, place: int) -> torch.Tensor:
    """The part of a tensor that goes in: uneven collectives take as many rows as the sizes say."""
    if step.name in ("all_gather_v", "gather"):
        return y[: step.params["sizes"][place]]
    if step.name == "scatter":
        return y[: sum(step.params["sizes"])] if place == step.params["src"] else y[:0]
    if step.name in ("reduce_scatter_v", "batch_p2p"):
        return y[: ROWS_IN[step.name](step.params, place)]
    return y


ROWS_IN: dict[str, Callable[[dict[str, Any], int], int]] = {
    "reduce_scatter_v": lambda params, place: sum(params["sizes"]),
    "batch_p2p": lambda params, place: sum(rows for _, rows, _ in params["sends"](place)),
}


# ---- the oracle: all ranks in one process ----------------------------------------------------------------------------


def of_one_process(program: Program) -> list[tuple[torch.Tensor, torch.Tensor]]:
    xs = [program.leaf(rank).detach().to(WIDE[program.dtype]).requires_grad_() for rank in range(program.world)]
    ys = list(xs)
    for step in program.steps:
        ys = [between(y, rank) for rank, y in enumerate(ys)]
        taken = [given_rows(ys[rank], step, place) for place, rank in enumerate(step.members)]
        for rank, y in zip(step.members, LISTS[step.name](taken, step.params), strict=True):
            ys[rank] = whole_rows(y)
    nothing = [loss(x * 0, 0) for x in xs]  # so that a tensor that nobody uses has zeros for its gradient
    torch.stack([*(loss(y, rank) for rank, y in enumerate(ys)), *nothing]).sum().backward()
    return [(y.detach(), x.grad) for x, y in zip(xs, ys, strict=True)]  # type: ignore[misc]


def reduced(xs: Tensors, op: str) -> torch.Tensor:
    stack = torch.stack(xs)
    ops = {"sum": stack.sum, "avg": stack.mean, "product": stack.prod}
    if op in ops:
        return ops[op](0)
    return stack.amin(0) if op == "min" else stack.amax(0)


def prefix(xs: Tensors, params: dict[str, Any], own: bool) -> Tensors:
    ordered = xs[::-1] if params["reverse"] else xs
    ys = [
        reduced(ordered[: i + own], params["reduce_op"]) if i + own else start_of(xs[0], params["reduce_op"])
        for i in range(len(xs))
    ]
    return ys[::-1] if params["reverse"] else ys


def start_of(like: torch.Tensor, op: str) -> torch.Tensor:
    return torch.full_like(like, 1.0 if op == "product" else 0.0)


def mailed(xs: Tensors, params: dict[str, Any]) -> Tensors:
    parts: dict[tuple[int, int], torch.Tensor] = {}
    for place, x in enumerate(xs):
        start = 0
        for peer, rows, _ in params["sends"](place):
            parts[place, peer] = x[start : start + rows]
            start += rows
    return [
        torch.cat([x[:0], *(parts[peer, place] for peer, _, _ in params["receives"](place))])
        for place, x in enumerate(xs)
    ]


LISTS: dict[str, Callable[[Tensors, dict[str, Any]], Tensors]] = {
    "all_reduce": lambda xs, of: [reduced(xs, of["reduce_op"])] * len(xs),
    "reduce": lambda xs, of: [
        reduced(xs, of["reduce_op"]) if i == of["dst"] else torch.zeros_like(x) for i, x in enumerate(xs)
    ],
    "all_gather": lambda xs, of: [torch.cat(xs, of["dim"])] * len(xs),
    "all_gather_v": lambda xs, of: [torch.cat(xs, of["dim"])] * len(xs),
    "gather": lambda xs, of: [torch.cat(xs) if i == of["dst"] else x[:0] for i, x in enumerate(xs)],
    "scatter": lambda xs, of: list(xs[of["src"]].split(of["sizes"])),
    "reduce_scatter": lambda xs, of: list(reduced(xs, of["reduce_op"]).chunk(len(xs), of["dim"])),
    "reduce_scatter_v": lambda xs, of: list(reduced(xs, of["reduce_op"]).split(of["sizes"])),
    "all_to_all": lambda xs, of: [torch.cat([x.chunk(len(xs))[i] for x in xs]) for i in range(len(xs))],
    "broadcast": lambda xs, of: [xs[of["src"]]] * len(xs),
    "permute": lambda xs, of: [
        xs[of["destinations"].index(i)] if i in of["destinations"] else torch.zeros_like(x) for i, x in enumerate(xs)
    ],
    "scan": lambda xs, of: prefix(xs, of, True),
    "exscan": lambda xs, of: prefix(xs, of, False),
    "batch_p2p": mailed,
    "barrier": lambda xs, of: xs,
}


# ---- drawing ---------------------------------------------------------------------------------------------------------


@st.composite
def programs(draw: st.DrawFn) -> Program:
    world = draw(st.integers(1, 4))
    rest = tuple(draw(st.lists(st.integers(1, 2), max_size=2)))
    dtype = draw(st.sampled_from(DTYPES))
    steps = tuple(draw(steps_of(world, dtype)) for _ in range(draw(st.integers(2, 6))))
    return Program(world, (ROWS, *rest), dtype, steps, draw(st.integers(0, 1000)))


@st.composite
def steps_of(draw: st.DrawFn, world: int, dtype: torch.dtype) -> Step:
    everybody = set(range(world))
    members = everybody if draw(st.booleans()) else draw(st.sets(st.sampled_from(sorted(everybody)), min_size=1))
    name = draw(st.sampled_from(sorted(LISTS)))
    return Step(name, draw(parameters(name, len(members), dtype)), tuple(sorted(members)))


@st.composite
def parameters(draw: st.DrawFn, name: str, size: int, dtype: torch.dtype) -> dict[str, Any]:
    ops = ("sum", "avg") if dtype.is_complex else ("sum", "avg", "product", "min", "max")
    if name == "exscan":
        ops = tuple(op for op in ops if op not in ("min", "max"))  # the first rank's infinity has no finite loss
    place = st.integers(0, size - 1)
    few = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    drawn = {
        "reduce_op": draw(st.sampled_from(ops)),
        "dst": draw(place),
        "src": draw(place),
        "dim": 0,
        "sizes": few,
        "reverse": draw(st.booleans()),
        "destinations": [to if draw(st.booleans()) else -1 for to in draw(st.permutations(range(size)))],
        "output_splits": None,
        "input_splits": None,
    }
    table = [[draw(st.integers(0, 1)) for _ in range(size)] for _ in range(size)]
    drawn["sends"] = Mail(table, sends=True)
    drawn["receives"] = Mail(table, sends=False)
    return {key: drawn[key] for key in CATALOG[name].parameters}


@dataclass(frozen=True)
class Mail:
    """A rank's messages, from a table of who sends how many rows to whom."""

    table: list[list[int]]
    sends: bool

    def __call__(self, place: int) -> list[tuple[int, int, int]]:
        rows = self.table[place] if self.sends else [row[place] for row in self.table]
        return [(peer, count, 1) for peer, count in enumerate(rows)]


# ---- the tests -------------------------------------------------------------------------------------------------------


def close(got: tuple[torch.Tensor, torch.Tensor], want: tuple[torch.Tensor, torch.Tensor], dtype: torch.dtype) -> None:
    tolerance = 2e-3 if dtype is torch.float32 else 1e-9
    for one, other in zip(got, want, strict=True):
        scale = max(1.0, float(other.abs().max()) if other.numel() else 1.0)
        torch.testing.assert_close(one.to(other.dtype) / scale, other / scale, rtol=tolerance, atol=tolerance)


def test_every_collective_has_a_list_program() -> None:
    assert set(LISTS) == set(CATALOG) - {"wait"}


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(programs())
def test_in_the_simulator(program: Program) -> None:
    for got, want in zip(World(program.world).run(of_ours, program), of_one_process(program), strict=True):
        close(got, want, program.dtype)


def all_of_ours(group: Group, drawn: list[Program]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [of_ours(group, program) for program in drawn]


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [2, 3])
def test_on_real_ranks(world: int) -> None:
    drawn = some_programs(world)
    by_rank = run_ranks(all_of_ours, world=world, args=(drawn,), timeout=120.0)
    for place, program in enumerate(drawn):
        for got, want in zip([of[place] for of in by_rank], of_one_process(program), strict=True):
            close(got, want, program.dtype)


def some_programs(world: int) -> list[Program]:
    found: list[Program] = []

    @settings(
        max_examples=12 * ON_RANKS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def collect(program: Program) -> None:
        if program.world == world and len(found) < ON_RANKS:
            found.append(program)

    collect()
    return found
