"""The calls with sizes that differ by rank: what `cases.py` has for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from comm_core.errors import ReduceOpError, ShapeError

from .case import Case, Differing, Params, Refusal, Shape, differing, everywhere, tensors
from .cases_rooted import own_size, resized


def apart(label: str, sizes: Sequence[int], shape: Shape, dim: int, layout: str = "contiguous") -> Case:
    """An all_gather_v: each rank has its size."""
    params = {"dim": dim, "sizes": list(sizes)}
    return Case(label, tuple(resized(shape, dim, size) for size in sizes), (params,) * len(sizes), layout)


def all_gather_v(world: int) -> list[Case]:
    rising, odd = [rank + 1 for rank in range(world)], [rank % 2 * 2 for rank in range(world)]
    return [
        apart("typical", [2 * rank % 3 + 2 for rank in range(world)], (1, 2), 0),
        apart("alike", [2] * world, (1, 3), 0),
        apart("rising, dim 1", rising, (3, 1), 1),
        apart("rising, last dim", rising, (2, 3, 1), -1),
        apart("some ranks have nothing", odd, (1, 2), 0),
        apart("some ranks have nothing, dim 1", odd, (2, 1), 1),
        apart("nobody has anything", [0] * world, (1, 2), 0),
        apart("empty other dim", rising, (1, 0), 0),
        apart("transposed", rising, (1, 3), 0, "transposed"),
        apart("transposed, dim 1", rising, (3, 1), 1, "transposed"),
        apart("strided", rising, (1,), 0, "strided"),
        apart("expanded", rising, (1,), 0, "expanded"),
    ]


def together(label: str, sizes: Sequence[int], shape: Shape, dim: int, op: str, layout: str = "contiguous") -> Case:
    """A reduce_scatter_v: every rank has all blocks."""
    whole = resized(shape, dim, sum(sizes))
    return everywhere(label, len(sizes), whole, layout, reduce_op=op, dim=dim, sizes=list(sizes))


def reduce_scatter_v(world: int) -> list[Case]:
    rising, odd = [rank + 1 for rank in range(world)], [(rank + 1) % 2 * 2 for rank in range(world)]
    return [
        together("typical", [2 * rank % 3 + 2 for rank in range(world)], (1, 3), 0, "sum"),
        together("avg", rising, (1, 2), 0, "avg"),
        together("alike, dim 1", [2] * world, (3, 1), 1, "sum"),
        together("rising, last dim, avg", rising, (2, 1), -1, "avg"),
        together("product", rising, (1, 2), 0, "product"),
        together("min, dim 1", odd, (2, 1), 1, "min"),
        together("max, middle dim", rising, (2, 1, 3), 1, "max"),
        together("some ranks get nothing", odd, (1, 2), 0, "sum"),
        together("nobody gets anything", [0] * world, (1, 2), 0, "sum"),
        together("transposed", rising, (1, 3), 0, "sum", "transposed"),
        together("transposed, dim 1", rising, (3, 1), 1, "sum", "transposed"),
        together("strided", rising, (1,), 0, "sum", "strided"),
        together("expanded", rising, (1,), 0, "sum", "expanded"),
    ]


def _gathers(world: int) -> list[Differing]:
    base = {"dim": 0, "sizes": [6] * world}
    return [
        *tensors(base, "shape beside dim", own_size),
        differing("dim", base, own_size, dim=-1),
        differing("sizes", base, own_size, sizes=[3] * world),
    ]


def summing(rank: int, params: Params) -> Shape:
    """A tensor of all blocks."""
    return resized((6, 6), params["dim"], sum(params["sizes"]))


def _reductions(world: int) -> list[Differing]:
    base = {"reduce_op": "sum", "dim": 0, "sizes": [2, *[1] * (world - 1)]}
    return [
        *tensors(base, "shape", summing),
        differing("reduce op", base, summing, reduce_op="min"),
        differing("dim", base, summing, dim=-1),
        differing("sizes", base, summing, sizes=[*[1] * (world - 1), 2]),
    ]


CASES: dict[str, Callable[[int], list[Case]]] = {"all_gather_v": all_gather_v, "reduce_scatter_v": reduce_scatter_v}

REFUSED: dict[str, list[Refusal]] = {
    "all_gather_v": [
        ("a size that is not this rank's", (2, 2), {"dim": 0, "sizes": [1, 1, 1]}, ShapeError),
        ("no sizes", (2,), {"dim": 0, "sizes": None}, ShapeError),
        ("too many sizes", (2,), {"dim": 0, "sizes": [2, 2, 2, 2]}, ShapeError),
        ("a negative size", (2,), {"dim": 0, "sizes": [2, -2, 2]}, ShapeError),
        ("a dim too far", (2,), {"dim": 1, "sizes": [2, 2, 2]}, ShapeError),
        ("a 0-D tensor", (), {"dim": 0, "sizes": [1, 1, 1]}, ShapeError),
    ],
    "reduce_scatter_v": [
        ("another sum", (4,), {"reduce_op": "sum", "dim": 0, "sizes": [1, 1, 1]}, ShapeError),
        ("no sizes", (3,), {"reduce_op": "sum", "dim": 0, "sizes": None}, ShapeError),
        ("a bool for a size", (3,), {"reduce_op": "sum", "dim": 0, "sizes": [True, 1, 1]}, ShapeError),
        ("an unknown word", (3,), {"reduce_op": "mean", "dim": 0, "sizes": [1, 1, 1]}, ReduceOpError),
        ("bitwise on floats", (3,), {"reduce_op": "bor", "dim": 0, "sizes": [1, 1, 1]}, ReduceOpError),
        ("a dim too far back", (3,), {"reduce_op": "sum", "dim": -2, "sizes": [1, 1, 1]}, ShapeError),
        ("a 0-D tensor", (), {"reduce_op": "sum", "dim": 0, "sizes": [1, 1, 1]}, ShapeError),
    ],
}

DISAGREEMENTS: dict[str, Callable[[int], list[Differing]]] = {
    "all_gather_v": _gathers,
    "reduce_scatter_v": _reductions,
}
