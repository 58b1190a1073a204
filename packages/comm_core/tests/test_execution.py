"""`run`, `start`, `launch`, `wait` and `settled`: what they take, refuse and give back, on ranks and simulated."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as torchs
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from comm_core import Group, Pending, World, catalog, launch, missing, run, start, wait
from comm_core.errors import ArgumentError, DtypeError, GradientError, GroupError, ReduceOpError
from comm_core_pytest import Ranks

ALL = pytest.mark.world(1, 2, 3)


def both(world: Ranks, body: Any, *args: Any) -> list[Any]:
    """Run a body on real ranks and in the simulator, which have to agree."""
    real, simulated = world.run(body, *args), world.simulate(body, *args)
    assert real == simulated
    return real


# What goes in


def given_forms(group: Any) -> list[float]:
    forms = [
        torch.ones(2),
        torch.nn.Parameter(torch.ones(2), requires_grad=False),
        torch.ones(4)[::2],
        torch.ones(1).expand(2),
    ]
    return [run(catalog.ALL_REDUCE, x, group, reduce_op="sum").sum().item() for x in forms]


@ALL
def test_plain_tensors_of_any_layout(world: Ranks) -> None:
    assert both(world, given_forms) == [[2.0 * world.size] * 4] * world.size


def conjugated(group: Any) -> list[list[complex]]:
    x = torch.tensor([1 + 2j, 3 - 1j]).conj()
    imaginary = torch.tensor([1 + 2j]).conj().imag
    assert x.is_conj()
    assert imaginary.is_neg()
    return [
        run(catalog.ALL_REDUCE, x, group, reduce_op="sum").tolist(),
        run(catalog.ALL_GATHER, x, group, dim=0).tolist(),
        run(catalog.BROADCAST, x, group, src=0).tolist(),
        run(catalog.PERMUTE, x, group, destinations=list(range(group.world))).tolist(),
        run(catalog.ALL_GATHER, imaginary, group, dim=0).tolist(),
        launch(catalog.ALL_GATHER, x, group, dim=0).wait().tolist(),
    ]


@ALL
def test_conjugated_and_negated_views_are_sent_as_they_look(world: Ranks) -> None:
    n, x = world.size, [1 - 2j, 3 + 1j]
    wanted = [[n * value for value in x], x * n, x, x, [-2.0] * n, x * n]
    assert both(world, conjugated) == [wanted] * n


@pytest.mark.parametrize("wrong", [None, 3, [1.0], "x", (torch.ones(1),)], ids=str)
@pytest.mark.parametrize("door", [run, launch])
def test_what_is_no_tensor_is_refused(door: Any, wrong: Any) -> None:
    def body(group: Any) -> str:
        with pytest.raises(DtypeError, match="need a tensor") as caught:
            door(catalog.ALL_REDUCE, wrong, group, reduce_op="sum")
        return caught.value.got

    assert World(2).run(body) == [f"a {type(wrong).__name__}"] * 2


@pytest.mark.parametrize("door", [run, launch])
def test_sparse_tensors_are_refused_with_what_to_do(door: Any) -> None:
    def body(group: Any) -> bool:
        with pytest.raises(DtypeError, match="to_dense") as caught:
            door(catalog.ALL_REDUCE, torch.ones(2).to_sparse(), group, reduce_op="sum")
        return "tensor(" not in str(caught.value)

    assert World(2).run(body) == [True, True]


def dtensors(group: Group) -> list[str]:
    mesh = init_device_mesh("cpu", (group.world,))
    x = distribute_tensor(torch.ones(2, 2), mesh)
    said = []
    for door in (run, launch):
        with pytest.raises(DtypeError) as caught:
            door(catalog.ALL_REDUCE, x, group, reduce_op="sum")
        said.append(str(caught.value))
    return said


@ALL
def test_a_dtensor_is_refused_with_both_ways_out(world: Ranks) -> None:
    for said in world.run(dtensors):
        assert len(said) == 2
        for message in said:
            assert "got a DTensor; need a plain tensor; pass x.to_local(), or use func_map.local_map" in message


def torchs_async(group: Group) -> list[Any]:
    default = dist.group.WORLD
    assert default is not None

    def started() -> torch.Tensor:
        x = torchs.all_reduce(torch.ones(2), "sum", default)
        assert type(x) is torchs.AsyncCollectiveTensor
        return x

    found = [
        run(catalog.ALL_REDUCE, started(), group, reduce_op="sum"),
        run(catalog.ALL_GATHER, started(), group, dim=0)[:2],
        launch(catalog.BROADCAST, started(), group, src=0).wait() * group.world,
        wait(started()) * group.world,
        run(catalog.WAIT, started(), group) * group.world,
    ]
    assert [type(x) for x in found] == [torch.Tensor] * 5
    return [found[0].tolist(), [x.tolist() for x in found[1:]]]


@ALL
def test_an_asynchronous_tensor_of_torch_is_waited_for(world: Ranks) -> None:
    n = float(world.size)
    for summed, others in world.run(torchs_async):
        assert summed == [n * n] * 2
        assert others == [[n] * 2, [n * n] * 2, [n * n] * 2, [n * n] * 2]


def differentiated_async(group: Group) -> list[float]:
    default = dist.group.WORLD
    assert default is not None
    x = torch.ones(2, requires_grad=True)
    run(catalog.ALL_REDUCE, torchs.all_reduce(x * 3, "sum", default), group, reduce_op="sum").sum().backward()
    return x.grad.tolist()  # type: ignore[union-attr]


@ALL
def test_the_gradient_goes_through_a_tensor_in_flight(world: Ranks) -> None:
    n = float(world.size)
    assert world.run(differentiated_async) == [[3 * n * n] * 2] * world.size


@pytest.mark.parametrize("params", [{}, {"dim": 0}, {"reduce_op": "sum", "dim": 0}, {"op": "sum"}], ids=str)
@pytest.mark.parametrize("door", [run, launch])
def test_parameters_that_the_collective_does_not_have_are_refused(door: Any, params: dict[str, Any]) -> None:
    def body(group: Any) -> str:
        with pytest.raises(ArgumentError, match="need reduce_op") as caught:
            door(catalog.ALL_REDUCE, torch.ones(2), group, **params)
        return caught.value.got

    assert World(2).run(body) == ["parameters " + (", ".join(sorted(params)) or "none")] * 2


# What comes out


def results_are_new(group: Any) -> list[bool]:
    n = group.world
    x = torch.ones(n, 2)
    before = x.clone()
    calls: list[tuple[Any, dict[str, Any]]] = [
        (catalog.ALL_REDUCE, {"reduce_op": "sum"}),
        (catalog.ALL_GATHER, {"dim": 1}),
        (catalog.REDUCE_SCATTER, {"reduce_op": "avg", "dim": 0}),
        (catalog.ALL_TO_ALL, {"output_splits": None, "input_splits": None}),
        (catalog.BROADCAST, {"src": 0}),
        (catalog.PERMUTE, {"destinations": list(range(n))}),
    ]
    found = []
    for entry, params in calls:
        run(entry, x, group, **params).fill_(7)
        found.append(torch.equal(x, before))
    return found


@ALL
def test_a_result_never_shares_memory_with_the_input(world: Ranks) -> None:
    assert both(world, results_are_new) == [[True] * 6] * world.size


def launched(group: Any) -> list[Any]:
    x = torch.full((2, 3), float(group.rank), requires_grad=True)
    pending = launch(catalog.ALL_GATHER, x, group, dim=1)
    assert isinstance(pending, Pending)
    assert pending.shape == (2, 3 * group.world)
    first = pending.wait()
    return [first is pending.wait(), first.requires_grad, tuple(first.shape), first[0, ::3].tolist(), pending.done]


@ALL
def test_launch_gives_what_is_in_flight_and_records_no_gradient(world: Ranks) -> None:
    n = world.size
    assert both(world, launched) == [[True, False, (2, 3 * n), [float(rank) for rank in range(n)], True]] * n


def finished_by(group: Any) -> list[Any]:
    seen: list[Pending] = []

    def finish(pending: Pending) -> torch.Tensor:
        seen.append(pending)
        return pending.wait() * 2

    x = torch.ones(2, requires_grad=True)
    plain = start(catalog.ALL_REDUCE, torch.ones(2), finish, group, reduce_op="sum")
    start(catalog.ALL_REDUCE, x, Pending.wait, group, reduce_op="sum").sum().backward()
    return [plain.tolist(), x.grad.tolist(), len(seen)]  # type: ignore[union-attr]


@ALL
def test_start_leaves_the_end_to_the_caller(world: Ranks) -> None:
    n = float(world.size)
    assert both(world, finished_by) == [[[2 * n] * 2, [n] * 2, 1]] * world.size


def waited(group: Any) -> list[Any]:
    x = torch.ones(2, requires_grad=True)
    wait(x * 3).sum().backward()
    run(catalog.WAIT, x * 2, group).sum().backward()
    return [wait(torch.ones(2)).tolist(), x.grad.tolist()]  # type: ignore[union-attr]


@ALL
def test_waiting_for_a_finished_tensor_is_the_identity_with_its_gradient(world: Ranks) -> None:
    assert both(world, waited) == [[[1.0, 1.0], [5.0, 5.0]]] * world.size


# Gradients at the call


def test_an_entry_without_a_gradient_says_why() -> None:
    entry = dataclasses.replace(catalog.BROADCAST, gradient=missing("nobody has worked it out"))

    def body(group: Any) -> bool:
        with pytest.raises(GradientError, match="need nobody has worked it out"):
            run(entry, torch.ones(2, requires_grad=True), group, src=0)
        return run(entry, torch.ones(2), group, src=0).requires_grad

    assert World(2).run(body) == [False, False]


def test_no_grad_and_integers_record_nothing() -> None:
    def body(group: Any) -> list[bool]:
        x = torch.ones(2, requires_grad=True)
        with torch.no_grad():
            quiet = run(catalog.ALL_REDUCE, x, group, reduce_op="sum")
        whole = run(catalog.ALL_REDUCE, torch.ones(2, dtype=torch.int64), group, reduce_op="sum")
        loud = run(catalog.ALL_REDUCE, x, group, reduce_op="sum")
        return [quiet.requires_grad, whole.requires_grad, loud.requires_grad, loud.is_leaf]

    assert World(2).run(body) == [[False, False, True, False]] * 2


def test_a_reduction_that_is_not_linear_may_be_batched() -> None:
    def body(group: Any) -> list[Any]:
        x = torch.arange(6.0).view(3, 2) * (group.rank + 1)
        return torch.vmap(lambda row: run(catalog.ALL_REDUCE, row, group, reduce_op="max"))(x).tolist()

    assert World(2).run(body) == [[[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]] * 2


# Modes


def counted(group: Any) -> float:
    with FlopCounterMode(display=False) as flops:
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        total = run(catalog.ALL_REDUCE, product, group, reduce_op="sum")
    assert flops.get_total_flops() == 16
    return total.sum().item()


@ALL
def test_under_a_mode_that_only_watches_the_result_is_the_same(world: Ranks) -> None:
    assert both(world, counted) == [8.0 * world.size] * world.size


def shapes_only(group: Any) -> list[tuple[int, ...]]:
    n = group.world
    with FakeTensorMode():
        x = torch.empty(n, 2)
        found = [
            run(catalog.ALL_REDUCE, x, group, reduce_op="sum"),
            run(catalog.ALL_GATHER, x, group, dim=1),
            run(catalog.REDUCE_SCATTER, x, group, reduce_op="sum", dim=0),
        ]
    return [tuple(one.shape) for one in found]


@ALL
def test_fake_tensors_have_shapes_and_move_nothing(world: Ranks) -> None:
    n = world.size
    assert both(world, shapes_only) == [[(n, 2), (n, 2 * n), (1, 2)]] * n


def traced(group: Any) -> list[float]:
    graph = make_fx(lambda x: run(catalog.ALL_GATHER, x, group, dim=0) + 1)(torch.zeros(1))
    return graph(torch.tensor([float(group.rank)])).tolist()


@ALL
def test_a_graph_of_a_rank_runs_on_that_rank(world: Ranks) -> None:
    """Not on several simulated ranks: while it traces, make_fx patches what all threads of a process share."""
    assert world.run(traced) == [[rank + 1.0 for rank in range(world.size)]] * world.size
    assert World(1).run(traced) == [[1.0]]


def compiled(group: Any) -> list[Any]:
    @torch.compile(fullgraph=True, backend="aot_eager")
    def f(x: torch.Tensor) -> torch.Tensor:
        return run(catalog.ALL_REDUCE, x * 2, group, reduce_op="sum") + 1

    torch.compiler.reset()
    x = torch.ones(2, requires_grad=True)
    y = f(x)
    y.sum().backward()
    return [y.tolist(), x.grad.tolist()]  # type: ignore[union-attr]


@pytest.mark.world(1, 2)
def test_compiled_on_real_ranks(world: Ranks) -> None:
    n = float(world.size)
    assert world.run(compiled) == [[[2 * n + 1] * 2, [2 * n] * 2]] * world.size


# Failures of the transport


def refused_dtypes(group: Group) -> list[str]:
    said = []
    for dtype in (torch.int16, torch.uint16, torch.float8_e4m3fn):
        with pytest.raises(ReduceOpError) as caught:
            launch(catalog.ALL_REDUCE, torch.ones(2).to(dtype), group, reduce_op="sum")
        said.append(str(caught.value))
    return said


@pytest.mark.world(1, 2, 3, backend="gloo")
def test_what_the_backend_cannot_reduce_is_refused_at_the_call_by_its_dtype(world: Ranks) -> None:
    for said in world.run(refused_dtypes):
        assert ["gloo" in one for one in said] == [True] * 3
        assert "torch.int16" in said[0]
        assert "torch.float8_e4m3fn" in said[2]


def written_while_sent(group: Group) -> list[float]:
    x = torch.ones(2)
    pending = launch(catalog.ALL_GATHER, x, group, dim=0)
    x.zero_()
    for _ in range(2):
        with pytest.raises(ArgumentError, match=r"all_gather: got an input that was written while it was being sent"):
            pending.wait()
    return run(catalog.ALL_GATHER, x, group, dim=0).tolist()


@ALL
def test_writing_into_an_input_in_flight_is_refused_at_the_wait(world: Ranks) -> None:
    assert world.run(written_while_sent) == [[0.0] * (2 * world.size)] * world.size


def written_after_a_copy(group: Group) -> list[float]:
    n, found = group.world, []
    calls: list[tuple[Any, torch.Tensor, dict[str, Any]]] = [
        (catalog.ALL_REDUCE, torch.ones(n, n), {"reduce_op": "sum"}),
        (catalog.BROADCAST, torch.ones(n, n), {"src": 0}),
        (catalog.ALL_GATHER, torch.ones(2 * n, n)[::2], {"dim": 0}),
        (catalog.REDUCE_SCATTER, torch.ones(2, n), {"reduce_op": "avg", "dim": 1}),
    ]
    for entry, x, params in calls:
        pending = launch(entry, x, group, **params)
        x.zero_()
        found.append(pending.wait().mean().item())
    return found


@pytest.mark.world(2, 3)
def test_writing_into_a_copied_input_is_allowed(world: Ranks) -> None:
    assert both(world, written_after_a_copy) == [[float(world.size), 1.0, 1.0, 1.0]] * world.size


def test_without_any_group_the_call_says_so() -> None:
    with pytest.raises(GroupError, match="no default group"):
        run(catalog.ALL_REDUCE, torch.ones(2), reduce_op="sum")
    assert wait(torch.ones(2)).tolist() == [1.0, 1.0]
