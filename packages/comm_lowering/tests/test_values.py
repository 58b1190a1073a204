"""Compiled with the lowering equals eager, on real ranks, exactly: the data are small integers.

Each body runs several collectives in one compiled function, because compiling is what costs time here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as funcol

import comm_core
import comm_lowering
from comm_core import catalog
from comm_core.testing import run_ranks
from comm_lowering import inductor_compat

WORLDS = (1, 2, 3)
Values = dict[str, torch.Tensor]


def numbers(group: Any, *shape: int) -> torch.Tensor:
    count = int(torch.tensor(shape).prod())
    return (torch.arange(count).reshape(shape) * (group.rank + 2) % 7).float()


def differing(eager: Values, compiled: Values) -> list[str]:
    return [
        name
        for name, value in eager.items()
        if not torch.equal(value, compiled[name]) or value.dtype != compiled[name].dtype
    ]


def every_op(group: Any) -> dict[str, Any]:
    """The forward of every op, in every situation, against eager."""

    def fn(x: torch.Tensor) -> Values:
        name, world, ops = group.name, group.world, torch.ops._c10d_functional
        kept = x + 1
        funcol.all_reduce(x * 5, "sum", name)  # nobody uses the result
        gathered = ops.all_gather_into_tensor(x * 3, world, name).view(-1)
        scattered = ops.reduce_scatter_tensor(torch.cat([x] * world).sin().round(), "sum", world, name).t()
        out = {
            "dies": funcol.all_reduce(x * 2, "sum", name),
            "lives": funcol.all_reduce(kept, "max", name) + kept,
            "graph input": funcol.all_reduce(x, "sum", name),
            "non-contiguous": funcol.all_reduce((x * 2).t(), "sum", name),
            "slice": funcol.all_reduce((x * 4)[1:, ::2], "sum", name),
            "gather dim 0": funcol.all_gather_tensor(x * 2, 0, name),
            "gather dim 1": funcol.all_gather_tensor(x, 1, name),
            "scatter": funcol.reduce_scatter_tensor(torch.cat([x] * world), "sum", 0, name),
            "scatter dim 1": funcol.reduce_scatter_tensor(torch.cat([x] * world, 1), "sum", 1, name),
            "broadcast": funcol.broadcast(x * 2, world - 1, name),
            "all to all": funcol.all_to_all_single(torch.cat([x] * world), None, None, name),
            "view, then wait": ops.wait_tensor(gathered) + 1,
            "transpose, then wait": ops.wait_tensor(scattered) * 2,
            "twice": funcol.all_reduce(funcol.all_reduce(x * 2, "sum", name) + 1, "sum", name),
        }
        return {key: value.clone() if value is x else value for key, value in out.items()}

    x = numbers(group, 4, 6)
    before = x.clone()
    comm_lowering.enable()
    with inductor_compat.uncached():  # what comes out of a cache has no report
        compiled = torch.compile(fn, fullgraph=True)(x)
    report = comm_lowering.last_report()
    assert report is not None
    comm_lowering.disable()
    wrong = differing(fn(x), compiled) + ([] if torch.equal(x, before) else ["the input was changed"])
    return {"wrong": wrong, "ops": sorted(record.op for record in report.collectives), "report": str(report)}


def backward(group: Any) -> list[str]:
    """Gradients of the catalogue's collectives through a compiled function, against eager."""

    def fn(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = comm_core.run(catalog.ALL_REDUCE, x * w, group, reduce_op="sum")
        y = comm_core.run(catalog.ALL_GATHER, y * y, group, dim=1)
        return comm_core.run(catalog.REDUCE_SCATTER, y * 2, group, reduce_op="sum", dim=1) * w

    def values(run: Any) -> Values:
        x, w = numbers(group, 4, 6).requires_grad_(), (numbers(group, 4, 6) % 2).requires_grad_()
        out = run(x, w)
        out.backward(numbers(group, 4, 6))
        assert x.grad is not None
        assert w.grad is not None
        return {"out": out.detach(), "x.grad": x.grad, "w.grad": w.grad}

    comm_lowering.enable()
    with inductor_compat.uncached():
        compiled = values(torch.compile(fn, fullgraph=True))
    phases = {record.phase for report in comm_lowering.reports()[-2:] for record in report.collectives}
    comm_lowering.disable()
    return differing(values(fn), compiled) + [f"no {phase}" for phase in {"forward", "backward"} - phases]


def sizes_change(group: Any) -> list[str]:
    """One compilation for several sizes."""

    def fn(x: torch.Tensor) -> Values:
        return {
            "reduced": funcol.all_reduce(x * 2, "sum", group.name),
            "gathered": funcol.all_gather_tensor(x, 0, group.name) + 1,
            "scattered": funcol.reduce_scatter_tensor(torch.cat([x] * group.world), "sum", 0, group.name),
        }

    comm_lowering.enable()
    compiled = torch.compile(fn, fullgraph=True)
    wrong = []
    with inductor_compat.uncached():
        for rows in (4, 7, 12):
            x = numbers(group, rows, 6)
            torch._dynamo.mark_dynamic(x, 0)
            wrong += differing(fn(x), compiled(x))
    report = comm_lowering.last_report()
    assert report is not None
    comm_lowering.disable()
    symbolic = [record.nbytes for record in report.collectives] == [None] * 3
    return wrong + ([] if symbolic else [f"not symbolic: {report}"])


def torchs_own_front_ends(group: Any) -> list[str]:
    """DTensor's collectives and the in-place ones of torch.distributed, inside a compiled function."""
    mesh = dist.device_mesh.init_device_mesh("cpu", (group.world,))
    placements = dist.tensor.Replicate, dist.tensor.Shard(0), dist.tensor.Partial()

    def fn(x: torch.Tensor) -> Values:
        replicate, shard, partial = placements
        from_shard = dist.tensor.DTensor.from_local(x * 2, mesh, [shard]).redistribute(mesh, [replicate()])
        from_partial = dist.tensor.DTensor.from_local(x * 2, mesh, [partial]).redistribute(mesh, [replicate()])
        return {"gathered": from_shard.to_local(), "reduced": from_partial.to_local()}

    def in_place(x: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(x)
        return x * 2

    x = numbers(group, 4, 6)
    comm_lowering.enable()
    compiled = torch.compile(fn, fullgraph=True)(x)
    seen = comm_lowering.explain(fn, x)
    first, second = x.clone(), x.clone()
    compiled["returned"], compiled["changed"] = torch.compile(in_place, fullgraph=True)(first), first
    comm_lowering.disable()
    eager = fn(x)
    eager["returned"], eager["changed"] = in_place(second), second
    missing = {"all_gather", "all_reduce"} - {record.op for record in seen.collectives}
    expected = set() if group.world == 1 else missing  # over one rank DTensor itself leaves them out
    return differing(eager, compiled) + [f"not taken over: {name}" for name in expected]


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", WORLDS)
def test_every_op_compiled_equals_eager(world: int) -> None:
    for result in run_ranks(every_op, world=world, timeout=300.0):
        assert result["wrong"] == [], result["report"]
        counts = {op: result["ops"].count(op) for op in set(result["ops"])}
        assert counts == {"all_reduce": 8, "all_gather": 3, "reduce_scatter": 3, "broadcast": 1, "all_to_all": 1}


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", WORLDS)
def test_gradients_compiled_equal_eager(world: int) -> None:
    assert run_ranks(backward, world=world, timeout=300.0) == [[]] * world


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", WORLDS)
def test_one_compilation_serves_several_sizes(world: int) -> None:
    assert run_ranks(sizes_change, world=world, timeout=300.0) == [[]] * world


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", WORLDS)
def test_collectives_of_dtensor_and_of_torch_distributed_are_taken_over_too(world: int) -> None:
    assert run_ranks(torchs_own_front_ends, world=world, timeout=300.0) == [[]] * world
