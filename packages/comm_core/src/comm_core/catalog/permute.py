"""permute: rank i's tensor goes to rank destinations[i]; ranks that receive nothing get zeros."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch

from comm_core.catalog.rules import Emit, as_rank, batch_first
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.compat import constant_in_graphs
from comm_core.errors import RankError, said
from comm_core.pending import Pending
from comm_core.transports import Transport

NOWHERE = -1


def check(x: torch.Tensor, world: int, rank: int, *, destinations: Sequence[int]) -> Params:
    destinations = numbers(destinations)
    if not is_partial_permutation(destinations, world):
        raise RankError(
            "permute",
            got=f"destinations {said(destinations)} for {world} ranks",
            need=f"{world} entries: each a different rank from 0 to {world - 1}, or {NOWHERE} to send nothing",
            hint=f"[{', '.join(str((i + 1) % world) for i in range(world))}] shifts by one",
        )
    return {"destinations": destinations}


def numbers(destinations: Any) -> Any:
    """Return a list of ints as a tuple of them, known where Dynamo made symbols of them; else what was given.

    Of a whole group's ranks Dynamo must not walk any loop, so whatever does is a builtin or a constant of the graph.
    """
    if not isinstance(destinations, (list, tuple)):
        return destinations
    try:
        return tuple(map(operator.index, destinations))
    except TypeError:
        return destinations


@constant_in_graphs
def is_partial_permutation(destinations: object, world: int) -> bool:
    if not isinstance(destinations, (list, tuple)) or len(destinations) != world:
        return False
    targets = [target for target in destinations if target != NOWHERE]
    return all(as_rank(target, world) is not None for target in targets) and len(set(targets)) == len(targets)


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
    source = source_of(destinations, wire.rank)
    sent = only(flat.shape[0], destinations[wire.rank], wire.world)
    received = only(flat.shape[0], source, wire.world)
    pending = wire.all_to_all(flat[:0] if destinations[wire.rank] == NOWHERE else flat, received, sent)
    shape = tuple(x.shape)
    return pending.then(functools.partial(_shaped, shape=shape, empty=source == NOWHERE), shape)


@constant_in_graphs
def source_of(destinations: Shape, rank: int) -> int:
    """Return the rank whose tensor goes to `rank`, or NOWHERE."""
    return destinations.index(rank) if rank in destinations else NOWHERE


def only(count: int, place: int, world: int) -> list[int]:
    """Return a count of each rank: `count` at `place`, if that is a rank, and none elsewhere."""
    return [0] * world if place == NOWHERE else [*[0] * place, count, *[0] * (world - 1 - place)]


def _shaped(arrived: torch.Tensor, *, shape: Shape, empty: bool) -> torch.Tensor:
    return arrived.new_zeros(shape) if empty else arrived.view(shape)


def gradient(emit: Emit, cotangent: torch.Tensor, *, destinations: Shape) -> torch.Tensor:
    return emit("permute", cotangent, destinations=inverse(destinations))


@constant_in_graphs
def inverse(destinations: Shape) -> Shape:
    """Return the permutation that takes everything back."""
    back = [NOWHERE] * len(destinations)
    for source, target in enumerate(destinations):
        if target != NOWHERE:
            back[target] = source
    return tuple(back)


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
