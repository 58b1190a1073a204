"""all_reduce: every rank gets the reduction of all ranks' tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from comm_core.catalog.rules import Emit, batch_first, divided, partial_derivative
from comm_core.collective import Collective, Lowering, Params, Shape
from comm_core.pending import Pending
from comm_core.reduce_ops import defined_word, reduce_in_rank_order
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int, *, reduce_op: object) -> Params:
    return {"reduce_op": defined_word(reduce_op, x.dtype, "all_reduce")}


def agrees(x: torch.Tensor, *, reduce_op: str) -> tuple[object, ...]:
    return ("device", x.device.type, "dtype", x.dtype, "shape", tuple(x.shape), "reduce op", reduce_op)


def shape(shape: Shape, world: int, rank: int, *, reduce_op: str) -> Shape:
    return shape


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    return [reduce_in_rank_order(params[0]["reduce_op"], inputs) for _ in inputs]


def kernel(wire: Transport, x: torch.Tensor, *, reduce_op: str) -> Pending:
    return wire.all_reduce(x, reduce_op)


def gradient(emit: Emit, cotangent: torch.Tensor, *, reduce_op: str) -> torch.Tensor:
    return emit("all_reduce", cotangent, reduce_op=reduce_op)


def identity(emit: Emit, cotangent: torch.Tensor, *, reduce_op: str) -> torch.Tensor:
    return divided(cotangent, reduce_op, emit.world)


def partial(emit: Emit, x: torch.Tensor, y: torch.Tensor, *, reduce_op: str) -> torch.Tensor:
    return partial_derivative(emit, x, y, reduce_op)


def wire_bytes(input_bytes: int, world: int, rank: int, *, reduce_op: str) -> int:
    return 2 * input_bytes * (world - 1) // world


ALL_REDUCE = Collective(
    name="all_reduce",
    summary="Every rank gets the reduction of all ranks' tensors.",
    schema="all_reduce(Tensor x, *, str reduce_op) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=identity,
    partial=partial,
    batch=batch_first,
    twin="all_reduce",
    in_place="all_reduce_",
    wire_bytes=wire_bytes,
    lowering=Lowering.CLONE_THEN_IN_PLACE,
)
