"""permute: rank i's tensor goes to rank destinations[i]; ranks that receive nothing get zeros."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from comm_core.catalog.rules import Emit, batch_first, is_rank
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.errors import RankError, said
from comm_core.pending import Pending
from comm_core.transports import Transport

NOWHERE = -1


def check(x: torch.Tensor, world: int, rank: int, *, destinations: Sequence[int]) -> Params:
    if not is_partial_permutation(destinations, world):
        raise RankError(
            "permute",
            got=f"destinations {said(destinations)} for {world} ranks",
            need=f"{world} entries: each a different rank from 0 to {world - 1}, or {NOWHERE} to send nothing",
            hint=f"[{', '.join(str((i + 1) % world) for i in range(world))}] shifts by one",
        )
    return {"destinations": tuple(destinations)}


def is_partial_permutation(destinations: object, world: int) -> bool:
    if not isinstance(destinations, (list, tuple)) or len(destinations) != world:
        return False
    targets = [target for target in destinations if target != NOWHERE]
    return all(is_rank(target, world) for target in targets) and len(set(targets)) == len(targets)


def agrees(x: torch.Tensor, *, destinations: Shape) -> tuple[object, ...]:
    return ("device", x.device.type, "dtype", x.dtype, "shape", tuple(x.shape), "destinations", destinations)


def shape(shape: Shape, world: int, rank: int, *, destinations: Shape) -> Shape:
    return shape


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    outputs = [torch.zeros_like(x) for x in inputs]
    for source, target in enumerate(params[0]["destinations"]):
        if target != NOWHERE:
            outputs[target] = inputs[source].clone()
    return outputs


def kernel(wire: Transport, x: torch.Tensor, *, destinations: Shape) -> Pending:
    flat = x.reshape(-1).contiguous()
    target = destinations[wire.rank]
    # Compared one by one: Dynamo finds a symbolic int by `==`, but not by `tuple.index` (torch 2.13).
    source = max(rank if destinations[rank] == wire.rank else NOWHERE for rank in range(wire.world))
    sent = [flat.shape[0] if rank == target else 0 for rank in range(wire.world)]
    received = [flat.shape[0] if rank == source else 0 for rank in range(wire.world)]
    pending = wire.all_to_all(flat[: sum(sent)], received, sent)
    shape = tuple(x.shape)
    return pending.then(functools.partial(_shaped, shape=shape, empty=source == NOWHERE), shape)


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
    identity=gradient,
    partial=missing("the collective is linear"),
    batch=batch_first,
    twin=missing("c10d has no permutation: it is traced as all_to_all_single with one block"),
    in_place=missing("a rank may send and receive at once"),
    wire_bytes=wire_bytes,
    lowering=Lowering.COMPOSITE,
)
