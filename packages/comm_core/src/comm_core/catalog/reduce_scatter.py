"""reduce_scatter: every rank gets its own block of the reduction of all ranks' tensors."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from comm_core.catalog.blocks import Fill, ready
from comm_core.catalog.rules import Emit, batch_last, divided, partial_derivative
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.extents import even_split, normalize_dim
from comm_core.pending import Pending
from comm_core.reduce_ops import defined_word, reduce_in_rank_order
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int, *, reduce_op: object, dim: int) -> Params:
    word = defined_word(reduce_op, x.dtype, "reduce_scatter")
    dim = normalize_dim(dim, x.ndim, "reduce_scatter")
    even_split(x.shape[dim], world, "reduce_scatter", dim)
    return {"reduce_op": word, "dim": dim}


def agrees(x: torch.Tensor, *, reduce_op: str, dim: int) -> tuple[object, ...]:
    return ("device", x.device.type, "dtype", x.dtype, "shape", tuple(x.shape), "reduce op", reduce_op, "dim", dim)


def shape(shape: Shape, world: int, rank: int, *, reduce_op: str, dim: int) -> Shape:
    return (*shape[:dim], shape[dim] // world, *shape[dim + 1 :])


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    total = reduce_in_rank_order(params[0]["reduce_op"], inputs)
    return [
        part.clone(memory_format=torch.contiguous_format) for part in total.tensor_split(len(inputs), params[0]["dim"])
    ]


def kernel(wire: Transport, x: torch.Tensor, *, reduce_op: str, dim: int, fill: Fill | None = None) -> Pending:
    return wire.reduce_scatter(_stack(x, wire.world, dim, fill), reduce_op)


def _stack(x: torch.Tensor, world: int, dim: int, fill: Fill | None) -> torch.Tensor:
    """Turn blocks along `dim` into contiguous blocks stacked along dim 0: one copy, none for dim 0."""
    if dim == 0:
        return ready(x, fill)
    blocks = x.unflatten(dim, (world, x.shape[dim] // world)).movedim(dim, 0)
    return ready(blocks, fill).flatten(0, 1)


def gradient(emit: Emit, cotangent: torch.Tensor, *, reduce_op: str, dim: int) -> torch.Tensor:
    gathered = emit("all_gather", cotangent, dim=dim)
    return divided(gathered, reduce_op, emit.world, own=True)


def partial(emit: Emit, x: torch.Tensor, y: torch.Tensor, *, reduce_op: str, dim: int) -> torch.Tensor:
    return partial_derivative(emit, x, y, reduce_op, functools.partial(emit, "all_gather", dim=dim))


def weighted(emit: Emit, cotangent: torch.Tensor, factors: torch.Tensor, *, reduce_op: str, dim: int) -> torch.Tensor:
    gathered = emit("all_gather", cotangent, dim=0)
    blocks, rows = factors.tensor_split(emit.world, dim), gathered.tensor_split(emit.world, 0)
    for block, row in zip(blocks, rows, strict=True):
        block.mul_(row)
    return factors


def wire_bytes(input_bytes: int, world: int, rank: int, *, reduce_op: str, dim: int) -> int:
    return input_bytes * (world - 1) // world


REDUCE_SCATTER = Collective(
    name="reduce_scatter",
    summary="Every rank gets its own block of the reduction of all ranks' tensors.",
    schema="reduce_scatter(Tensor x, *, str reduce_op, int dim) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=gradient,
    partial=partial,
    batch=batch_last,
    twin="reduce_scatter_tensor",
    in_place=missing("the result is smaller than the input"),
    wire_bytes=wire_bytes,
    lowering=Lowering.OUT_OF_PLACE,
    weighted=weighted,
)
