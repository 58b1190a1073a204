"""Gradients of min, max and product over ranks, against autograd of the definition in one process."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from comm_core import CATALOG, World, run
from comm_core.testing import run_ranks

# The first use of forward mode makes torch parse its sources. CPython 3.11 fails at that where the garbage collector
# runs finalizers that parse as well, which is likely amid other tests; while they are collected there is no garbage.
torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))

OPS = ("min", "max", "product")
ENTRIES: dict[str, Callable[[int], dict[str, Any]]] = {
    "all_reduce": lambda world: {},
    "reduce_scatter": lambda world: {"dim": 1},
    "reduce_scatter_v": lambda world: {"dim": 1, "sizes": [world + 1, *[1] * (world - 1)]},
    "reduce": lambda world: {"dst": world - 1},
    "scan": lambda world: {"reverse": world % 2 == 0},
    "exscan": lambda world: {"reverse": world % 2 == 1},
}


def leaf(rank: int, world: int) -> torch.Tensor:
    """Few different integers, so that ties and zeros abound."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randint(-1, 3, (5, 2 * world, 3), generator=generator).double().requires_grad_()


def loss(y: torch.Tensor, rank: int) -> torch.Tensor:
    return ((rank + 1) * y * y + y).sum()


def defined(xs: list[torch.Tensor], name: str, op: str) -> list[torch.Tensor]:
    """The outputs of all ranks; amax and amin share a tie evenly, as our convention says."""
    params = ENTRIES[name](len(xs))
    if name == "all_reduce":
        return [combined(op, torch.stack(xs))] * len(xs)
    if name == "reduce":
        total = combined(op, torch.stack(xs))
        return [total if rank == params["dst"] else total * 0 for rank in range(len(xs))]
    if name.startswith("reduce_scatter"):
        return list(combined(op, torch.stack(xs)).split(params.get("sizes", 2), dim=1))
    rows, own = torch.stack(xs), name == "scan"
    if params["reverse"]:
        return [combined(op, rows[rank if own else rank + 1 :], rows) for rank in range(len(xs))]
    return [combined(op, rows[: rank + 1 if own else rank], rows) for rank in range(len(xs))]


def combined(op: str, rows: torch.Tensor, everything: torch.Tensor | None = None) -> torch.Tensor:
    if not len(rows):
        assert everything is not None
        neutral = {"min": float("inf"), "max": -float("inf"), "product": 1.0}[op]
        return everything[0].masked_fill(torch.tensor(True), neutral)
    y: torch.Tensor = {"min": rows.amin, "max": rows.amax, "product": rows.prod}[op](0)
    return y


def defined_by(name: str, op: str, *xs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(defined(list(xs), name, op))


def of_the_definition(world: int, name: str, op: str) -> list[list[Any]]:
    xs = [leaf(rank, world) for rank in range(world)]
    total = sum(loss(y, rank) for rank, y in enumerate(defined(xs, name, op)))
    first = torch.autograd.grad(total, xs, create_graph=True)
    second = torch.autograd.grad(sum((g * g).sum() for g in first), xs)
    return [[a.detach(), b] for a, b in zip(first, second, strict=True)]


def of_ours(group: Any, name: str, op: str) -> list[torch.Tensor]:
    x = leaf(group.rank, group.world)
    y = run(CATALOG[name], x, group, reduce_op=op, **ENTRIES[name](group.world))
    (first,) = torch.autograd.grad(loss(y, group.rank), x, create_graph=True)
    (second,) = torch.autograd.grad((first * first).sum(), x)
    return [first.detach(), second]


def test_the_entries_with_a_reduce_op_are_all_here() -> None:
    assert {name for name, entry in CATALOG.items() if "reduce_op" in entry.parameters} == set(ENTRIES)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", ENTRIES)
def test_gradient_and_second_gradient_in_the_simulator(name: str, op: str, world: int) -> None:
    for got, want in zip(World(world).run(of_ours, name, op), of_the_definition(world, name, op), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def everything(group: Any) -> dict[str, list[torch.Tensor]]:
    return {f"{name} {op}": of_ours(group, name, op) for name in ENTRIES for op in OPS}


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_gradient_and_second_gradient_on_real_ranks(world: int) -> None:
    results = run_ranks(everything, world=world)
    for name in ENTRIES:
        for op in OPS:
            for got, want in zip(results, of_the_definition(world, name, op), strict=True):
                torch.testing.assert_close(got[f"{name} {op}"], want, rtol=1e-12, atol=1e-12)


def compiled(group: Any, op: str) -> bool:
    torch._dynamo.reset()

    def fn(x: torch.Tensor) -> torch.Tensor:
        return run(
            CATALOG["reduce_scatter"], run(CATALOG["all_reduce"], x, group, reduce_op=op), group, reduce_op=op, dim=1
        )

    x = leaf(group.rank, group.world)
    grads = [
        torch.autograd.grad(loss(one(x), group.rank), x)[0]
        for one in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager"))
    ]
    return torch.equal(*grads)


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("op", OPS)
def test_compiled_equals_eager(op: str) -> None:
    assert run_ranks(compiled, world=2, args=(op,)) == [True, True]


def batched(group: Any, op: str) -> bool:
    x = leaf(group.rank, group.world).detach()

    def one(row: torch.Tensor) -> torch.Tensor:
        return loss(run(CATALOG["all_reduce"], row, group, reduce_op=op), group.rank)

    return torch.equal(torch.vmap(torch.func.grad(one))(x), torch.stack([torch.func.grad(one)(row) for row in x]))


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("op", OPS)
def test_batched_gradients_are_stacked_gradients(op: str, world: int) -> None:
    assert World(world).run(batched, op) == [True] * world


def test_a_nan_takes_the_gradient_of_its_place() -> None:
    def body(group: Any) -> list[float]:
        x = torch.tensor([1.0, float("nan") if group.rank == 1 else 5.0], requires_grad=True)
        run(CATALOG["all_reduce"], x, group, reduce_op="max").sum().backward()
        return x.grad.tolist()  # type: ignore[union-attr]

    assert World(2).run(body) == [[1.0, 0.0], [1.0, 2.0]]


def nans(group: Any) -> dict[tuple[str, str, int], list[bool]]:
    """Where there are NaNs in a result, when one rank in turn has nothing else and the others have ones."""
    n, found = group.world, {}
    entries: dict[str, dict[str, Any]] = {
        "all_reduce": {},
        "reduce_scatter_v": {"dim": 0, "sizes": [4] * n},
        "scan": {"reverse": False},
    }
    for (name, params), op, at in itertools.product(entries.items(), ("min", "max"), range(n)):
        x = torch.full((4 * n,), float("nan") if group.rank == at else 1.0)
        found[name, op, at] = run(CATALOG[name], x, group, reduce_op=op, **params).isnan().tolist()
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_a_nan_is_the_extremum_and_gloo_may_lose_it_alike_on_all_ranks(world_backend: str, world: int) -> None:
    """docs/understand/gradients.md says so; where the ranks reduce themselves, gloo only moves."""
    ranks = range(world)
    for loses, by_rank in (
        (False, World(world).run(nans)),
        (world_backend == "gloo", run_ranks(nans, world, world_backend)),
    ):
        for name, op, at in by_rank[0]:
            given = [found[name, op, at] for found in by_rank]
            wanted = {
                "all_reduce": given[:1] * world if loses else [[True] * 4 * world] * world,
                "reduce_scatter_v": [[True] * 4] * world,
                "scan": [[rank >= at] * 4 * world for rank in ranks],
            }
            assert given == wanted[name], (loses, name, op, at)


def forward_mode(group: Any) -> list[Any]:
    def cube(x: torch.Tensor) -> torch.Tensor:
        return run(CATALOG["all_reduce"], x**3, group, reduce_op="avg")

    x = torch.arange(3.0, dtype=torch.float64) + group.rank
    _, tangent = torch.func.jvp(cube, (x,), (torch.ones_like(x),))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        same = torch.autograd.forward_ad.unpack_dual(cube(dual)).tangent
    hessian = torch.func.hessian(lambda x: cube(x).sum())(x).diagonal()
    return [tangent.tolist(), same.tolist(), hessian.tolist()]


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_forward_mode_of_linear_collectives(world: int) -> None:
    points = [[float(i + rank) for i in range(3)] for rank in range(world)]
    tangent = [sum(3 * p[i] ** 2 for p in points) / world for i in range(3)]
    for rank, (jvp, dual, hessian) in enumerate(run_ranks(forward_mode, world=world)):
        assert jvp == pytest.approx(tangent, rel=1e-12)
        assert dual == pytest.approx(tangent, rel=1e-12)
        # jacfwd pushes the same basis vector on all ranks, and its tangents through the adjoint's sum over ranks.
        assert hessian == pytest.approx([6 * points[rank][i] for i in range(3)], rel=1e-12)


def forward_of_ours(group: Any) -> dict[str, torch.Tensor]:
    x = leaf(group.rank, group.world).detach()
    direction = torch.full_like(x, group.rank + 1.0)
    return {
        f"{name} {op}": torch.func.jvp(
            lambda x, name=name, op=op: run(CATALOG[name], x, group, reduce_op=op, **ENTRIES[name](group.world)),
            (x,),
            (direction,),
        )[1]
        for name in ENTRIES
        for op in OPS
    }


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_forward_mode_of_what_is_not_linear(world: int) -> None:
    results = run_ranks(forward_of_ours, world=world)
    xs = [leaf(rank, world).detach() for rank in range(world)]
    directions = tuple(torch.full_like(x, rank + 1.0) for rank, x in enumerate(xs))
    for name in ENTRIES:
        for op in OPS:
            defines = functools.partial(defined_by, name, op)
            _, wanted = torch.func.jvp(defines, tuple(xs), directions)
            for result, want in zip(results, wanted, strict=True):
                torch.testing.assert_close(result[f"{name} {op}"], want)
