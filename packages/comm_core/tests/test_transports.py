"""The transport over a process group: contiguous blocks along dim 0, into new memory or into `out`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comm_core import Group, Pending, transport
from comm_core.errors import ReduceOpError
from comm_core.wires import process_transport
from comm_core_pytest import Ranks

ALL = pytest.mark.world(1, 2, 3)


def into_out(group: Any) -> list[bool]:
    wire, n = transport(group), group.world
    x, rows = torch.full((2 * n, 3), float(group.rank + 1)), [2] * n
    shapes = [(2 * n, 3), (2 * n * n, 3), (2, 3), (2 * n, 3), (2 * n, 3)]
    outs = [torch.full(shape, -1.0) for shape in shapes]
    calls: list[Pending] = [
        wire.all_reduce(x, "sum", out=outs[0]),
        wire.all_gather(x, out=outs[1]),
        wire.reduce_scatter(x, "sum", out=outs[2]),
        wire.all_to_all(x, rows, rows, out=outs[3]),
        wire.broadcast(x, n - 1, out=outs[4]),
    ]
    given = [call.wait() is out for call, out in zip(calls, outs, strict=True)]
    fresh = [
        wire.all_reduce(x, "sum").wait(),
        wire.all_gather(x).wait(),
        wire.reduce_scatter(x, "sum").wait(),
        wire.all_to_all(x, rows, rows).wait(),
        wire.broadcast(x, n - 1).wait(),
    ]
    untouched = torch.equal(x, torch.full((2 * n, 3), float(group.rank + 1)))
    return [*given, *(torch.equal(one, other) for one, other in zip(fresh, outs, strict=True)), untouched]


@ALL
def test_out_is_filled_and_given_back_and_the_input_is_left_alone(world: Ranks) -> None:
    assert world.run(into_out) == world.simulate(into_out) == [[True] * 11] * world.size


def in_place(group: Any) -> list[Any]:
    wire = transport(group)
    summed, sent = torch.ones(2), torch.full((2,), float(group.rank))
    same = wire.all_reduce(summed, "sum", out=summed).wait() is summed
    wire.broadcast(sent, group.world - 1, out=sent).wait()
    whole = torch.zeros(2 * group.world)
    mine = whole[2 * group.rank : 2 * group.rank + 2].fill_(group.rank + 1)
    wire.all_gather(mine, out=whole).wait()
    return [same, summed.tolist(), sent.tolist(), whole.tolist()]


@ALL
def test_in_place(world: Ranks) -> None:
    n = world.size
    gathered = [float(rank + 1) for rank in range(n) for _ in (0, 1)]
    wanted = [True, [float(n)] * 2, [float(n - 1)] * 2, gathered]
    assert world.run(in_place) == world.simulate(in_place) == [wanted] * n


def several_at_once(group: Any) -> list[list[float]]:
    wire = transport(group)
    flying = [wire.all_reduce(torch.full((3,), float(step)), "sum") for step in range(5)]
    return [pending.wait().tolist() for pending in reversed(flying)]


@ALL
def test_several_may_be_in_flight_and_waited_for_in_any_order(world: Ranks) -> None:
    n = float(world.size)
    assert world.run(several_at_once) == [[[step * n] * 3 for step in (4, 3, 2, 1, 0)]] * world.size


def no_gradient(group: Any) -> list[bool]:
    wire = transport(group)
    x = torch.ones(group.world, requires_grad=True)
    calls = [wire.all_reduce(x, "sum"), wire.all_gather(x), wire.reduce_scatter(x, "sum"), wire.broadcast(x, 0)]
    return [call.wait().requires_grad for call in calls]


@ALL
def test_no_gradient_is_recorded(world: Ranks) -> None:
    assert world.run(no_gradient) == world.simulate(no_gradient) == [[False] * 4] * world.size


def unsupported(group: Group) -> list[str]:
    wire, x = transport(group), torch.ones(group.world, dtype=torch.int16)
    with pytest.raises(ReduceOpError) as reduced:
        wire.all_reduce(x, "sum")
    with pytest.raises(ReduceOpError) as scattered:
        wire.reduce_scatter(x, "max")
    return [str(reduced.value), str(scattered.value)]


@pytest.mark.world(1, 2, 3, backend="gloo")
def test_what_gloo_cannot_reduce_is_refused_at_the_call(world: Ranks) -> None:
    for reduced, scattered in world.run(unsupported):
        assert reduced.startswith("all_reduce: got a reduction of torch.int16, which gloo does not have")
        assert scattered.startswith("reduce_scatter: got a reduction of torch.int16, which gloo does not have")


def moved(group: Any) -> list[str]:
    wire, wrong = transport(group), []
    for dtype in (torch.int16, torch.uint16, torch.float8_e4m3fn, torch.float8_e5m2, torch.bool, torch.complex64):
        x = torch.tensor([0, 1, 1]).to(dtype)
        gathered, sent = wire.all_gather(x).wait(), wire.broadcast(x, 0).wait()
        whole = gathered.to(torch.complex64).tolist() == [0, 1, 1] * group.world
        if not (whole and gathered.dtype == sent.dtype == dtype and sent.to(torch.complex64).tolist() == [0, 1, 1]):
            wrong.append(str(dtype))
    for dtype in (torch.float8_e8m0fnu, torch.float4_e2m1fn_x2):
        x = torch.tensor([3, 1, 7], dtype=torch.uint8).view(dtype)
        gathered, sent = wire.all_gather(x).wait(), wire.broadcast(x, 0).wait()
        whole = gathered.view(torch.uint8).tolist() == [3, 1, 7] * group.world
        if not (whole and gathered.dtype == sent.dtype == dtype and sent.view(torch.uint8).tolist() == [3, 1, 7]):
            wrong.append(str(dtype))
    return wrong


@ALL
def test_bytes_of_any_dtype_are_moved(world: Ranks) -> None:
    assert world.run(moved) == [[]] * world.size


def gathered_in_one_piece(group: Any) -> list[Any]:
    wire = process_transport(group)
    xs = [torch.full((2, 3), float(group.rank)), torch.full((3, 2), float(group.rank)).t(), torch.empty(0)]
    xs = [*xs, torch.tensor([group.rank + 1j])]
    flying = [*wire.all_gather_coalesced(xs[:3]), *wire.all_gather_coalesced(xs[3:])]
    together = [one.wait() for one in reversed(flying)][::-1]
    alone = [wire.all_gather(x.contiguous()).wait() for x in xs]
    return [torch.equal(one, other) for one, other in zip(together, alone, strict=True)]


@pytest.mark.world(1, 2, 3)
def test_a_list_gathered_in_one_piece_is_each_tensor_gathered_alone(world: Ranks) -> None:
    assert world.run(gathered_in_one_piece) == [[True] * 4] * world.size
