"""The calls with a root: what `cases.py` has for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from comm_core.errors import RankError, ReduceOpError, ShapeError

from .case import Case, Differing, Params, Refusal, Shape, differing, everywhere, tensors


def resized(shape: Shape, dim: int, size: int) -> Shape:
    dim %= len(shape)
    return (*shape[:dim], size, *shape[dim + 1 :])


def from_all(label: str, sizes: Sequence[int], shape: Shape, dim: int, dst: int, layout: str = "contiguous") -> Case:
    """A gather of uneven blocks."""
    params = {"dst": dst, "dim": dim, "sizes": list(sizes)}
    shapes = tuple(resized(shape, dim, size) for size in sizes)
    return Case(label, shapes, (params,) * len(sizes), layout)


def gather(world: int) -> list[Case]:
    last = world - 1
    even = {"dst": 0, "dim": 0, "sizes": None}
    return [
        everywhere("typical", world, (3, 2), **even),
        everywhere("to the last rank", world, (3, 2), **{**even, "dst": last}),
        everywhere("dim 1", world, (3, 2), dst=world // 2, dim=1, sizes=None),
        everywhere("negative dim", world, (2, 1, 3), dst=last, dim=-1, sizes=None),
        everywhere("empty", world, (0, 3), **even),
        everywhere("empty other dim", world, (3, 0), **even),
        from_all("uneven", [rank + 1 for rank in range(world)], (1, 2), 0, last),
        from_all("some ranks have nothing", [rank % 2 * 2 for rank in range(world)], (1, 2), 0, 0),
        from_all("uneven, middle dim", [2 * rank % 3 + 1 for rank in range(world)], (2, 1, 3), 1, world // 2),
        everywhere("transposed", world, (3, 4), "transposed", **even),
        everywhere("transposed, dim 1", world, (3, 4), "transposed", dst=last, dim=1, sizes=None),
        everywhere("strided", world, (5,), "strided", **even),
        everywhere("expanded", world, (4,), "expanded", dst=0, dim=-1, sizes=None),
    ]


def to_all(label: str, sizes: Sequence[int], shape: Shape, dim: int, src: int, layout: str = "contiguous") -> Case:
    """A scatter: the source has all blocks, the others a tensor without elements."""
    params = {"src": src, "dim": dim, "sizes": list(sizes)}
    rows = [sum(sizes) if rank == src else 0 for rank in range(len(sizes))]
    return Case(label, tuple(resized(shape, dim, size) for size in rows), (params,) * len(sizes), layout)


def scatter(world: int) -> list[Case]:
    last = world - 1
    even = [2] * world
    return [
        to_all("typical", even, (1, 3), 0, 0),
        to_all("from the last rank", even, (1, 3), 0, last),
        to_all("dim 1", even, (3, 1), 1, world // 2),
        to_all("negative dim", [1] * world, (2, 2, 1), -1, last),
        to_all("nothing at all", [0] * world, (1, 2), 0, 0),
        to_all("empty other dim", even, (1, 0), 0, 0),
        to_all("uneven", [rank + 1 for rank in range(world)], (1, 2), 0, last),
        to_all("some ranks get nothing", [(rank + 1) % 2 * 2 for rank in range(world)], (1,), 0, 0),
        to_all("uneven, middle dim", [2 * rank % 3 + 1 for rank in range(world)], (2, 1, 3), 1, world // 2),
        to_all("transposed", even, (1, 3), 0, 0, "transposed"),
        to_all("transposed, dim 1", even, (3, 1), 1, last, "transposed"),
        to_all("strided", even, (1,), 0, 0, "strided"),
        to_all("expanded", even, (1,), 0, last, "expanded"),
    ]


def given_at_source(rank: int, params: Params) -> Shape:
    """A scatter's input that fits the parameters."""
    return resized((6, 6), params["dim"], sum(params["sizes"]) if rank == params["src"] else 0)


def _scatters(world: int) -> list[Differing]:
    base = {"src": 0, "dim": 0, "sizes": [2] * world}
    changes: dict[str, object] = {"src": world - 1, "dim": -1, "sizes": [1] * world}
    return [
        *tensors(base, "shape beside dim", given_at_source),
        *(differing(fact, base, given_at_source, **{fact: value}) for fact, value in changes.items()),
    ]


def _gathers(world: int) -> list[Differing]:
    base = {"dst": 0, "dim": 0, "sizes": None}
    return [
        *tensors(base, "shape beside dim"),
        differing("dst", base, dst=world - 1),
        differing("dim", base, dim=-1),
        differing("sizes", {**base, "sizes": [6] * world}, own_size, sizes=[3] * world),
    ]


def own_size(rank: int, params: Params) -> Shape:
    """A tensor whose size is what the sizes say."""
    return resized((6, 6), params["dim"], params["sizes"][rank])


def reduce(world: int) -> list[Case]:
    last = world - 1
    return [
        everywhere("typical", world, (3, 2), reduce_op="sum", dst=0),
        everywhere("avg, to the last rank", world, (3, 2), reduce_op="avg", dst=last),
        everywhere("product", world, (2, 2), reduce_op="product", dst=world // 2),
        everywhere("min", world, (5,), reduce_op="min", dst=0),
        everywhere("max", world, (5,), reduce_op="max", dst=last),
        everywhere("0-D", world, (), reduce_op="sum", dst=last),
        everywhere("empty", world, (0, 3), reduce_op="sum", dst=0),
        everywhere("transposed", world, (2, 3, 4), "transposed", reduce_op="sum", dst=0),
        everywhere("strided", world, (5,), "strided", reduce_op="sum", dst=last),
        everywhere("expanded", world, (4, 2), "expanded", reduce_op="avg", dst=0),
    ]


def _reductions(world: int) -> list[Differing]:
    base = {"reduce_op": "sum", "dst": 0}
    return [
        *tensors(base),
        differing("reduce op", base, reduce_op="max"),
        differing("dst", base, dst=world - 1),
    ]


CASES: dict[str, Callable[[int], list[Case]]] = {"gather": gather, "scatter": scatter, "reduce": reduce}

REFUSED: dict[str, list[Refusal]] = {
    "reduce": [
        ("a destination too high", (2,), {"reduce_op": "sum", "dst": 3}, RankError),
        ("no destination", (2,), {"reduce_op": "sum", "dst": None}, RankError),
        ("an unknown word", (2,), {"reduce_op": "mean", "dst": 0}, ReduceOpError),
        ("bitwise on floats", (2,), {"reduce_op": "bxor", "dst": 0}, ReduceOpError),
    ],
    "gather": [
        ("a destination too high", (2,), {"dst": 3, "dim": 0, "sizes": None}, RankError),
        ("a bool", (2,), {"dst": True, "dim": 0, "sizes": None}, RankError),
        ("a dim too far", (2,), {"dst": 0, "dim": 1, "sizes": None}, ShapeError),
        ("a 0-D tensor", (), {"dst": 0, "dim": 0, "sizes": None}, ShapeError),
        ("too few sizes", (2,), {"dst": 0, "dim": 0, "sizes": [2, 2]}, ShapeError),
        ("a negative size", (2,), {"dst": 0, "dim": 0, "sizes": [2, 2, -1]}, ShapeError),
        ("a size that is not this rank's", (2,), {"dst": 0, "dim": 0, "sizes": [1, 1, 1]}, ShapeError),
    ],
    "scatter": [
        ("a negative source", (3,), {"src": -1, "dim": 0, "sizes": [1, 1, 1]}, RankError),
        ("no source", (3,), {"src": None, "dim": 0, "sizes": [1, 1, 1]}, RankError),
        ("a dim too far back", (3,), {"src": 0, "dim": -2, "sizes": [1, 1, 1]}, ShapeError),
        ("a 0-D tensor", (), {"src": 0, "dim": 0, "sizes": [1, 1, 1]}, ShapeError),
        ("no sizes", (3,), {"src": 0, "dim": 0, "sizes": None}, ShapeError),
        ("a bool for a size", (3,), {"src": 0, "dim": 0, "sizes": [True, 1, 1]}, ShapeError),
        ("another sum, and elements to ignore", (4,), {"src": 0, "dim": 0, "sizes": [1, 1, 1]}, ShapeError),
    ],
}

DISAGREEMENTS: dict[str, Callable[[int], list[Differing]]] = {
    "gather": _gathers,
    "scatter": _scatters,
    "reduce": _reductions,
}
