"""Messages between two ranks, in the functional style: what is received is a result, and gradients flow back.

Dynamo walks this file, so it stays plain. The gradient of a message is a message back: who sent receives the
cotangent, and who received sends it. So both ends have to run their backward: a send gives back an empty tensor, its
receipt, which has to reach the sender's loss, and a receive needs an input that requires grad. Peers are positions in
the group, which in a sub-group are not global ranks. Both conventions of a gradient agree here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

import comm_core
from comm_core import GroupLike
from comm_core.catalog import BATCH_P2P, under
from comm_core.checking import refusing
from comm_core.errors import ArgumentError, CommError
from comm_core.settling import arrived, settled
from functional_collectives.flight import in_flight
from functional_collectives.packing import parts_of, side_by_side


@dataclass(frozen=True)
class Send:
    """A tensor to send, in `batch_p2p`.

    Args:
        x: the tensor.
        peer: the rank that receives it.
        tag: tells several messages between two ranks apart; those of one tag arrive in order.
    """

    x: torch.Tensor
    peer: int
    tag: int = 0


@dataclass(frozen=True)
class Receive:
    """A tensor to receive, in `batch_p2p`.

    Args:
        like: a tensor of the shape, dtype and device that will arrive; its values are not read and not written. The
            result requires grad where it does, or where a tensor of its dtype that the batch sends does.
        peer: the rank that sends it.
        tag: the sender's tag.
    """

    like: torch.Tensor
    peer: int
    tag: int = 0


def isend(
    x: torch.Tensor, dst: int, group: GroupLike = None, tag: int = 0, *, backward: str = "adjoint"
) -> torch.Tensor:
    """Send a tensor to one rank.

    Args:
        x: the tensor; not to be written before the receipt is waited for.
        dst: the rank that receives it.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: tells several messages between two ranks apart; those of one tag arrive in order. NCCL has no tags:
            there all messages between two ranks arrive in order.
        backward: the gradient's convention, `"adjoint"` or `"identity"`; here they agree.

    Returns:
        A receipt, in flight: an empty tensor; when it is waited for, `x` may be written.

    Shapes: the receipt has `(0,)`.

    Gradient: what the receiver's result gets, sent back. The receipt has to reach this rank's loss, as
    `receipt.sum()`, which is zero.

    Raises:
        CommError: a wrong rank, tag or group; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     if group.rank == 0:
        ...         return isend(torch.tensor([1.0, 2.0]), 1, group).tolist()
        ...     return irecv(torch.empty(2), 0, group).tolist()
        >>> World(2).run(body)
        [[], [1.0, 2.0]]
    """
    with refusing(group, "batch_p2p", {"sends": [(dst, 0, tag)]}):
        x = in_row(settled(x, "isend"))
    entry = under(BATCH_P2P, backward)
    return comm_core.start(entry, x, in_flight, group, sends=[(dst, x.shape[0], tag)], receives=[])


def irecv(
    like: torch.Tensor, src: int, group: GroupLike = None, tag: int = 0, *, backward: str = "adjoint"
) -> torch.Tensor:
    """Receive a tensor from one rank.

    Args:
        like: a tensor of the shape, dtype and device that will arrive; its values are not read and not written.
        src: the rank that sends it.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: the sender's tag.
        backward: the gradient's convention, `"adjoint"` or `"identity"`; here they agree.

    Returns:
        What arrived, in flight. It requires grad where `like` does.

    Shapes: those of `like`.

    Gradient: sent back to `src`; `like` itself gets zeros.

    Raises:
        CommError: a wrong rank, tag or group; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     x = torch.tensor([3.0], requires_grad=True)
        ...     if group.rank == 0:
        ...         isend(x, 1, group).sum().backward()
        ...         return x.grad.item()
        ...     y = irecv(torch.empty(1, requires_grad=True), 0, group)
        ...     (y * 5).sum().backward()
        ...     return y.item()
        >>> World(2).run(body)
        [5.0, 3.0]
    """
    with refusing(group, "batch_p2p", {"receives": [(src, 0, tag)]}):
        like = settled(like, "irecv")
    entry = under(BATCH_P2P, backward)
    received = comm_core.start(entry, nothing_of(like), in_flight, group, sends=[], receives=[(src, like.numel(), tag)])
    return received.view(like.shape)


def batch_p2p(
    ops: Sequence[Send | Receive], group: GroupLike = None, *, backward: str = "adjoint"
) -> list[torch.Tensor]:
    """Send and receive several tensors at once, in any order, without a deadlock.

    All messages are on their way before any is waited for. Those of one dtype and device travel from one buffer and
    arrive in one; messages between two ranks with one tag and dtype arrive in the order of the lists.

    Args:
        ops: what to send and what to receive.
        group: anything that `comm_core.as_group` takes; None is the default group.
        backward: the gradient's convention, `"adjoint"` or `"identity"`; here they agree.

    Returns:
        For each of `ops`, in flight: what arrived, or the receipt of what was sent.

    Shapes: for a `Receive` that of its `like`, for a `Send` `(0,)`.

    Gradient: as for `isend` and `irecv`; one batch back, of all messages of a dtype, where any result of it is used.

    Raises:
        CommError: not a list of `Send` and `Receive`, or a wrong rank, tag or group; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
        ...     x = torch.tensor([float(group.rank)])
        ...     _, y = batch_p2p([Send(x, right), Receive(x, left)], group)
        ...     return y.item()
        >>> World(3).run(body)
        [2.0, 0.0, 1.0]

    Source: `torch.distributed.batch_isend_irecv`, which gives no gradients.
    """
    with refusing(group, "batch_p2p", named_in(ops)):
        if not isinstance(ops, (list, tuple)) or not all(isinstance(op, (Send, Receive)) for op in ops):
            raise ArgumentError("batch_p2p", f"a {type(ops).__name__} of other things", "a list of Send and Receive")
        tensors = [checked(op, place) for place, op in enumerate(ops)]
    entry = under(BATCH_P2P, backward)
    results = list(tensors)
    for places in by_kind(tensors):
        sends = [place for place in places if isinstance(ops[place], Send)]
        receives = [place for place in places if isinstance(ops[place], Receive)]
        received = comm_core.start(
            entry,
            in_a_row([tensors[place] for place in sends], [tensors[place] for place in receives]),
            in_flight,
            group,
            sends=[(ops[place].peer, tensors[place].numel(), ops[place].tag) for place in sends],
            receives=[(ops[place].peer, tensors[place].numel(), ops[place].tag) for place in receives],
        )
        shapes = [tensors[place].shape for place in receives]
        for place, part in zip(
            [*sends, *receives], parts_of(received, [torch.Size([0])] * len(sends) + shapes), strict=True
        ):
            results[place] = part
    return results


def in_a_row(sent: Sequence[torch.Tensor], received: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return what is sent as one row of elements, which all of the tensors have their gradients through: one copy."""
    if len(sent) + len(received) == 1:
        return in_row(sent[0]) if sent else nothing_of(received[0])
    return in_row(side_by_side([x.unsqueeze(0) for x in [*sent, *map(nothing_of, received)]]))


def nothing_of(x: torch.Tensor) -> torch.Tensor:
    """Return a row of no elements that has a tensor's gradient, and takes no copy of it."""
    return in_row(x[:0] if x.ndim else x.reshape(1)[:0])


def in_row(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor's elements in a row; the size is named, as of an empty batch under vmap torch cannot infer it."""
    return x.reshape(x.numel())


def named_in(ops: object) -> dict[str, list[tuple[int, int, int]]]:
    """Return the messages of a list whose ops may be wrong, without their sizes: who has to hear of an error."""
    named: dict[str, list[tuple[int, int, int]]] = {"sends": [], "receives": []}
    for op in ops if isinstance(ops, (list, tuple)) else ():
        if isinstance(op, (Send, Receive)):
            named["sends" if isinstance(op, Send) else "receives"].append((op.peer, 0, op.tag))
    return named


def checked(op: Send | Receive, place: int) -> torch.Tensor:
    """Return an op's tensor, one that has arrived.

    Raises:
        CommError: naming which op of the list is wrong.
    """
    try:
        return arrived(op.x if isinstance(op, Send) else op.like, "batch_p2p")
    except CommError as error:
        raise type(error)(f"batch_p2p, op {place}", error.got, error.need, error.hint) from None


def by_kind(tensors: Sequence[torch.Tensor]) -> list[list[int]]:
    """Return the places of the tensors of each dtype and device, in an order that is the same on every rank."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for place, x in enumerate(tensors):
        kinds.setdefault((str(x.dtype), x.device.type), []).append(place)
    return [kinds[kind] for kind in sorted(kinds)]
