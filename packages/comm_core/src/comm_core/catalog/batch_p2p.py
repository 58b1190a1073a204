"""batch_p2p: every rank sends messages to ranks of its choice and receives those that it expects."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch

from comm_core.catalog.rules import Emit, as_rank, batch_last, check_reverse
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.compat import holds
from comm_core.errors import MismatchError, RankError, ShapeError, said
from comm_core.extents import normalize_dim, sizes_of
from comm_core.pending import Pending
from comm_core.transports import Transport

T = TypeVar("T")
Messages = tuple[tuple[int, int, int], ...]  # each (peer, rows, tag)


def check(
    x: torch.Tensor,
    world: int,
    rank: int,
    *,
    sends: Sequence[object],
    receives: Sequence[object],
    reverse: object = False,
) -> Params:
    normalize_dim(0, x.ndim, "batch_p2p")
    sent, received = checked(sends, world, "sends"), checked(receives, world, "receives")
    rows = sum(message[1] for message in sent)
    if not holds(x.shape[0] == rows):
        raise ShapeError("batch_p2p", got=f"{x.shape[0]} rows", need=f"{rows}, the sum over all messages to send")
    if own(sent, rank) != own(received, rank):
        raise ShapeError(
            "batch_p2p",
            got=f"messages of {own(sent, rank)} rows from rank {rank} to itself, and {own(received, rank)} expected",
            need="the same, as only this rank can receive them",
        )
    return {"sends": sent, "receives": received, "reverse": check_reverse(reverse, "batch_p2p")}


def checked(messages: object, world: int, side: str) -> Messages:
    """Parse messages.

    Raises:
        RankError, ShapeError: not a list of (peer, rows, tag).
    """
    if not isinstance(messages, (list, tuple)):
        raise ShapeError("batch_p2p", got=f"{side} {said(messages)}", need="a list of (peer, rows, tag)")
    return tuple(parsed(message, world, side) for message in messages)


def parsed(message: object, world: int, side: str) -> tuple[int, int, int]:
    """Parse one message.

    Raises:
        RankError, ShapeError: not (peer, rows, tag).
    """
    if not isinstance(message, (list, tuple)) or len(message) != 3:
        raise ShapeError("batch_p2p", got=f"{said(message)} among the {side}", need="(peer, rows, tag)")
    peer, numbers = as_rank(message[0], world), sizes_of(message[1:], 2)
    if peer is None:
        raise RankError(
            "batch_p2p",
            got=f"peer {said(message[0])} among the {side}",
            need=f"a rank of the group, from 0 to {world - 1}",
            hint="peers are positions in the group, not global ranks",
        )
    if numbers is None:
        raise ShapeError("batch_p2p", got=f"{said(message)} among the {side}", need="rows and a tag of at least 0")
    return peer, numbers[0], numbers[1]


def own(messages: Messages, rank: int) -> list[tuple[int, int]]:
    """Return tag and rows of a rank's messages to itself, in the order in which those of one tag meet."""
    return sorted(((tag, rows) for peer, rows, tag in messages if peer == rank), key=lambda message: message[0])


def agrees(x: torch.Tensor, *, sends: Messages, receives: Messages, reverse: bool) -> tuple[object, ...]:
    return ()  # only the two ends of a message have to fit


def shape(shape: Shape, world: int, rank: int, *, sends: Messages, receives: Messages, reverse: bool) -> Shape:
    return (sum(rows for _, rows, _ in receives), *shape[1:])


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    posted: dict[tuple[int, int, int], deque[torch.Tensor]] = {}
    for sender, (x, of) in enumerate(zip(inputs, params, strict=True)):
        parts = x.split([rows for _, rows, _ in of["sends"]])
        for (peer, _, tag), part in in_order(zip(of["sends"], parts, strict=True), of):
            posted.setdefault((sender, peer, tag), deque()).append(part)
    results = []
    for receiver, (x, of) in enumerate(zip(inputs, params, strict=True)):
        parts = []
        for peer, rows, tag in in_order(of["receives"], of):
            waiting = posted.get((peer, receiver, tag))
            part = waiting.popleft() if waiting else None
            if part is None or part.shape[0] != rows:
                got = "sends nothing" if part is None else f"sends {part.shape[0]} rows"
                raise MismatchError(
                    "batch_p2p",
                    got=f"rank {peer} {got} to rank {receiver} with tag {tag}, which expects {rows}",
                    need="a send of as many rows for each receive",
                )
            parts.append(part)
        results.append(torch.cat([x[:0], *in_order(parts, of)]))
    return results


def in_order(things: Iterable[T], params: Params) -> list[T]:
    """Return what belongs to a call's messages in the order in which they meet."""
    return list(things)[:: -1 if params["reverse"] else 1]


def kernel(wire: Transport, x: torch.Tensor, *, sends: Messages, receives: Messages, reverse: bool) -> Pending:
    """Start the messages in the order of the lists; in reverse, where two of them have one peer."""
    turned = reverse and (repeats(sends) or repeats(receives))
    return wire.batch_p2p(x.contiguous(), sends, receives, reverse=turned)


def repeats(messages: Messages) -> bool:
    """Tell whether two of the messages have one peer; NCCL knows of no tags that would tell them apart."""
    return len({peer for peer, _, _ in messages}) < len(messages)


def gradient(
    emit: Emit, cotangent: torch.Tensor, *, sends: Messages, receives: Messages, reverse: bool
) -> torch.Tensor:
    """Send back, of one peer the last message first: so backward comes to those that were started singly."""
    return emit("batch_p2p", cotangent, sends=receives, receives=sends, reverse=not reverse)


def wire_bytes(input_bytes: int, world: int, rank: int, *, sends: Messages, receives: Messages, reverse: bool) -> int:
    rows = sum(message[1] for message in sends)
    stays = sum(message[1] for message in sends if message[0] == rank)
    return input_bytes * (rows - stays) // rows if rows else 0


BATCH_P2P = Collective(
    name="batch_p2p",
    summary="Every rank sends blocks of its rows to ranks of its choice and concatenates those that it receives.",
    schema="batch_p2p(Tensor x, *, Message[] sends, Message[] receives, bool reverse=False) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=gradient,
    partial=missing("the collective is linear"),
    batch=batch_last,
    twin=missing("torch's isend and irecv ops hide that irecv writes its input, and are not in 2.11: it is our own op"),
    in_place=missing("a rank may send and receive at once"),
    wire_bytes=wire_bytes,
    lowering=Lowering.OPAQUE,
)
