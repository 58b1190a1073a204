"""One call of a collective on every rank, as the contract is checked on: its shapes, parameters, layout and dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from comm_core.errors import CommError

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
Refusal = tuple[str, Shape, Params, type[CommError]]

# Two calls that ranks of one group may not make at once: the fact that differs, and both sides of it.
ShapeOf = Callable[[int, Params], Shape]  # from a rank and its parameters
Side = tuple[ShapeOf, torch.dtype, str, Params]
Differing = tuple[str, Side, Side]


def square(rank: int, params: Params) -> Shape:
    return (6, 6)


def differing(fact: str, params: Params, shape: ShapeOf = square, **changed: Any) -> Differing:
    """Both sides with `params`, but for the fact: the device, the dtype, the last dim's size, or a parameter."""
    one: Side = (shape, torch.float32, "cpu", params)
    if fact == "device":
        return fact, one, (shape, torch.float32, "meta", params)
    if fact == "dtype":
        return fact, one, (shape, torch.float64, "cpu", params)
    if fact.startswith("shape"):
        return fact, one, (lambda rank, of: (*shape(rank, of)[:-1], 12), torch.float32, "cpu", params)
    return fact, one, (shape, torch.float32, "cpu", {**params, **changed})


def tensors(params: Params, fact: str = "shape", shape: ShapeOf = square) -> list[Differing]:
    return [differing(of, params, shape) for of in ("device", "dtype", fact)]


def plain(fact: str, base: Params, **changed: Any) -> list[Differing]:
    """The facts of the tensor, and one parameter."""
    return [*tensors(base), differing(fact, base, **changed)]
