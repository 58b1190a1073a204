"""The calls of scan, exscan and barrier: what `cases.py` has for the others."""

from __future__ import annotations

from collections.abc import Callable

from comm_core.errors import ArgumentError, ReduceOpError

from .case import Case, Differing, Refusal, differing, everywhere, plain


def prefixes(world: int) -> list[Case]:
    forward, back = {"reduce_op": "sum", "reverse": False}, {"reduce_op": "sum", "reverse": True}
    return [
        everywhere("typical", world, (3, 2), **forward),
        everywhere("in reverse", world, (3, 2), **back),
        everywhere("avg", world, (3, 2), reduce_op="avg", reverse=False),
        everywhere("avg, in reverse", world, (2,), reduce_op="avg", reverse=True),
        everywhere("product", world, (2, 2), reduce_op="product", reverse=False),
        everywhere("min, in reverse", world, (5,), reduce_op="min", reverse=True),
        everywhere("max", world, (5,), reduce_op="max", reverse=False),
        everywhere("0-D", world, (), **forward),
        everywhere("fewer elements than ranks", world, (2,), **back),
        everywhere("empty", world, (0, 3), **forward),
        everywhere("transposed", world, (2, 3, 4), "transposed", **forward),
        everywhere("strided", world, (5,), "strided", **back),
        everywhere("expanded", world, (4,), "expanded", **forward),
    ]


def barrier(world: int) -> list[Case]:
    return [
        everywhere("typical", world, (2, 3)),
        everywhere("0-D", world, ()),
        everywhere("empty", world, (0,)),
        everywhere("transposed", world, (2, 3), "transposed"),
        everywhere("strided", world, (5,), "strided"),
    ]


def _prefixes(world: int) -> list[Differing]:
    base = {"reduce_op": "sum", "reverse": False}
    return [*plain("reverse", base, reverse=True), differing("reduce op", base, reduce_op="max")]


_REFUSED: list[Refusal] = [
    ("an unknown word", (2,), {"reduce_op": "mean", "reverse": False}, ReduceOpError),
    ("bitwise on floats", (2,), {"reduce_op": "band", "reverse": False}, ReduceOpError),
    ("a number", (2,), {"reduce_op": "sum", "reverse": 1}, ArgumentError),
    ("None", (2,), {"reduce_op": "sum", "reverse": None}, ArgumentError),
]

CASES: dict[str, Callable[[int], list[Case]]] = {"scan": prefixes, "exscan": prefixes, "barrier": barrier}

REFUSED: dict[str, list[Refusal]] = {"scan": _REFUSED, "exscan": _REFUSED, "barrier": []}

DISAGREEMENTS: dict[str, Callable[[int], list[Differing]]] = {
    "scan": _prefixes,
    "exscan": _prefixes,
    "barrier": lambda world: [differing("device", {})],
}
