"""The calls that the contract is checked on: one table, keyed by the collective's name.

A new entry of the catalogue needs a function in `CASES`, a definition in `reference.DEFINITIONS`, a row in `REFUSED`,
one in `DISAGREEMENTS` and, where torch has an op of the same meaning, one in `twins.ARGUMENTS`; `test_complete.py`
says which are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comm_core.errors import RankError, ReduceOpError, ShapeError

from . import cases_messages, cases_prefix, cases_rooted, cases_uneven
from .case import Case, Differing, Refusal, Shape, differing, everywhere, plain, tensors


def all_reduce(world: int) -> list[Case]:
    return [
        everywhere("typical", world, (3, 2), reduce_op="sum"),
        everywhere("avg", world, (3, 2), reduce_op="avg"),
        everywhere("product", world, (2, 2), reduce_op="product"),
        everywhere("min", world, (5,), reduce_op="min"),
        everywhere("max", world, (5,), reduce_op="max"),
        everywhere("0-D", world, (), reduce_op="sum"),
        everywhere("empty", world, (0, 3), reduce_op="sum"),
        everywhere("transposed", world, (2, 3, 4), "transposed", reduce_op="sum"),
        everywhere("strided", world, (5,), "strided", reduce_op="sum"),
        everywhere("expanded", world, (4, 2), "expanded", reduce_op="avg"),
    ]


def all_gather(world: int) -> list[Case]:
    return [
        everywhere("typical", world, (3, 2), dim=0),
        everywhere("dim 1", world, (3, 2), dim=1),
        everywhere("middle dim", world, (2, 3, 2), dim=1),
        everywhere("negative dim", world, (2, 1, 3), dim=-1),
        everywhere("first dim from the back", world, (2, 3), dim=-2),
        everywhere("one row", world, (1, 3), dim=1),
        everywhere("1-D", world, (4,), dim=0),
        everywhere("empty block", world, (0, 3), dim=0),
        everywhere("empty other dim", world, (3, 0), dim=0),
        everywhere("empty dim, gathered along the other", world, (0, 3), dim=1),
        everywhere("transposed", world, (3, 4), "transposed", dim=0),
        everywhere("transposed, dim 1", world, (3, 4), "transposed", dim=1),
        everywhere("strided", world, (5,), "strided", dim=0),
        everywhere("expanded", world, (4, 2), "expanded", dim=-1),
    ]


def reduce_scatter(world: int) -> list[Case]:
    return [
        everywhere("typical", world, (2 * world, 3), reduce_op="sum", dim=0),
        everywhere("avg", world, (world, 2), reduce_op="avg", dim=0),
        everywhere("dim 1", world, (3, 2 * world), reduce_op="sum", dim=1),
        everywhere("avg, last dim", world, (3, world), reduce_op="avg", dim=-1),
        everywhere("product", world, (world, 2), reduce_op="product", dim=0),
        everywhere("min", world, (2, world), reduce_op="min", dim=-1),
        everywhere("max, middle dim", world, (2, 2 * world, 3), reduce_op="max", dim=1),
        everywhere("1-D", world, (3 * world,), reduce_op="sum", dim=-1),
        everywhere("empty share", world, (0, 3), reduce_op="sum", dim=0),
        everywhere("empty other dim", world, (2 * world, 0), reduce_op="sum", dim=0),
        everywhere("transposed", world, (world, 3), "transposed", reduce_op="sum", dim=0),
        everywhere("transposed, dim 1", world, (3, world), "transposed", reduce_op="sum", dim=1),
        everywhere("strided", world, (2 * world,), "strided", reduce_op="sum", dim=0),
        everywhere("expanded", world, (2 * world, 2), "expanded", reduce_op="sum", dim=0),
    ]


def exchange(label: str, rows: list[list[int]], rest: Shape = (), layout: str = "contiguous") -> Case:
    """An all_to_all where rank i sends `rows[i][j]` rows to rank j."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return Case(
        label,
        tuple((sum(sent), *rest) for sent in rows),
        tuple({"output_splits": got, "input_splits": sent} for got, sent in zip(columns, rows, strict=True)),
        layout,
    )


def all_to_all(world: int) -> list[Case]:
    even = {"output_splits": None, "input_splits": None}
    ranks = range(world)
    return [
        everywhere("typical", world, (2 * world, 3), **even),
        exchange("uneven", [[(i + 2 * j) % 3 + 1 for j in ranks] for i in ranks], (2,)),
        exchange("some blocks empty", [[(i + j) % 2 * 2 for j in ranks] for i in ranks], (3,)),
        exchange("all to the last rank", [[2 if j == world - 1 else 0 for j in ranks] for _ in ranks]),
        exchange("nothing at all", [[0] * world for _ in ranks], (2,)),
        exchange("uneven 1-D", [[j + 1 for j in ranks] for _ in ranks]),
        everywhere("rows of no elements", world, (world, 0), **even),
        everywhere("transposed", world, (world, 3), "transposed", **even),
        exchange("uneven, strided", [[(i * j) % 2 + 1 for j in ranks] for i in ranks], (), "strided"),
    ]


def broadcast(world: int) -> list[Case]:
    last = world - 1
    return [
        everywhere("typical", world, (2, 3), src=0),
        everywhere("from the last rank", world, (2, 3), src=last),
        everywhere("from the middle rank", world, (4,), src=world // 2),
        everywhere("0-D", world, (), src=last),
        everywhere("empty", world, (0, 2), src=0),
        everywhere("transposed", world, (2, 3), "transposed", src=last),
        everywhere("strided", world, (5,), "strided", src=0),
        everywhere("expanded", world, (3, 2), "expanded", src=last),
    ]


def permute(world: int) -> list[Case]:
    shift = [(rank + 1) % world for rank in range(world)]
    one = [world - 1] + [-1] * (world - 1)
    return [
        everywhere("typical", world, (2, 3), destinations=shift),
        everywhere("reversed", world, (3,), destinations=list(range(world))[::-1]),
        everywhere("each to itself", world, (3, 1), destinations=list(range(world))),
        everywhere("one sends", world, (2, 2), destinations=one),
        everywhere("nobody sends", world, (2,), destinations=[-1] * world),
        everywhere("0-D", world, (), destinations=shift),
        everywhere("empty", world, (0, 3), destinations=shift),
        everywhere("transposed", world, (2, 3), "transposed", destinations=shift),
        everywhere("strided", world, (5,), "strided", destinations=shift),
        everywhere("expanded", world, (4,), "expanded", destinations=shift),
    ]


def wait(world: int) -> list[Case]:
    return [
        everywhere("typical", world, (2, 3)),
        everywhere("0-D", world, ()),
        everywhere("empty", world, (0,)),
        everywhere("transposed", world, (2, 3), "transposed"),
    ]


CASES: dict[str, Callable[[int], list[Case]]] = {
    "all_reduce": all_reduce,
    "all_gather": all_gather,
    "reduce_scatter": reduce_scatter,
    "all_to_all": all_to_all,
    "broadcast": broadcast,
    "permute": permute,
    "wait": wait,
    **cases_rooted.CASES,
    **cases_uneven.CASES,
    **cases_prefix.CASES,
    **cases_messages.CASES,
}


REFUSED: dict[str, list[Refusal]] = {
    "all_reduce": [
        ("an unknown word", (2,), {"reduce_op": "mean"}, ReduceOpError),
        ("no reduce op", (2,), {"reduce_op": None}, ReduceOpError),
        ("a number", (2,), {"reduce_op": 3}, ReduceOpError),
        ("bitwise on floats", (2,), {"reduce_op": "band"}, ReduceOpError),
    ],
    "all_gather": [
        ("a dim too far", (2, 3), {"dim": 2}, ShapeError),
        ("a dim too far back", (2, 3), {"dim": -3}, ShapeError),
        ("a 0-D tensor", (), {"dim": 0}, ShapeError),
        ("no dim", (2,), {"dim": None}, ShapeError),
        ("a bool", (2, 2), {"dim": True}, ShapeError),
    ],
    "reduce_scatter": [
        ("an unknown word", (3,), {"reduce_op": "nand", "dim": 0}, ReduceOpError),
        ("a size that does not divide", (4, 3), {"reduce_op": "sum", "dim": 0}, ShapeError),
        ("a last dim that does not divide", (3, 4), {"reduce_op": "sum", "dim": -1}, ShapeError),
        ("a dim too far", (3,), {"reduce_op": "sum", "dim": 1}, ShapeError),
        ("a 0-D tensor", (), {"reduce_op": "sum", "dim": 0}, ShapeError),
    ],
    "all_to_all": [
        ("a size that does not divide", (4,), {"output_splits": None, "input_splits": None}, ShapeError),
        ("only input splits", (3,), {"output_splits": None, "input_splits": [1, 1, 1]}, ShapeError),
        ("only output splits", (3,), {"output_splits": [1, 1, 1], "input_splits": None}, ShapeError),
        ("too few splits", (2,), {"output_splits": [1, 1], "input_splits": [1, 1]}, ShapeError),
        ("a negative split", (1,), {"output_splits": [1, 1, 1], "input_splits": [1, 1, -1]}, ShapeError),
        ("a wrong sum", (4,), {"output_splits": [1, 1, 1], "input_splits": [1, 1, 1]}, ShapeError),
        ("a 0-D tensor", (), {"output_splits": None, "input_splits": None}, ShapeError),
    ],
    "broadcast": [
        ("a source too high", (2,), {"src": 3}, RankError),
        ("a negative source", (2,), {"src": -1}, RankError),
        ("no source", (2,), {"src": None}, RankError),
        ("a bool", (2,), {"src": True}, RankError),
    ],
    "permute": [
        ("too few destinations", (2,), {"destinations": [1, 0]}, RankError),
        ("the same one twice", (2,), {"destinations": [1, 1, 0]}, RankError),
        ("one too high", (2,), {"destinations": [1, 2, 3]}, RankError),
        ("one below -1", (2,), {"destinations": [1, 2, -2]}, RankError),
    ],
    "wait": [],
    **cases_rooted.REFUSED,
    **cases_uneven.REFUSED,
    **cases_prefix.REFUSED,
    **cases_messages.REFUSED,
}


def _reducing(world: int, **params: Any) -> list[Differing]:
    base = {"reduce_op": "sum", **params}
    return [*tensors(base), differing("reduce op", base, reduce_op="max")]


def _permutations(world: int) -> list[Differing]:
    shift = [(rank + 1) % world for rank in range(world)]
    return plain("destinations", {"destinations": shift}, destinations=[-1] * world)


_EVEN = {"output_splits": None, "input_splits": None}
DISAGREEMENTS: dict[str, Callable[[int], list[Differing]]] = {
    "all_reduce": _reducing,
    "all_gather": lambda world: plain("dim", {"dim": 0}, dim=-1),
    "reduce_scatter": lambda world: [
        *_reducing(world, dim=0),
        differing("dim", {"reduce_op": "sum", "dim": 0}, dim=1),
    ],
    "all_to_all": lambda world: tensors(_EVEN, "shape behind dim 0"),
    "broadcast": lambda world: plain("src", {"src": 0}, src=world - 1),
    "permute": _permutations,
    "wait": lambda world: [],
    **cases_rooted.DISAGREEMENTS,
    **cases_uneven.DISAGREEMENTS,
    **cases_prefix.DISAGREEMENTS,
    **cases_messages.DISAGREEMENTS,
}
