"""reduce: one rank gets the reduction of all ranks' tensors; the others get zeros."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from comm_core.catalog.rules import Emit, batch_first, check_root, divided, partial_derivative
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.pending import Pending
from comm_core.reduce_ops import defined_word, reduce_in_rank_order
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int, *, reduce_op: object, dst: int) -> Params:
    word = defined_word(reduce_op, x.dtype, "reduce")
    return {"reduce_op": word, "dst": check_root(dst, world, "reduce", "dst")}


def agrees(x: torch.Tensor, *, reduce_op: str, dst: int) -> tuple[object, ...]:
    return ("device", x.device.type, "dtype", x.dtype, "shape", tuple(x.shape), "reduce op", reduce_op, "dst", dst)


def shape(shape: Shape, world: int, rank: int, *, reduce_op: str, dst: int) -> Shape:
    return shape


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    total = reduce_in_rank_order(params[0]["reduce_op"], inputs)
    return [total if rank == params[0]["dst"] else torch.zeros_like(total) for rank in range(len(inputs))]


def kernel(wire: Transport, x: torch.Tensor, *, reduce_op: str, dst: int) -> Pending:
    return wire.reduce(x, reduce_op, dst)


def gradient(emit: Emit, cotangent: torch.Tensor, *, reduce_op: str, dst: int) -> torch.Tensor:
    share = divided(cotangent, reduce_op, emit.world)
    return emit("broadcast", share, src=dst)


def partial(emit: Emit, x: torch.Tensor, y: torch.Tensor, *, reduce_op: str, dst: int) -> torch.Tensor:
    return partial_derivative(emit, x, y, reduce_op, functools.partial(emit, "broadcast", src=dst))


def wire_bytes(input_bytes: int, world: int, rank: int, *, reduce_op: str, dst: int) -> int:
    return input_bytes * (world - 1) // world


REDUCE = Collective(
    name="reduce",
    summary="The destination rank gets the reduction of all ranks' tensors; the others get zeros.",
    schema="reduce(Tensor x, *, str reduce_op, int dst) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=gradient,
    partial=partial,
    batch=batch_first,
    twin=missing("torch has no functional reduce, and a composition of its ops moves more: it is an op of our own"),
    in_place=missing("torch has no functional reduce to write into the input"),
    wire_bytes=wire_bytes,
    lowering=Lowering.OPAQUE,
)
