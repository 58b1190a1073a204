"""broadcast: every rank gets the source rank's tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from comm_core.catalog.rules import Emit, batch_first, check_root
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.pending import Pending
from comm_core.tracing import is_writable
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int, *, src: int) -> Params:
    return {"src": check_root(src, world, "broadcast", "src")}


def agrees(x: torch.Tensor, *, src: int) -> tuple[object, ...]:
    return ("device", x.device.type, "dtype", x.dtype, "shape", tuple(x.shape), "src", src)


def shape(shape: Shape, world: int, rank: int, *, src: int) -> Shape:
    return shape


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    return [inputs[params[0]["src"]].clone() for _ in inputs]


def kernel(wire: Transport, x: torch.Tensor, *, src: int) -> Pending:
    return wire.broadcast(x, src)


def gradient(emit: Emit, cotangent: torch.Tensor, *, src: int) -> torch.Tensor:
    total = emit("all_reduce", cotangent, reduce_op="sum")
    if is_writable(total):
        return total if emit.rank == src else total.zero_()
    return _at_source(emit, total, src)


def identity(emit: Emit, cotangent: torch.Tensor, *, src: int) -> torch.Tensor:
    return _at_source(emit, cotangent, src)


def _at_source(emit: Emit, x: torch.Tensor, src: int) -> torch.Tensor:
    # A select, not a branch: every rank keeps what made x in its graph, so double backward meets on all ranks.
    return torch.where(torch.full((), emit.rank == src, device=x.device), x, torch.zeros_like(x))


def wire_bytes(input_bytes: int, world: int, rank: int, *, src: int) -> int:
    return input_bytes * (world - 1) // world


BROADCAST = Collective(
    name="broadcast",
    summary="Every rank gets the source rank's tensor.",
    schema="broadcast(Tensor x, *, int src) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=identity,
    partial=missing("the collective is linear"),
    batch=batch_first,
    twin="broadcast",
    in_place="broadcast_",
    wire_bytes=wire_bytes,
    lowering=Lowering.CLONE_THEN_IN_PLACE,
)
