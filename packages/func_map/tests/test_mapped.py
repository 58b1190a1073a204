"""What is accepted, in which forms, and what is refused, in which words."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from comm_core import Group
from comm_core.errors import ArgumentError, CommError, GroupError, PlacementError, ShapeError
from comm_core.testing import run_ranks
from func_map import local_map

S0, S1, R, P = Shard(0), Shard(1), Replicate(), Partial()
Pair = namedtuple("Pair", ["sum", "rest"])


def mesh_of(group: Group) -> DeviceMesh:
    return DeviceMesh.from_group(group.process_group, "cpu")


def numbers(*shape: int) -> torch.Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


# ---------------------------------------------------------------------- refusals


def refusals(group: Group) -> dict[str, tuple[type, str]]:
    """Make every mistake once and return what was said about it."""
    mesh = mesh_of(group)
    other = DeviceMesh("cpu", list(reversed(range(group.world))))
    x = distribute_tensor(numbers(6, 2), mesh, [S0])
    w = distribute_tensor(numbers(2, 3), mesh, [R])
    p = DTensor.from_local(numbers(2, 2), mesh, [Partial("max")])
    grad = DTensor.from_local(numbers(2, 2), mesh, [Partial("max")]).requires_grad_()
    whole = grad.redistribute(placements=[R])
    plain = numbers(6, 2)
    alone = DeviceMesh("cpu", [0])

    def mm(x: Any, w: Any) -> Any:
        return x @ w

    def twin(x: Any, *rest: Any, **more: Any) -> Any:
        return x, [x, 3]

    def lm(body: Any, *args: Any, **options: Any) -> Callable[[], Any]:
        options.setdefault("out_placements", [S0])
        return lambda: local_map(body, **options)(*args)

    ins = {"in_placements": ([S0], [R])}
    cases: dict[str, Callable[[], Any]] = {
        "not callable": lambda: local_map([S0]),
        "bare placement": lambda: local_map(mm, [S0], S0),
        "mesh of another type": lambda: local_map(mm, [S0], device_mesh="tp"),
        "unknown name": lambda: local_map(mm, [S0], {"v": [S0]}),
        "no dtensor, no mesh": lm(mm, plain, plain),
        "forgotten out": lm(mm, x, w, out_placements=None),
        "out none for a tensor": lm(twin, x, out_placements=([S0], [None, None])),
        "one spec, several outputs": lm(twin, x),
        "wrong count of outputs": lm(twin, x, out_placements=([S0], [S0], [S0], [S0])),
        "spec for what is no tensor": lm(twin, x, out_placements=([S0], [S0], [S0])),
        "out of another type": lm(mm, x, w, out_placements="shard"),
        "wrong count of inputs": lm(mm, x, w, in_placements=([S0],)),
        "wrong count of gradients": lm(mm, x, w, in_grad_placements=([S0], [R], [R])),
        "other placements": lm(mm, x, w, in_placements=([S0], [S0])),
        "none for a dtensor": lm(mm, x, w, in_placements=([S0], None)),
        "spec for a number": lm(lambda x, s: x * s, x, 2.0, in_placements=([S0], [R])),
        "to partial": lm(mm, x, w, in_placements=([S0], [P]), redistribute_inputs=True),
        "too many placements": lm(mm, x, w, in_placements=([S0, R], [R])),
        "too many out placements": lm(mm, x, w, out_placements=[S0, R]),
        "no such dim": lm(mm, x, w, in_placements=([Shard(2)], [R])),
        "no such out dim": lm(mm, x, w, out_placements=[Shard(-3)]),
        "no such gradient dim": lm(mm, x, w, in_grad_placements=([Shard(5)], [R])),
        "dtensor from the body": lm(lambda a: x, w),
        "other mesh": lm(mm, x, distribute_tensor(numbers(2, 3), other, [R]), **ins) if group.world > 1 else None,
        "structure": lm(twin, x, [x, x], in_placements=([S0], {"a": [S0]})),
        "in *args": lm(twin, x, w, w, in_placements=([S0], [R], [S1])),
        "partial max in, gradient": lm(lambda x: x, grad, out_placements=[P]),
        "partial max out, gradient": lm(lambda x: x, whole, out_placements=[Partial("max")]),
        "outside the mesh": None if group.world == 1 else lm(mm, plain, numbers(2, 3), device_mesh=alone),
    }
    said = {}
    for name, case in cases.items():
        try:
            (case or _nothing)()
        except CommError as error:
            said[name] = (type(error), str(error))
        else:
            said[name] = (type(None), "nothing")
    assert torch.equal(local_map(lambda x: x + 1, [Partial("max")])(p).to_local(), p.to_local() + 1)
    return said


def _nothing() -> None:
    return None


WORDS: dict[str, tuple[type, str]] = {
    "not callable": (ArgumentError, "local_map: got a list as func; need a function"),
    "bare placement": (PlacementError, "local_map(mm), in_placements: got a Shard; need a sequence"),
    "mesh of another type": (ArgumentError, "local_map(mm): got a str as device_mesh; need a DeviceMesh or None"),
    "unknown name": (ArgumentError, "local_map(mm), in_placements: got the name 'v'; need names among ['x', 'w']"),
    "no dtensor, no mesh": (ArgumentError, "local_map(mm): got no DTensor among the arguments and no device_mesh"),
    "forgotten out": (PlacementError, "local_map(mm), output: got a tensor, and no out_placements"),
    "out none for a tensor": (PlacementError, "local_map(twin), output[1][0]: got a tensor placed None"),
    "one spec, several outputs": (PlacementError, "got one spec, [Shard(0)], for 3 outputs; need one spec per output"),
    "wrong count of outputs": (PlacementError, "local_map(twin), output: got out_placements entry of the form"),
    "spec for what is no tensor": (
        PlacementError,
        "output[1][1]: got placements in out_placements for a value of",
    ),
    "out of another type": (PlacementError, "local_map(mm), out_placements: got a str"),
    "wrong count of inputs": (PlacementError, "in_placements: got 1 entries; need 2, one per positional argument"),
    "wrong count of gradients": (PlacementError, "in_grad_placements: got 3 entries; need 2"),
    "other placements": (
        PlacementError,
        "argument 'w' (positional 1): got a DTensor placed [Replicate()]; need [Sh",
    ),
    "none for a dtensor": (PlacementError, "argument 'w' (positional 1): got a DTensor where in_placements has None"),
    "spec for a number": (
        PlacementError,
        "argument 's' (positional 1): got placements in in_placements for a",
    ),
    "to partial": (
        PlacementError,
        "argument 'w' (positional 1): got a DTensor placed [Replicate()], to be",
    ),
    "too many placements": (
        PlacementError,
        "argument 'x' (positional 0): got 2 placement(s), [Shard(0), Rep",
    ),
    "too many out placements": (PlacementError, "local_map(mm), output: got 2 placement(s)"),
    "no such dim": (
        ShapeError,
        "argument 'x' (positional 0): got Shard(2) on mesh axis 0 for a 2-D",
    ),
    "no such out dim": (ShapeError, "local_map(mm), output: got Shard(-3) on mesh axis 0 for a 2-D tensor"),
    "no such gradient dim": (ShapeError, "argument 'x' (positional 0): got Shard(5)"),
    "dtensor from the body": (PlacementError, "output: got a DTensor; need a local tensor"),
    "other mesh": (PlacementError, "argument 'w' (positional 1): got a DTensor on DeviceMesh"),
    "structure": (PlacementError, "argument 'rest'[0] (positional 1): got in_placements entry of the form a dict"),
    "in *args": (PlacementError, "argument 'rest'[1] (positional 2): got a DTensor placed [Replicate()]"),
    "partial max in, gradient": (PlacementError, "argument 'x' (positional 0): got Partial(max) for a tensor that"),
    "partial max out, gradient": (PlacementError, "output: got Partial(max) for a tensor that requires a gradient"),
    "outside the mesh": (GroupError, "local_map(mm): got a call on a rank outside the mesh"),
}


@functools.cache
def said_by_ranks(world: int, backend: str) -> list[dict[str, tuple[type, str]]]:
    return run_ranks(refusals, world, backend)


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("name", WORDS)
def test_mistakes_are_refused_at_the_call_on_every_rank(name: str, world: int, world_backend: str) -> None:
    if world == 1 and name in ("other mesh", "outside the mesh"):
        return
    kind, words = WORDS[name]
    for rank, said in enumerate(said_by_ranks(world, world_backend)):
        if name == "outside the mesh" and rank == 0:
            continue
        assert said[name][0] is kind, said[name]
        assert words in said[name][1]
        assert "tensor(" not in said[name][1].lower()


# ---------------------------------------------------------------------- forms


def forms(group: Group) -> dict[str, Any]:
    """Call bodies in every accepted form; return results as whole tensors."""
    mesh = mesh_of(group)
    x = distribute_tensor(numbers(6, 2), mesh, [S0]).requires_grad_()
    w = distribute_tensor(numbers(2, 3), mesh, [R]).requires_grad_()
    seen: dict[str, Any] = {}

    @local_map(out_placements=[S0], in_placements=([S0], [R]))
    def project(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Project."""
        return x @ w

    seen["name"] = (project.__name__, project.__doc__, project.__wrapped__.__name__)
    seen["decorator"] = project(x, w).full_tensor().detach()
    seen["keyword"] = local_map(lambda x, w: x @ w, [S0])(x, w=w).full_tensor().detach()

    def nested(pack: Any, *, extra: Any, scale: float = 1.0) -> Any:
        (a, b), c = pack["ab"], extra[0]
        return {"y": Pair(a @ b * scale, [c, None]), "n": 3}

    mapped = local_map(
        nested,
        out_placements={"y": Pair([S0], [[S0], None]), "n": None},
        in_placements={"pack": {"ab": ([S0], [R])}, "extra": [S0]},
    )
    out = mapped({"ab": (x, w)}, extra=[x], scale=2.0)
    seen["tree"] = (out["y"].sum.full_tensor().detach(), out["y"].rest[0].full_tensor().detach(), out["n"])
    flat = local_map(lambda xs, w: (xs[0] @ w, xs[1]), ([S0], [S0]), ([S0], [S0], [R]))([x, x], w)
    prefix = local_map(lambda xs, w: (xs[0] @ w, xs[1]), ([S0], [S0]), ([S0], [R]))([x, x], w)
    seen["flat and prefix"] = torch.equal(flat[0].to_local(), prefix[0].to_local())
    moved = local_map(lambda x: x, [R], ([R],), redistribute_inputs=True)(x)
    seen["moved"] = moved.full_tensor().detach()
    last = local_map(lambda x: x, [Shard(-1)], ([Shard(-2)],), redistribute_inputs=True)
    seen["negative"] = last(distribute_tensor(numbers(6, 6), mesh, [S0])).shape[0] * group.world
    made = local_map(lambda n: torch.ones(n, 2), [S0], device_mesh=mesh)(3)
    seen["made"] = tuple(made.shape)
    seen["plain"] = local_map(lambda x, s: x * s, [S0])(x, torch.tensor(2.0)).full_tensor().detach()
    seen["no tensor out"] = local_map(lambda x: x.shape[1])(x)
    seen["mixed"] = mixed_outputs(x)
    return seen


def mixed_outputs(x: DTensor) -> Any:
    """One output with a gradient, one of integers, one unused, and an input that is not used."""
    body = local_map(lambda x, unused: (x * 2, x.argmax(1), x * 100), ([S0], [S0], [S0]))
    unused = x.detach().clone().requires_grad_()
    y, index, _ = body(x, unused)
    x.grad = None
    y.full_tensor().sum().backward()
    return index.requires_grad, index.full_tensor(), x.grad.full_tensor(), unused.grad.full_tensor()


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_forms(world: int) -> None:
    x, w = numbers(6, 2), numbers(2, 3)
    for seen in run_ranks(forms, world=world):
        assert seen["name"] == ("project", "Project.", "project")
        torch.testing.assert_close(seen["decorator"], x @ w)
        torch.testing.assert_close(seen["keyword"], x @ w)
        torch.testing.assert_close(seen["tree"][0], 2 * x @ w)
        torch.testing.assert_close(seen["tree"][1], x)
        assert seen["tree"][2] == 3
        assert seen["flat and prefix"]
        torch.testing.assert_close(seen["moved"], x)
        assert seen["made"] == (3 * world, 2)
        torch.testing.assert_close(seen["plain"], 2 * x)
        assert seen["no tensor out"] == 2
        requires_grad, index, grad, unused = seen["mixed"]
        assert not requires_grad
        assert torch.equal(index, x.argmax(1))
        assert torch.equal(grad, torch.full_like(x, 2.0))
        assert torch.equal(unused, torch.zeros_like(x))


def megatron(group: Group) -> tuple[torch.Tensor, Any]:
    """A replicated input whose gradient the body says is whole on every rank."""
    x = distribute_tensor(numbers(6, 2), mesh_of(group), [R]).requires_grad_()
    y = local_map(lambda x: x * 3, [S0], in_grad_placements=([R],))(x)
    y.full_tensor().sum().backward()
    return x.grad.full_tensor(), x.grad.placements


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_in_grad_placements_are_taken_at_their_word(world: int) -> None:
    for grad, placements in run_ranks(megatron, world=world):
        assert placements == (R,)
        torch.testing.assert_close(grad, torch.full((6, 2), 3.0, dtype=torch.float64))


class Layer:
    """A class whose method is mapped."""

    @local_map(out_placements=[S0], in_placements={"x": [S0]})
    def double(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def method(group: Group) -> torch.Tensor:
    return Layer().double(distribute_tensor(numbers(6, 2), mesh_of(group), [S0])).full_tensor()


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 3])
def test_methods_can_be_mapped(world: int) -> None:
    for y in run_ranks(method, world=world):
        torch.testing.assert_close(y, 2 * numbers(6, 2))
