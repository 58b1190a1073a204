"""The messages of torch.distributed inside compiled code, made ours: send, recv, isend, irecv and batch_isend_irecv.

A message is started where its call stands and finished where `wait()` of what that gives back stands, which is also
when a tensor to receive into is written: so no order of them is a deadlock that is none in eager code. They carry no
gradient, for a gradient is a message back, which a sender that does not know of it would not receive; `isend`, `irecv`
and `batch_p2p` of this package have one. Dynamo walks this file, so it stays plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from comm_core import GroupLike
from comm_core.catalog import BATCH_P2P
from comm_core.errors import CommError, RankError, said
from comm_core.execution import parsed_params
from comm_core.extents import integer
from comm_core.wires import traced_transport
from functional_collectives.collectives import parsed_group
from functional_collectives.point_to_point import by_kind
from functional_collectives.works import Piece


def started(
    kinds: Sequence[str], places: Sequence[int], tags: Sequence[int], tensors: Sequence[torch.Tensor], group: GroupLike
) -> list[Piece]:
    """Start messages, those of one dtype and device as one op, and return what waits for each.

    Raises:
        CommError: a wrong rank or tag.
    """
    on, _ = parsed_group(group)
    found: dict[int, Piece] = {}
    for alike in by_kind(tensors):
        sends = [place for place in alike if kinds[place] == "isend"]
        receives = [place for place in alike if kinds[place] == "irecv"]
        flat = [tensors[place].detach().reshape(-1)[: None if place in sends else 0] for place in alike]
        x = torch.cat(flat)
        messages = {
            "sends": [(places[place], tensors[place].numel(), tags[place]) for place in sends],
            "receives": [(places[place], tensors[place].numel(), tags[place]) for place in receives],
        }
        try:
            parsed = parsed_params(BATCH_P2P, x, on, messages)
        except CommError as error:  # anew, by position: of an error's arguments Dynamo shows only those
            raise type(error)(error.where, error.got, error.need, error.hint) from None
        arriving = BATCH_P2P.kernel(traced_transport(on, waits=False), x, **parsed)
        first = 0
        for place in sends:
            found[place] = Piece(arriving, [])
        for place in receives:
            found[place] = Piece(arriving, [tensors[place]], first)
            first += tensors[place].numel()
    return [found[place] for place in range(len(tensors))]


def place_in(group: GroupLike, rank: int | None, group_rank: int | None, where: str) -> int:
    """Return a rank's place in a group, from its number there or in the world.

    Raises:
        RankError: both, none, or a rank that is not in the group.
    """
    on, _ = parsed_group(group)
    if group_rank is not None and rank is None:
        return group_rank
    number = integer(rank)
    for place, known in enumerate(on.ranks):
        if number is not None and group_rank is None and known == number:
            return place
    got = f"rank {said(rank)} and group rank {said(group_rank)}"
    raise RankError(where, got, f"one of them, of the ranks {list(on.ranks)}")


def isend_in_graph(
    tensor: torch.Tensor,
    dst: int | None = None,
    group: GroupLike = None,
    tag: int = 0,
    group_dst: int | None = None,
) -> Piece:
    """`dist.isend`; `dst` counts in the world, `group_dst` in the group."""
    return started(["isend"], [place_in(group, dst, group_dst, "isend")], [tag], [tensor], group)[0]


def irecv_in_graph(
    tensor: torch.Tensor,
    src: int | None = None,
    group: GroupLike = None,
    tag: int = 0,
    group_src: int | None = None,
) -> Piece:
    """`dist.irecv`, from a rank that is named."""
    return started(["irecv"], [place_in(group, src, group_src, "irecv")], [tag], [tensor], group)[0]


def send_in_graph(
    tensor: torch.Tensor,
    dst: int | None = None,
    group: GroupLike = None,
    tag: int = 0,
    group_dst: int | None = None,
) -> None:
    """`dist.send`."""
    isend_in_graph(tensor, dst, group, tag, group_dst).wait()


def recv_in_graph(
    tensor: torch.Tensor,
    src: int | None = None,
    group: GroupLike = None,
    tag: int = 0,
    group_src: int | None = None,
) -> int:
    """`dist.recv`, from a rank that is named; its number in the world is returned."""
    irecv_in_graph(tensor, src, group, tag, group_src).wait()
    on, _ = parsed_group(group)
    return on.ranks[place_in(group, src, group_src, "recv")]


def batch_in_graph(
    op_list: Sequence[str],
    peer_list: Sequence[int],
    tag_list: Sequence[int],
    tensors: Sequence[torch.Tensor],
    group_name: GroupLike,
) -> list[Piece]:
    """`dist.batch_isend_irecv`, which Dynamo takes apart before it calls this (2.13): peers count in the world."""
    places = [place_in(group_name, peer, None, "batch_isend_irecv") for peer in peer_list]
    return started(op_list, places, tag_list, tensors, group_name)


# By the names in torch.distributed.
MESSAGES: dict[str, Any] = {
    "send": send_in_graph,
    "recv": recv_in_graph,
    "isend": isend_in_graph,
    "irecv": irecv_in_graph,
    "batch_isend_irecv": batch_in_graph,
}
