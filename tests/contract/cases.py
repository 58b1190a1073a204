"""The calls that the contract is checked on: one table, keyed by the collective's name.

A new entry of the catalogue needs a function in `CASES`, a definition in `reference.DEFINITIONS`, a row in `REFUSED`,
one in `DISAGREEMENTS` and, where torch has an op of the same meaning, one in `twins.ARGUMENTS`; `test_complete.py`
says which are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from comm_core.errors import CommError, RankError, ReduceOpError, ShapeError

Shape = tuple[int, ...]
Params = dict[str, Any]

WORLDS = (4, 3, 2, 1)  # the largest first: the pool of ranks then starts all its processes at once
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)
COMPLEX = (torch.complex64, torch.complex128)
DTYPES = FLOATS + INTEGERS + COMPLEX
GLOO_ONLY_MOVES = (torch.int16,)  # gloo has no arithmetic for it; our transport moves it as bytes, torch's ops do not
LINEAR = ("sum", "avg")
ORDERED = ("sum", "product", "min", "max")
BITWISE = ("band", "bor", "bxor")
REDUCE_OPS = (*LINEAR, *ORDERED[1:], *BITWISE)


@dataclass(frozen=True)
class Case:
    """One call on every rank: shapes and parameters by rank, and how the input lies in memory."""

    label: str
    shapes: tuple[Shape, ...]
    params: tuple[Params, ...]
    layout: str = "contiguous"
    dtype: torch.dtype = torch.float32

    @property
    def world(self) -> int:
        return len(self.shapes)

    @property
    def linear(self) -> bool:
        """Whether the call is a linear map, so that its gradient is its transpose."""
        return self.params[0].get("reduce_op", "sum") in LINEAR

    def inputs(self, seed: int = 0) -> list[torch.Tensor]:
        """Every rank's input: small integers, so that no order of additions rounds."""
        return [self.data(shape, rank, seed) for rank, shape in enumerate(self.shapes)]

    def data(self, shape: Shape, rank: int, seed: int = 0) -> torch.Tensor:
        made = integers(shape, self.dtype, seed * 100 + rank, self.params[rank].get("reduce_op") == "avg")
        return LAYOUTS[self.layout](made)


def integers(shape: Shape, dtype: torch.dtype, seed: int, divided: bool = False) -> torch.Tensor:
    """Small integers of any dtype; when they will be averaged, multiples of all group sizes up to 4."""
    rng = np.random.default_rng(seed)
    low, high = (0, 4) if dtype in (torch.uint8, torch.bool) else (-3, 4)
    values = torch.from_numpy(rng.integers(low, high, shape)) * (12 if divided else 1)
    if dtype is torch.bool:
        return values > 1
    if dtype.is_complex:
        imaginary = torch.from_numpy(rng.integers(low, high, shape)) * 12
        return torch.complex(values.double(), imaginary.double()).to(dtype)
    return values.to(dtype)


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def strided(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x, x + x], -1)[..., 0]


def expanded(x: torch.Tensor) -> torch.Tensor:
    return x[:1].expand(x.shape)


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": transposed,
    "strided": strided,
    "expanded": expanded,
}


def everywhere(label: str, world: int, shape: Shape, layout: str = "contiguous", **params: Any) -> Case:
    """The same shape and parameters on every rank."""
    return Case(label, (shape,) * world, (params,) * world, layout)


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
}


def over_dtypes(case: Case) -> list[Case]:
    """The case in every dtype, with every reduce op that means something there when it has one."""
    found = []
    for dtype in DTYPES:
        if "reduce_op" not in case.params[0]:
            found.append(replace(case, label=f"{dtype}", dtype=dtype))
            continue
        ops = LINEAR if dtype.is_complex else (*ORDERED, "avg") if dtype in FLOATS else ORDERED + BITWISE
        for op in ops:
            params = tuple({**of, "reduce_op": op} for of in case.params)
            found.append(replace(case, label=f"{dtype} {op}", dtype=dtype, params=params))
    return found


# What one rank's call may not be: a label, the shape, the parameters, and the error. In a group of 3.
REFUSED: dict[str, list[tuple[str, Shape, Params, type[CommError]]]] = {
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
}

# Two calls that ranks of one group may not make at once: the fact that differs, and both sides of it.
Side = tuple[Shape, torch.dtype, str, Params]
Differing = tuple[str, Side, Side]


def _differing(fact: str, params: Params, **changed: Any) -> Differing:
    """Both sides with `params`, but for the fact: the device, the dtype, the last dim's size, or a parameter."""
    one: Side = ((6, 6), torch.float32, "cpu", params)
    if fact == "device":
        return fact, one, ((6, 6), torch.float32, "meta", params)
    if fact == "dtype":
        return fact, one, ((6, 6), torch.float64, "cpu", params)
    if fact.startswith("shape"):
        return fact, one, ((6, 12), torch.float32, "cpu", params)
    return fact, one, ((6, 6), torch.float32, "cpu", {**params, **changed})


def _tensors(params: Params, shape: str = "shape") -> list[Differing]:
    return [_differing(fact, params) for fact in ("device", "dtype", shape)]


def _reducing(world: int, **params: Any) -> list[Differing]:
    base = {"reduce_op": "sum", **params}
    return [*_tensors(base), _differing("reduce op", base, reduce_op="max")]


def _plain(fact: str, world: int, base: Params, **changed: Any) -> list[Differing]:
    return [*_tensors(base), _differing(fact, base, **changed)]


def _permutations(world: int) -> list[Differing]:
    shift = [(rank + 1) % world for rank in range(world)]
    return _plain("destinations", world, {"destinations": shift}, destinations=[-1] * world)


_EVEN = {"output_splits": None, "input_splits": None}
DISAGREEMENTS: dict[str, Callable[[int], list[Differing]]] = {
    "all_reduce": _reducing,
    "all_gather": lambda world: _plain("dim", world, {"dim": 0}, dim=-1),
    "reduce_scatter": lambda world: [
        *_reducing(world, dim=0),
        _differing("dim", {"reduce_op": "sum", "dim": 0}, dim=1),
    ],
    "all_to_all": lambda world: _tensors(_EVEN, "shape behind dim 0"),
    "broadcast": lambda world: _plain("src", world, {"src": 0}, src=world - 1),
    "permute": _permutations,
    "wait": lambda world: [],
}
