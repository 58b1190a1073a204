"""The weak points of torch's `local_map` (W numbers of the facts), each with what ours does instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.experimental import local_map as torch_local_map

from comm_core import Group, catalog, run
from comm_core.errors import PlacementError
from comm_core.testing import run_ranks
from func_map import local_map

S0, S1, R, P = Shard(0), Shard(1), Replicate(), Partial()


def mesh_of(group: Group) -> DeviceMesh:
    return DeviceMesh.from_group(group.process_group, "cpu")


def numbers(*shape: int) -> torch.Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


def refusal(fn: Callable[[], Any]) -> str:
    with pytest.raises(PlacementError) as caught:
        fn()
    return str(caught.value)


def forgotten(group: Group) -> str:
    x = distribute_tensor(numbers(4, 2), mesh_of(group), [S0])
    return refusal(lambda: local_map(lambda x: x * 2)(x))


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_w1_forgotten_out_placements_are_refused_on_every_rank(world: int) -> None:
    for said in run_ranks(forgotten, world=world):
        assert "no out_placements" in said
        assert "output" in said


def only_kwargs(group: Group) -> tuple[Any, ...]:
    mesh = mesh_of(group)
    x = distribute_tensor(numbers(6, 2), mesh, [S0]).requires_grad_()
    seen = []

    @local_map(out_placements=[S0], in_placements={"x": [S0]})
    def double(*, x: torch.Tensor) -> torch.Tensor:
        seen.append(type(x) is torch.Tensor)
        return x * 2

    y = double(x=x)
    y.full_tensor().sum().backward()
    return seen, y.full_tensor().detach(), x.grad.full_tensor()


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_w2_dtensors_in_kwargs_are_unwrapped(world: int) -> None:
    for seen, y, grad in run_ranks(only_kwargs, world=world):
        assert seen == [True]
        torch.testing.assert_close(y, numbers(6, 2) * 2)
        torch.testing.assert_close(grad, torch.full((6, 2), 2.0, dtype=torch.float64))


def plane(group: Group, spec: Any) -> Any:
    mesh = DeviceMesh("cpu", torch.arange(group.world).reshape(2, -1))
    x = distribute_tensor(numbers(4, 2), mesh, [S0, R])
    return local_map(lambda x: x * 2, out_placements=spec)(x).full_tensor()


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("spec", [(S0, R), [S0, R], ((S0, R),), ([S0, R],)], ids=str)
@pytest.mark.parametrize("world", [2, 4])
def test_w5_tuple_and_list_say_the_same(world: int, spec: Any) -> None:
    for y in run_ranks(plane, world=world, args=(spec,)):
        torch.testing.assert_close(y, numbers(4, 2) * 2)


def two_meshes(group: Group) -> list[str]:
    here = DeviceMesh("cpu", list(range(group.world)))
    there = DeviceMesh("cpu", list(reversed(range(group.world))))
    a, b = (distribute_tensor(numbers(6, 2), mesh, [S0]) for mesh in (here, there))
    add = local_map(lambda a, b: a + b, out_placements=[S0])
    fixed = local_map(lambda a: a, out_placements=[S0], device_mesh=here)
    return [refusal(lambda: add(a, b)), refusal(lambda: fixed(b))]


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [2, 3])
def test_w7_meshes_are_compared(world: int) -> None:
    for first, second in run_ranks(two_meshes, world=world):
        assert "argument 'b' (positional 1)" in first
        assert "argument 'a' (positional 0)" in first
        assert "the mesh of device_mesh" in second


def wrong_placement(group: Group) -> str:
    mesh = mesh_of(group)
    kv = [distribute_tensor(numbers(6, 2) + 1234.5, mesh, [p]) for p in (S0, S1)]
    body = local_map(lambda *, kv: kv[0], out_placements=[S0], in_placements={"kv": [S0]})
    return refusal(lambda: body(kv=kv))


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_w8_messages_name_the_argument_and_print_no_tensor(world: int) -> None:
    for said in run_ranks(wrong_placement, world=world):
        assert "kwargs['kv'][1]" in said
        assert "got a DTensor placed [Shard(1)]; need [Shard(0)]" in said
        assert "tensor(" not in said.lower()
        assert "123" not in said


def ratio(group: Group, mapper: str, case: str) -> tuple[float, bool]:
    """How many times too large the gradient of `w` is, and whether it is the same on all ranks."""
    mesh = mesh_of(group)
    mapped = local_map if mapper == "ours" else torch_local_map
    x, w = numbers(12, 12), numbers(12, 3) + 2
    placed = ([S1], [S0]) if case == "reduced" else ([S0], [R])
    xd, wd = distribute_tensor(x, mesh, placed[0]), distribute_tensor(w, mesh, placed[1]).requires_grad_()
    if case == "reduced":
        body = lambda x, w: run(catalog.ALL_REDUCE, x @ w, group, reduce_op="sum")  # noqa: E731
        out = [R]
    else:
        body, out = (lambda x, w: x @ w), [S0]
    mapped(body, out_placements=out, in_placements=placed)(xd, wd).full_tensor().square().sum().backward()
    w.requires_grad_()
    (x @ w).square().sum().backward()
    got = wd.grad.full_tensor()
    quotient = (got / w.grad).mean().item()
    exact = torch.allclose(got, w.grad * quotient)
    shares = run(catalog.ALL_GATHER, got.reshape(1, -1), group, dim=0)
    return (quotient if exact else float("nan")), bool((shares == shares[0]).all())


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("case", ["reduced", "replicated weight"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_w9_w10_gradients_are_those_of_one_process(world: int, case: str) -> None:
    for quotient, same in run_ranks(ratio, world=world, args=("ours", case)):
        assert quotient == pytest.approx(1.0, rel=1e-12)
        assert same


@pytest.mark.usefixtures("world_backend")
@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="documents torch 2.13")
def test_w9_w10_what_torch_does() -> None:
    """The docs say this of torch 2.13; when it stops being true they must stop saying it."""
    assert [round(q, 9) for q, _ in run_ranks(ratio, world=3, args=("torch", "reduced"))] == [3.0] * 3
    results = run_ranks(ratio, world=3, args=("torch", "replicated weight"))
    assert not any(same for _, same in results)


def in_flight(group: Group) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = mesh_of(group)
    x = distribute_tensor(numbers(12, 2), mesh, [S0]).requires_grad_()
    moving = x.redistribute(placements=[R], async_op=True)
    y = local_map(lambda x: x.square(), out_placements=[R])(moving)
    y.full_tensor().sum().backward()
    return y.full_tensor().detach(), x.grad.full_tensor()


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_w12_an_input_in_flight_is_waited_for_and_keeps_its_gradient(world: int) -> None:
    for y, grad in run_ranks(in_flight, world=world):
        torch.testing.assert_close(y, numbers(12, 2).square())
        torch.testing.assert_close(grad, 2 * numbers(12, 2))


def lopsided(group: Group, case: str) -> list[torch.Tensor]:
    """Bodies that use an input on rank 0 only, with a collective behind that input's gradient."""
    mesh = mesh_of(group)
    x, w = (distribute_tensor(numbers(12, 2), mesh, [S0]).requires_grad_() for _ in range(2))
    alone = group.rank == 0

    def one_of_two(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x * w if alone else x) / 1

    def nothing_elsewhere(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return x * w if alone else torch.zeros_like(x)

    body = one_of_two if case == "one of two" else nothing_elsewhere
    whole = [t.redistribute(placements=[R]) for t in (x, w)]  # its backward is a reduce-scatter, on all ranks
    y = local_map(body, out_placements=[P])(*whole)
    y.full_tensor().sum().backward()
    return [x.grad.full_tensor(), w.grad.full_tensor()]


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("case", ["one of two", "nothing elsewhere"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_w14_an_input_unused_on_some_ranks_gets_zeros_there(world: int, case: str) -> None:
    others = world - 1 if case == "one of two" else 0
    for grad_x, grad_w in run_ranks(lopsided, world=world, timeout=30.0, args=(case,)):
        torch.testing.assert_close(grad_x, numbers(12, 2) + others)
        torch.testing.assert_close(grad_w, numbers(12, 2))


def halves(group: Group) -> tuple[Any, ...]:
    mesh = mesh_of(group)
    x = distribute_tensor(numbers(5, 2), mesh, [S0]).requires_grad_()
    y = local_map(lambda x: x.exp(), out_placements=[S0])(x)
    y.full_tensor().sum().backward()
    return tuple(y.shape), y.full_tensor().detach(), x.grad.full_tensor()


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_w4_uneven_outputs_have_the_right_shape(world: int) -> None:
    for shape, y, grad in run_ranks(halves, world=world):
        assert shape == (5, 2)
        torch.testing.assert_close(y, numbers(5, 2).exp())
        torch.testing.assert_close(grad, numbers(5, 2).exp())
