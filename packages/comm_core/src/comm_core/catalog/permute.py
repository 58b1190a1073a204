"""permute: rank i's tensor goes to rank destinations[i]; ranks that receive nothing get zeros."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from comm_core.catalog.rules import Emit, batch_first
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.errors import RankError
from comm_core.pending import Pending
from comm_core.transport import Transport

NOWHERE = -1


def check(x: torch.Tensor, world: int, rank: int, *, destinations: Sequence[int]) -> Params:
    targets = [target for target in destinations if target != NOWHERE]
    in_range = all(isinstance(target, int) and 0 <= target < world for target in targets)
    if len(destinations) != world or not in_range or len(set(targets)) != len(targets):
        raise RankError(
            "permute",
            got=f"destinations {list(destinations)} for {world} ranks",
            need=f"{world} entries: each a different rank from 0 to {world - 1}, or {NOWHERE} to send nothing",
            hint=f"[{', '.join(str((i + 1) % world) for i in range(world))}] shifts by one",
        )
    return {"destinations": tuple(destinations)}


def agrees(x: torch.Tensor, *, destinations: Shape) -> tuple[object, ...]:
    return ("dtype", x.dtype, "shape", tuple(x.shape), "destinations", destinations)


def shape(shape: Shape, world: int, rank: int, *, destinations: Shape) -> Shape:
    return shape


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    outputs = [torch.zeros_like(x) for x in inputs]
    for source, target in enumerate(params[0]["destinations"]):
        if target != NOWHERE:
            outputs[target] = inputs[source].clone()
    return outputs


def kernel(wire: Transport, x: torch.Tensor, *, destinations: Shape) -> Pending:
    flat = x.reshape(-1)
    target = destinations[wire.rank]
    source = destinations.index(wire.rank) if wire.rank in destinations else NOWHERE
    sent = [flat.shape[0] if rank == target else 0 for rank in range(wire.world)]
    received = [flat.shape[0] if rank == source else 0 for rank in range(wire.world)]
    pending = wire.all_to_all(flat[: sum(sent)], received, sent)
    return pending.then(functools.partial(_shaped, shape=tuple(x.shape), empty=source == NOWHERE))


def _shaped(arrived: torch.Tensor, *, shape: Shape, empty: bool) -> torch.Tensor:
    return arrived.new_zeros(shape) if empty else arrived.view(shape)


def gradient(emit: Emit, cotangent: torch.Tensor, *, destinations: Shape) -> torch.Tensor:
    back = [NOWHERE] * emit.world
    for source, target in enumerate(destinations):
        if target != NOWHERE:
            back[target] = source
    return emit("permute", cotangent, destinations=tuple(back))


def wire_bytes(input_bytes: int, world: int, rank: int, *, destinations: Shape) -> int:
    return input_bytes if destinations[rank] not in (NOWHERE, rank) else 0


PERMUTE = Collective(
    name="permute",
    summary="Rank i's tensor goes to rank destinations[i]; a rank that receives nothing gets zeros.",
    schema="permute(Tensor x, *, int[] destinations) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    batch=batch_first,
    twin=missing("c10d has no permutation: it is traced as all_to_all_single with one block"),
    in_place=missing("a rank may send and receive at once"),
    wire_bytes=wire_bytes,
    lowering=Lowering.COMPOSITE,
)
