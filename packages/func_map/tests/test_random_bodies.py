"""Bodies made of random steps, on meshes of one and two axes: every step keeps what the value denotes.

A program starts from an input with random placements and walks through placements by collectives, slices and
divisions; now and then it multiplies by a number or by a replicated weight. Whatever the walk, as a function of whole
tensors it is `factor * x * w**k`, which is the oracle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

from comm_core import Group, catalog, run
from comm_core.testing import run_ranks
from func_map import local_map

SIZE = (12, 12)
KINDS: tuple[Placement, ...] = (Shard(0), Shard(1), Replicate(), Partial())
MESHES = {1: (1,), 2: (2,), 3: (3,), 4: (2, 2)}


@dataclass(frozen=True)
class Program:
    """Where the input starts, and what is tried in turn: (mesh axis, placement to reach) or "times"."""

    start: tuple[Placement, ...]
    steps: tuple[tuple[int, Placement] | str, ...]


def programs(axes: int) -> st.SearchStrategy[Program]:
    step = st.one_of(st.tuples(st.integers(0, axes - 1), st.sampled_from(KINDS)), st.just("times"))
    start = st.tuples(*[st.sampled_from(KINDS)] * axes)
    return st.builds(Program, start, st.lists(step, max_size=6).map(tuple))


def numbers(seed: int) -> torch.Tensor:
    return torch.randn(SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def free(state: list[Placement], axis: int, dim: int) -> bool:
    """Tell whether pieces along `dim` may change on this axis: no later axis splits them further."""
    return all(not (isinstance(p, Shard) and p.dim == dim) for p in state[axis + 1 :])


def move(x: torch.Tensor, state: list[Placement], axis: int, to: Placement, mesh: DeviceMesh) -> torch.Tensor:
    """Go from one placement to another on one axis, or stay where that is not one step."""
    now, on, n = state[axis], (mesh, axis), mesh.size(axis)
    if isinstance(now, Shard) and not free(state, axis, now.dim):
        return x
    if isinstance(to, Shard) and not free(state, axis, to.dim):
        return x
    rank = mesh.get_local_rank(axis)
    if isinstance(now, Partial) and isinstance(to, Replicate):
        x = run(catalog.ALL_REDUCE, x, on, reduce_op="sum")
    elif isinstance(now, Partial) and isinstance(to, Shard):
        x = run(catalog.REDUCE_SCATTER, x, on, reduce_op="sum", dim=to.dim)
    elif isinstance(now, Shard) and isinstance(to, Replicate):
        x = run(catalog.ALL_GATHER, x, on, dim=now.dim)
    elif isinstance(now, Replicate) and isinstance(to, Shard):
        x = x.chunk(n, to.dim)[rank]
    elif isinstance(now, Replicate) and isinstance(to, Partial):
        x = x * (2 * (rank + 1) / (n * (n + 1)))  # unequal shares
    else:
        return x
    state[axis] = to
    return x


def walk(program: Program, mesh: DeviceMesh) -> tuple[Any, list[Placement], float, int]:
    """Return the body, the placements it ends with, and the oracle's factor and power."""
    state = list(program.start)
    plan: list[Any] = []
    power = 0
    for step in program.steps:
        if step == "times":
            if not any(isinstance(p, Partial) for p in state):
                plan.append(("w", list(state)))
                power += 1
            plan.append(("c", None))
        else:
            before = list(state)
            _probe(state, step[0], step[1])
            if state != before:
                plan.append(("move", (before, step)))

    def body(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        for what, detail in plan:
            if what == "c":
                x = x * 1.5
            elif what == "w":
                x = x * piece(w, detail, mesh)
            else:
                x = move(x, list(detail[0]), *detail[1], mesh)
        return x * 1.0

    return body, state, 1.5 ** sum(what == "c" for what, _ in plan), power


def _probe(state: list[Placement], axis: int, to: Placement) -> None:
    now = state[axis]
    if any(isinstance(p, Shard) and not free(state, axis, p.dim) for p in (now, to)):
        return
    both_partial = isinstance(now, Partial) and isinstance(to, Partial)
    if isinstance(now, (Partial, Replicate)) or isinstance(to, Replicate):
        state[axis] = now if both_partial else to


def piece(w: torch.Tensor, state: list[Placement], mesh: DeviceMesh) -> torch.Tensor:
    for axis, placement in enumerate(state):
        if isinstance(placement, Shard):
            w = w.chunk(mesh.size(axis), placement.dim)[mesh.get_local_rank(axis)]
    return w


def input_of(x: torch.Tensor, placements: tuple[Placement, ...], mesh: DeviceMesh) -> DTensor:
    """A leaf whose shares on Partial axes are unequal."""
    whole = [Replicate() if isinstance(p, Partial) else p for p in placements]
    local = distribute_tensor(x, mesh, whole).to_local().clone()
    for axis, placement in enumerate(placements):
        if isinstance(placement, Partial):
            n, rank = mesh.size(axis), mesh.get_local_rank(axis)
            local = local * (2 * (rank + 1) / (n * (n + 1)))
    return DTensor.from_local(local, mesh, placements).detach().requires_grad_()


def run_programs(group: Group, shape: tuple[int, ...], batch: list[Program]) -> list[Any]:
    mesh = DeviceMesh("cpu", torch.arange(group.world).reshape(shape))
    results = []
    for program in batch:
        body, out, factor, power = walk(program, mesh)
        x = input_of(numbers(1), program.start, mesh)
        w = distribute_tensor(numbers(2), mesh, [Replicate()] * mesh.ndim).requires_grad_()
        y = local_map(body, out_placements=list(out))(x, w)
        y.full_tensor().sin().sum().backward()
        results.append((y.full_tensor().detach(), x.grad.full_tensor(), w.grad.full_tensor(), factor, power))
    return results


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_random_bodies_have_the_gradient_of_what_they_denote(world: int) -> None:
    shape = MESHES[world]

    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.lists(programs(len(shape)), min_size=8, max_size=12))
    def check(batch: list[Program]) -> None:
        for result in run_ranks(run_programs, world=world, args=(shape, batch)):
            for program, (y, grad_x, grad_w, factor, power) in zip(batch, result, strict=True):
                x, w = numbers(1).requires_grad_(), numbers(2).requires_grad_()
                want = factor * x * w**power
                want_x, want_w = torch.autograd.grad(want.sin().sum(), (x, w), allow_unused=True)
                want_w = torch.zeros(SIZE, dtype=torch.float64) if want_w is None else want_w
                torch.testing.assert_close(y, want.detach(), msg=str(program))
                torch.testing.assert_close(grad_x, want_x, msg=str(program))
                torch.testing.assert_close(grad_w, want_w, msg=str(program))

    check()
