"""Every row of the table in docs/understand/placements_and_gradients.md, against full tensors in one process.

The oracle knows nothing of placements: it applies `full` to whole tensors and asks autograd. A row says how the same
thing is written on local tensors, with collectives that are their own adjoints' partners.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.experimental import local_map as torch_local_map

from comm_core import Group, catalog, run
from comm_core.testing import run_ranks
from func_map import Invariant, local_map

S0, S1, R, P, AVG = Shard(0), Shard(1), Replicate(), Partial(), Partial("avg")
LOSSES = ("full", "dtensor", "sharded")


@dataclass(frozen=True)
class Row:
    """One use of inputs in a body: sizes and placements of the inputs, body, placements of outputs, oracle."""

    shapes: Sequence[tuple[int, ...]]
    placements: Sequence[Placement]
    body: Callable[..., Any]
    out: Sequence[Placement]
    full: Callable[..., Any]


def all_reduce(x: torch.Tensor, group: Group) -> torch.Tensor:
    return run(catalog.ALL_REDUCE, x, group, reduce_op="sum")


def all_gather(x: torch.Tensor, group: Group, dim: int = 0) -> torch.Tensor:
    return run(catalog.ALL_GATHER, x, group, dim=dim)


def softly(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.t(), -1) @ v


class _Reduced(torch.autograd.Function):
    """Megatron's f: nothing forward, an all-reduce backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return all_reduce(grads[0], ctx.group), None


class _Reduce(torch.autograd.Function):
    """Megatron's g: an all-reduce forward, nothing backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Group) -> torch.Tensor:
        return all_reduce(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return grads[0], None


def _exchange(x: torch.Tensor, group: Group) -> torch.Tensor:
    """Shard(0) to Shard(1) by one all-to-all."""
    n = group.world
    sent = torch.cat(x.chunk(n, 1), 0)
    splits = [x.shape[0]] * n
    got = run(catalog.ALL_TO_ALL, sent, group, output_splits=splits, input_splits=splits)
    return got


ROWS: dict[str, Row] = {
    "shard, pointwise, out shard": Row([(12, 3)], [S0], lambda g, x: x.tanh(), [S0], torch.tanh),
    "shard, pointwise, out shard, uneven": Row([(5, 3)], [S0], lambda g, x: x.tanh(), [S0], torch.tanh),
    "shard, all_reduce, out replicate": Row(
        [(4, 12), (12, 3)], [S1, S0], lambda g, x, w: all_reduce(x @ w, g), [R], lambda x, w: x @ w
    ),
    "shard uneven, all_reduce, out replicate": Row(
        [(4, 5), (5, 3)], [S1, S0], lambda g, x, w: all_reduce(x @ w, g), [R], lambda x, w: x @ w
    ),
    "shard, all_gather, out replicate": Row([(12, 3)], [S0], lambda g, x: all_gather(x.sin(), g), [R], torch.sin),
    "replicate W with varying X, out shard": Row(
        [(12, 3), (3, 2)], [S0, R], lambda g, x, w: (x @ w).tanh(), [S0], lambda x, w: (x @ w).tanh()
    ),
    "replicate W with varying X, out shard, uneven": Row(
        [(5, 3), (3, 2)], [S0, R], lambda g, x, w: (x @ w).tanh(), [S0], lambda x, w: (x @ w).tanh()
    ),
    "replicate W with varying X, out partial": Row(
        [(12, 3), (3, 2)], [S0, R], lambda g, x, w: (x @ w).tanh().sum(0), [P], lambda x, w: (x @ w).tanh().sum(0)
    ),
    "replicate KV with shard Q": Row([(12, 3), (4, 3), (4, 2)], [S0, R, R], lambda g, *a: softly(*a), [S0], softly),
    "replicate sliced by rank, out shard": Row(
        [(12, 3)], [R], lambda g, x: x.chunk(g.world)[g.rank].exp(), [S0], torch.exp
    ),
    "replicate, same work, out replicate": Row([(4, 3)], [R], lambda g, x: x.exp(), [R], torch.exp),
    "replicate, same work, out partial": Row(
        [(4, 3)], [R], lambda g, x: x.exp() * 6 / g.world, [P], lambda x: x.exp() * 6
    ),
    "invariant, reductions of its own": Row(
        [(4, 3), (3, 12), (12, 2)],
        [Invariant(), S1, S0],
        lambda g, x, a, b: _Reduce.apply((_Reduced.apply(x, g) @ a).tanh() @ b, g),
        [Invariant()],
        lambda x, a, b: (x @ a).tanh() @ b,
    ),
    "replicate, varying use and replicate output": Row(
        [(4, 3), (3, 12)], [R, S1], lambda g, x, w: (x @ w, 2 * x), [S1, R], lambda x, w: (x @ w, 2 * x)
    ),
    "partial, linear, out partial": Row([(4, 3)], [P], lambda g, x: 3 * x, [P], lambda x: 3 * x),
    "partial, all_reduce, out replicate": Row([(4, 3)], [P], lambda g, x: all_reduce(x, g).exp(), [R], torch.exp),
    "partial, all_reduce, with varying V, out shard": Row(
        [(4, 3), (3, 12)], [P, S1], lambda g, x, v: all_reduce(x, g).tanh() @ v, [S1], lambda x, v: x.tanh() @ v
    ),
    "partial, reduce_scatter, out shard": Row(
        [(12, 3)],
        [P],
        lambda g, x: run(catalog.REDUCE_SCATTER, x, g, reduce_op="sum", dim=0).exp(),
        [S0],
        torch.exp,
    ),
    "shard, all_to_all, out shard": Row([(12, 24)], [S0], lambda g, x: _exchange(x, g).sin(), [S1], torch.sin),
    "shard, out partial avg": Row(
        [(12, 3)], [S0], lambda g, x: x.sin().sum(0) * g.world, [AVG], lambda x: x.sin().sum(0)
    ),
    "partial avg, linear, out partial avg": Row([(4, 3)], [AVG], lambda g, x: 3 * x, [AVG], lambda x: 3 * x),
    "partial avg, reduced, out replicate": Row(
        [(4, 3)], [AVG], lambda g, x: (all_reduce(x, g) / g.world).exp(), [R], torch.exp
    ),
    "partial avg, reduced, sliced by rank, out shard": Row(
        [(12, 3)], [AVG], lambda g, x: (all_reduce(x, g) / g.world).exp().chunk(g.world)[g.rank], [S0], torch.exp
    ),
    "gather, use, scatter, out shard": Row(
        [(12, 3)],
        [S0],
        lambda g, x: torch.softmax(all_gather(x, g), 0).chunk(g.world)[g.rank],
        [S0],
        lambda x: torch.softmax(x, 0),
    ),
}


def mesh_of(group: Group) -> DeviceMesh:
    return DeviceMesh.from_group(group.process_group, "cpu")


def full_inputs(row: Row) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in row.shapes]


def distributed(x: torch.Tensor, placement: Placement, mesh: DeviceMesh) -> DTensor:
    """A leaf DTensor that stands for `x`; shares of a Partial are all different."""
    if not isinstance(placement, Partial):
        kind = Replicate() if isinstance(placement, Replicate) else placement
        return distribute_tensor(x, mesh, [kind]).requires_grad_()
    n, rank = mesh.size(), mesh.get_local_rank()
    generator = torch.Generator().manual_seed(11)
    shares = [torch.randn(x.shape, dtype=x.dtype, generator=generator) for _ in range(n - 1)]
    shares.append(x * (n if placement.reduce_op == "avg" else 1) - sum(shares, torch.zeros_like(x)))
    return DTensor.from_local(shares[rank], mesh, [placement]).detach().requires_grad_()


def weights_of(y: torch.Tensor) -> torch.Tensor:
    return torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)


def loss_of(y: DTensor, how: str, mesh: DeviceMesh) -> torch.Tensor:
    """One scalar of a whole output, reached in different ways, so that its gradient arrives placed differently."""
    if how == "full":
        whole = y.full_tensor()
        return (whole.sin() * weights_of(whole)).sum()
    y = y.redistribute(placements=[Replicate()]) if y.placements[0].is_partial() else y
    weights = distribute_tensor(weights_of(y), mesh, [Shard(0) if how == "sharded" else Replicate()])
    return (y.sin() * weights).sum().full_tensor()


def run_row(group: Group, row: Row, how: str, mapper: Any = local_map) -> list[torch.Tensor]:
    """Return the outputs and the input gradients, all as whole tensors, as this rank has them."""
    mesh = mesh_of(group)
    inputs = [distributed(x, p, mesh) for x, p in zip(full_inputs(row), row.placements, strict=True)]
    mapped = mapper(
        lambda *locals_: row.body(group, *locals_),
        out_placements=tuple([p] for p in row.out),
        in_placements=tuple([p] for p in row.placements),
    )
    out = mapped(*inputs)
    outs = out if isinstance(out, tuple) else (out,)
    sum((loss_of(y, how, mesh) for y in outs), torch.zeros((), dtype=torch.float64)).backward()
    grads = [x.grad for x in inputs]
    for x, grad, placement in zip(inputs, grads, row.placements, strict=True):
        assert grad is not None
        assert grad.shape == x.shape
        if isinstance(placement, Shard):
            assert grad.placements == x.placements
    return [t.full_tensor().detach() for t in (*outs, *grads)]


def expected_of(row: Row) -> list[torch.Tensor]:
    inputs = [x.requires_grad_() for x in full_inputs(row)]
    out = row.full(*inputs)
    outs = out if isinstance(out, tuple) else (out,)
    loss = sum((y.sin() * weights_of(y)).sum() for y in outs)
    return [*[y.detach() for y in outs], *torch.autograd.grad(loss, inputs)]


def run_rows(group: Group) -> dict[tuple[str, str], list[torch.Tensor]]:
    return {(name, how): run_row(group, row, how) for name, row in ROWS.items() for how in LOSSES}


@functools.cache
def results(world: int, backend: str) -> list[dict[tuple[str, str], list[torch.Tensor]]]:
    return run_ranks(run_rows, world, backend)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ROWS)
def test_row_is_the_single_process_gradient(name: str, world: int, world_backend: str) -> None:
    expected = expected_of(ROWS[name])
    for how in LOSSES:
        by_rank = [result[name, how] for result in results(world, world_backend)]
        for rank, result in enumerate(by_rank):
            for got, want in zip(result, expected, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, msg=f"{name}, {how}, {rank}: {got - want}")
            for got, first in zip(result, by_rank[0], strict=True):
                assert torch.equal(got, first), f"{name}, {how}: replicas differ on rank {rank}"


def second_order(group: Group, row: Row) -> list[torch.Tensor]:
    mesh = mesh_of(group)
    inputs = [distributed(x, p, mesh) for x, p in zip(full_inputs(row), row.placements, strict=True)]
    mapped = local_map(lambda *locals_: row.body(group, *locals_), out_placements=tuple([p] for p in row.out))
    return [x.full_tensor() for x in squared_gradient(inputs, mapped, lambda y: loss_of(y, "dtensor", mesh))]


def squared_gradient(inputs: Any, function: Any, loss_of_one: Any) -> Any:
    """Return the gradient of the sum of squares of the gradient."""
    out = function(*inputs)
    outs = out if isinstance(out, tuple) else (out,)
    first = torch.autograd.grad(sum(loss_of_one(y) for y in outs), inputs, create_graph=True)
    whole = [g.full_tensor() if isinstance(g, DTensor) else g for g in first]
    return torch.autograd.grad(sum((g * g).sum() for g in whole), inputs)


def run_second_order(group: Group) -> dict[str, list[torch.Tensor]]:
    return {name: second_order(group, row) for name, row in ROWS.items() if "invariant" not in name}


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_gradients_of_gradients_follow_the_same_rules(world: int) -> None:
    for result in run_ranks(run_second_order, world=world):
        for name, got in result.items():
            inputs = [x.requires_grad_() for x in full_inputs(ROWS[name])]
            want = squared_gradient(inputs, ROWS[name].full, lambda y: (y.sin() * weights_of(y)).sum())
            for g, w in zip(got, want, strict=True):
                torch.testing.assert_close(g, w, rtol=1e-8, atol=1e-9, msg=name)


# What docs/understand/placements_and_gradients.md says of torch: the power of n by which gradients are too large.
TORCH_2_13: dict[str, int | None] = {
    "shard, pointwise, out shard": 0,
    "shard, all_reduce, out replicate": 1,
    "shard, all_gather, out replicate": 1,
    "replicate W with varying X, out shard": None,
    "replicate KV with shard Q": None,
    "replicate sliced by rank, out shard": None,
    "replicate, same work, out replicate": 0,
    "replicate, same work, out partial": -1,
    "replicate, varying use and replicate output": None,
    "partial, linear, out partial": 0,
    "partial, all_reduce, out replicate": 1,
    "shard, out partial avg": 1,
    "partial avg, reduced, sliced by rank, out shard": -1,
    "partial avg, reduced, out replicate": 0,  # n too small at the input times n too large at the output
}


def run_torch_rows(group: Group) -> dict[str, list[torch.Tensor]]:
    return {name: run_row(group, ROWS[name], "full", torch_local_map) for name in TORCH_2_13}


@pytest.mark.usefixtures("world_backend")
@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="documents torch 2.13")
def test_what_the_docs_say_of_torch() -> None:
    world = 3
    by_rank = run_ranks(run_torch_rows, world=world)
    for name, power in TORCH_2_13.items():
        expected = expected_of(ROWS[name])
        outputs = len(ROWS[name].out)
        for got, want in zip(by_rank[0][name][:outputs], expected[:outputs], strict=True):
            torch.testing.assert_close(got, want, msg=f"{name}: the forward pass is the same")
        pairs = list(zip(by_rank[0][name][outputs:], expected[outputs:], strict=True))
        right = [torch.allclose(got, want * world ** (power or 0)) for got, want in pairs]
        assert all(right) == (power is not None), name
