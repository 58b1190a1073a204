"""barrier: every rank gets its own tensor back, once all ranks have come."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from comm_core.catalog.rules import Emit, batch_first
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.pending import Pending
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int) -> Params:
    return {}


def agrees(x: torch.Tensor) -> tuple[object, ...]:
    return ("device", x.device.type)


def shape(shape: Shape, world: int, rank: int) -> Shape:
    return shape


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    return [x.clone(memory_format=torch.contiguous_format) for x in inputs]


def kernel(wire: Transport, x: torch.Tensor) -> Pending:
    """Reduce one element: nobody gets the sum before everybody has come, and every compiler knows the op."""
    met = wire.all_reduce(torch.zeros(1, device=x.device), "sum")
    return met.then(functools.partial(_instead, x=x.clone(memory_format=torch.contiguous_format)), tuple(x.shape))


def _instead(total: torch.Tensor, *, x: torch.Tensor) -> torch.Tensor:
    return x


def gradient(emit: Emit, cotangent: torch.Tensor) -> torch.Tensor:
    return emit("barrier", cotangent)


def wire_bytes(input_bytes: int, world: int, rank: int) -> int:
    return 0


BARRIER = Collective(
    name="barrier",
    summary="Every rank gets its own tensor back, once all ranks have come.",
    schema="barrier(Tensor x) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=gradient,
    partial=missing("the collective is linear"),
    batch=batch_first,
    twin=missing("torch has no functional barrier: it is traced as all_reduce of one element"),
    in_place=missing("nothing of the input is written"),
    wire_bytes=wire_bytes,
    lowering=Lowering.COMPOSITE,
)
