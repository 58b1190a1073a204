"""Programs of two to six collectives, drawn at random, against one process that has all ranks' tensors in a list.

The oracle is a program over lists: each step takes all ranks' tensors and gives all ranks' tensors, with torch's own
differentiable ops and no word of comm_core (`lists.py`). Plain autograd differentiates the sum of all ranks' losses
through it, in float64; programs of integers are compared in their values alone.
`COMM_COMPOSED_EXAMPLES` asks for more examples of each collective than the default suite runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from comm_core import Group, SimulatedGroup, World, run
from comm_core.catalog import CATALOG
from comm_core.testing import run_ranks

from .case import LINEAR
from .drawing import ALONG_DIM, ALONG_ROWS, Drawn, calls_of, few
from .lists import GRADUAL, LISTS

EXAMPLES = int(os.environ.get("COMM_COMPOSED_EXAMPLES", "12"))  # for each collective
WIDE = {
    torch.float64: torch.float64,
    torch.float32: torch.float64,
    torch.complex128: torch.complex128,
    torch.complex64: torch.complex128,
    torch.int64: torch.int64,
}
EXACT = (torch.float64, torch.complex128)
NAMES = sorted(LISTS)
WITHOUT_DIMS = sorted(set(LISTS) - ALONG_DIM - ALONG_ROWS)
LARGEST = 1e6  # a program whose numbers grow beyond is not compared: float32 has no digits left for it
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One collective of a program: its name, and the ranks that run it; the others keep their tensors.

    By member: the parameters, and the size that goes in along the dim; None takes the tensor as it is.
    """

    name: str
    members: tuple[int, ...]
    params: tuple[Drawn, ...]
    sizes: tuple[int | None, ...]

    def given(self, x: torch.Tensor, place: int) -> torch.Tensor:
        size = self.sizes[place]
        return x if size is None else resized(x, self.params[place].get("dim", 0), size)


@dataclass(frozen=True)
class Program:
    """Collectives one after the other, with something that is not linear between them."""

    world: int
    shape: Shape
    dtype: torch.dtype
    steps: tuple[Step, ...]
    seed: int = 0

    @property
    def differentiable(self) -> bool:
        return self.dtype is not torch.int64

    def leaf(self, rank: int, dtype: torch.dtype) -> torch.Tensor:
        generator = torch.Generator().manual_seed(100 * self.seed + rank)
        numbers = torch.randint(-4, 5, self.shape, generator=generator)
        if not self.differentiable:
            return numbers
        real = numbers.double() / 4
        made = torch.complex(real, real.flip(tuple(range(real.ndim))) / 2) if dtype.is_complex else real
        return made.to(dtype).requires_grad_()

    def groups(self) -> list[tuple[int, ...]]:
        return sorted({step.members for step in self.steps})


def between(x: torch.Tensor, rank: int) -> torch.Tensor:
    """What stands between two collectives: not linear, and another one on each rank."""
    if not x.is_floating_point() and not x.is_complex():
        return x * x + rank - 1
    return x * (1 + 0.25 * rank) + x * x * 0.125


def loss(y: torch.Tensor, rank: int) -> torch.Tensor:
    squared = (y * y.conj()).real if y.is_complex() else y * y
    return (squared * (rank + 1)).sum()


def resized(x: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """Cut a tensor along a dim, or fill it with ones."""
    ones = x.new_ones([size if place == dim % x.ndim else length for place, length in enumerate(x.shape)])
    return torch.cat([x, ones], dim).narrow(dim, 0, size)


def reshaped(x: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Bring a result back to the leaf's shape, so that the next collective can be any."""
    for dim, size in enumerate(shape):
        x = resized(x, dim, size)
    return x


# ---- ours: one rank's side ------------------------------------------------------------------------------------------

Answer = tuple[torch.Tensor, torch.Tensor | None]  # the last tensor, and the leaf's gradient


def of_ours(group: Group | SimulatedGroup, program: Program) -> Answer:
    found = made(group, program)
    x = y = program.leaf(group.rank, program.dtype)
    for step in program.steps:
        y = between(y, group.rank)
        if group.rank in step.members:
            place = step.members.index(group.rank)
            sent = step.given(y, place)
            y = reshaped(run(CATALOG[step.name], sent, found[step.members], **step.params[place]), program.shape)
    if program.differentiable:
        loss(y, group.rank).backward()
        assert x.grad is not None
    return y.detach(), x.grad


def made(group: Group | SimulatedGroup, program: Program) -> dict[tuple[int, ...], Any]:
    """The sub-groups of a program; over real ranks every rank makes them all."""
    if isinstance(group, SimulatedGroup):
        return {members: group.subgroup(members) for members in program.groups() if group.rank in members}
    return {members: dist.new_group(list(members)) for members in program.groups()}


# ---- the oracle: all ranks in one process ----------------------------------------------------------------------------


def of_one_process(program: Program) -> list[Answer]:
    xs = [program.leaf(rank, WIDE[program.dtype]) for rank in range(program.world)]
    ys = list(xs)
    for step in program.steps:
        ys = [between(y, rank) for rank, y in enumerate(ys)]
        taken = [step.given(ys[rank], place) for place, rank in enumerate(step.members)]
        for rank, y in zip(step.members, LISTS[step.name](taken, step.params), strict=True):
            ys[rank] = reshaped(y, program.shape)
    if program.differentiable:
        nothing = [loss(x * 0, 0) for x in xs]  # so that a tensor that nobody uses has zeros for its gradient
        torch.stack([*(loss(y, rank) for rank, y in enumerate(ys)), *nothing]).sum().backward()
    return [(y.detach(), x.grad) for x, y in zip(xs, ys, strict=True)]


# ---- drawing ---------------------------------------------------------------------------------------------------------


@st.composite
def programs(draw: st.DrawFn, name: str, worlds: tuple[int, ...] = (3, 2, 4, 1)) -> Program:
    """A program that has the collective in it, and others before and after."""
    world = draw(st.sampled_from(worlds))
    shape = tuple(draw(st.lists(few, min_size=1 if name in ALONG_DIM | ALONG_ROWS else 0, max_size=3)))
    dtype = draw(st.sampled_from(list(WIDE)))
    others = [draw(st.sampled_from(NAMES if shape else WITHOUT_DIMS)) for _ in range(draw(st.integers(1, 5)))]
    names = draw(st.permutations([name, *others]))
    steps = tuple(draw(steps_of(of, world, len(shape), dtype)) for of in names)
    return Program(world, shape, dtype, steps, draw(st.integers(0, 1000)))


@st.composite
def steps_of(draw: st.DrawFn, name: str, world: int, ndim: int, dtype: torch.dtype) -> Step:
    everybody = set(range(world))
    members = everybody if draw(st.booleans()) else draw(st.sets(st.sampled_from(sorted(everybody)), min_size=1))
    params, sizes = draw(calls_of(name, len(members), ndim, ops_of(name, dtype)))
    return Step(name, tuple(sorted(members)), tuple(params), tuple(sizes))


def ops_of(name: str, dtype: torch.dtype) -> list[str]:
    """The reduce ops that a program may have."""
    unfit = {"min", "max"} if name == "exscan" else set()  # the first rank's infinity has no finite loss
    if dtype.is_complex:
        unfit = set(GRADUAL) - set(LINEAR)
    elif not dtype.is_floating_point:
        unfit = unfit | {"avg"}
    return [op for op in GRADUAL if op not in unfit]


# ---- the tests -------------------------------------------------------------------------------------------------------


def tame(wanted: list[Answer]) -> bool:
    parts = [part for answer in wanted for part in answer if part is not None and part.numel()]
    return all(bool(part.isfinite().all()) and float(part.abs().max()) < LARGEST for part in parts)


def close(got: Answer, want: Answer, program: Program) -> None:
    if not program.differentiable:
        assert got[1] is want[1] is None
        assert torch.equal(got[0], want[0])
        return
    tolerance = 1e-9 if program.dtype in EXACT else 2e-3
    for one, other in zip(got, want, strict=True):
        assert one is not None
        assert other is not None
        scale = max(1.0, float(other.abs().max()) if other.numel() else 1.0)
        torch.testing.assert_close(one.to(other.dtype) / scale, other / scale, rtol=tolerance, atol=tolerance)


def test_every_collective_can_be_drawn() -> None:
    assert set(LISTS) == set(CATALOG)


bounded = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", NAMES)
def test_in_the_simulator(name: str) -> None:
    @bounded
    @given(programs(name))
    def hold(program: Program) -> None:
        wanted = of_one_process(program)
        assume(not program.differentiable or tame(wanted))
        for got, want in zip(World(program.world).run(of_ours, program), wanted, strict=True):
            close(got, want, program)

    hold()


def all_of_ours(group: Group, drawn: list[Program]) -> list[Answer]:
    return [of_ours(group, program) for program in drawn]


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [2, 3])
def test_on_real_ranks(world: int) -> None:
    drawn = [one_program(name, world) for name in NAMES]
    by_rank = run_ranks(all_of_ours, world=world, args=(drawn,), timeout=120.0)
    for place, program in enumerate(drawn):
        for got, want in zip([of[place] for of in by_rank], of_one_process(program), strict=True):
            close(got, want, program)


def one_program(name: str, world: int) -> Program:
    """The longest of a few."""
    found: list[Program] = []

    @settings(bounded, max_examples=8)
    @given(programs(name, (world,)))
    def collect(program: Program) -> None:
        if not program.differentiable or tame(of_one_process(program)):
            found.append(program)

    collect()
    return max(found, key=lambda program: len(program.steps))
