"""Tensors copied into one buffer, so that they travel in one message: every element once, with or without a gradient.

Dynamo walks this file, so it stays plain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch

from comm_core.cotangents import Arrival, arrival_of
from comm_core.filling import Factor, filled_with, is_copied, keep_factor, of_product


def side_by_side(parts: Sequence[torch.Tensor], factor: Factor | None = None) -> torch.Tensor:
    """Return tensors of as many rows in one matrix, whose rows are theirs, one behind the other, times a factor.

    Shapes: `(rows, ...)` each, and `(rows, sum of the elements of a row)`; a factor that is a tensor has no dims.

    Gradient: of each tensor, its part of the matrix's, times the factor; of the factor, that of a product.

    Example:
        >>> side_by_side([torch.tensor([[1], [2]]), torch.tensor([[[3, 4]], [[5, 6]]])]).tolist()
        [[1, 3, 4], [2, 5, 6]]
    """
    if all(is_copied(part, factor) for part in parts):
        return cast(torch.Tensor, SideBySide.apply(factor, *parts))  # type: ignore[no-untyped-call]
    rows = parts[0].shape[0]
    matrix = torch.cat([part.reshape(rows, math.prod(part.shape[1:])) for part in parts], 1)
    return matrix if factor is None else matrix * factor


class SideBySide(torch.autograd.Function):
    """The copy, where nothing but autograd looks at it: of parts that are views, `torch.cat` would take two."""

    @staticmethod
    def forward(ctx: Any, factor: Factor | None, *parts: torch.Tensor) -> torch.Tensor:
        """Copy each part to its columns; keep them where the factor has a gradient."""
        fill, ctx.shapes = filled_with(factor), [part.shape for part in parts]
        keep_factor(ctx, factor, parts if ctx.needs_input_grad[0] else ())
        widths, first = [math.prod(shape[1:]) for shape in ctx.shapes], parts[0]
        matrix = torch.empty(first.shape[0], sum(widths), dtype=first.dtype, device=first.device)
        for columns, part in zip(matrix.split(widths, 1), parts, strict=True):
            fill(columns, part)
        return matrix

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Give each part its columns, and the factor what is left of all of them."""
        columns = cotangent.split([math.prod(shape[1:]) for shape in ctx.shapes], 1)
        of_parts = [of_part.reshape(shape) for of_part, shape in zip(columns, ctx.shapes, strict=True)]
        of_factor, products = of_product(ctx, of_parts, ctx.needs_input_grad[1:])
        return of_factor, *products


def parts_of(received: torch.Tensor, shapes: Sequence[torch.Size]) -> Sequence[torch.Tensor]:
    """Return the tensors of which a row of elements that messages brought consists, as views of it.

    Shapes: the row's are `(sum of all elements,)`.

    Gradient: of the row, the parts' side by side, in a row of its own.

    Example:
        >>> [part.tolist() for part in parts_of(torch.arange(3), [torch.Size([]), torch.Size([2, 1])])]
        [0, [[1], [2]]]
    """
    arrival = None if torch.compiler.is_compiling() else arrival_of(received)
    if arrival is None:
        return _cut(received, shapes)
    return cast(Sequence[torch.Tensor], Parts.apply(received, shapes, arrival))  # type: ignore[no-untyped-call]


def _cut(row: torch.Tensor, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    parts, start = [], 0
    for shape in shapes:
        parts.append(row[start : start + math.prod(shape)].view(shape))
        start += math.prod(shape)
    return parts


class Parts(torch.autograd.Function):
    """The views, in eager code: autograd would make a row of zeros for the gradient of each, and add them up."""

    @staticmethod
    def forward(
        ctx: Any, row: torch.Tensor, shapes: Sequence[torch.Size], arrival: Arrival
    ) -> tuple[torch.Tensor, ...]:
        """Cut the row; by `data`, for of views that come together autograd lets none be written to."""
        ctx.set_materialize_grads(False)
        ctx.shapes, ctx.arrival = shapes, arrival
        return tuple(cast(Any, torch.Tensor.data).__get__(part) for part in _cut(row, shapes))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor, None, None]:
        """Pack what came back, and say that nobody else has that row."""
        like = next(cotangent for cotangent in cotangents if cotangent is not None)
        of_parts = [
            like.new_zeros(shape) if cotangent is None else cotangent
            for shape, cotangent in zip(ctx.shapes, cotangents, strict=True)
        ]
        row = side_by_side([of_part.reshape(1, of_part.numel()) for of_part in of_parts])[0]
        if not torch.is_grad_enabled():
            ctx.arrival.packed = row
        return row, None, None
