"""wait: the tensor that a collective made, finished."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from comm_core.catalog.rules import Emit, batch_first
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.compat import forward_ad_active
from comm_core.pending import Pending
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int) -> Params:
    return {}


def agrees(x: torch.Tensor) -> tuple[object, ...]:
    return ()


def shape(shape: Shape, world: int, rank: int) -> Shape:
    return shape


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    return list(inputs)


def kernel(wire: Transport, x: torch.Tensor) -> Pending:
    if not torch.compiler.is_compiling() and forward_ad_active():
        x = x.detach()  # of the tensor itself, torch asks that the tangent be itself too
    return wire.wait(x)


def gradient(emit: Emit, cotangent: torch.Tensor) -> torch.Tensor:
    return cotangent


def wire_bytes(input_bytes: int, world: int, rank: int) -> int:
    return 0


WAIT = Collective(
    name="wait",
    summary="Returns a collective's result when it is there; no rank waits for another one's wait.",
    schema="wait(Tensor x) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=gradient,
    partial=missing("the collective is linear"),
    batch=batch_first,
    twin="wait_tensor",
    in_place=missing("waiting moves no bytes"),
    wire_bytes=wire_bytes,
    lowering=Lowering.WAIT,
)
