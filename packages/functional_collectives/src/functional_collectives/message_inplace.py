"""Messages into given tensors: torch's names, which count peers in the world.

Dynamo walks this file, so it stays plain. Derived from `isend`, `irecv` and `batch_p2p`: a message is started where the
call stands; what is received is written when the result is waited for. They carry no gradient, as a tensor that is
written into has none of its own to send back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from comm_core import GroupLike
from comm_core.checking import refusing
from comm_core.errors import ArgumentError, said
from comm_core.settling import settled
from functional_collectives import torch_compat
from functional_collectives.async_tensor import AsyncCollectiveTensor
from functional_collectives.message_remaps import place_in
from functional_collectives.point_to_point import Receive, Send, batch_p2p, irecv, isend, named_in

NOT_GIVEN = -1


def isend_inplace(
    tensor: torch.Tensor, dst: int | None = None, tag: int = 0, group: GroupLike = None, group_dst: int = NOT_GIVEN
) -> torch.Tensor:
    """Send a tensor to one rank, and give the tensor itself back.

    Args:
        tensor: the tensor; not to be written before the result is waited for.
        dst: the rank that receives it, as it counts in the world; None where `group_dst` is given.
        tag: tells several messages between two ranks apart.
        group: anything that `comm_core.as_group` takes; None is the default group.
        group_dst: the rank that receives it, as it counts in the group.

    Returns:
        `tensor`, in flight: when it is waited for, it may be written.

    Shapes: the input's.

    Gradient: none; `isend` has one.

    Raises:
        CommError: a wrong rank, tag or group; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     if group.rank == 0:
        ...         return isend_inplace(torch.tensor([1.0, 2.0]), 1, group=group).tolist()
        ...     x = torch.empty(2)
        ...     irecv_inplace(x, 0, group=group).wait()
        ...     return x.tolist()
        >>> World(2).run(body)
        [[1.0, 2.0], [1.0, 2.0]]
    """
    place = place_in(group, dst, None if group_dst == NOT_GIVEN else group_dst, "isend_inplace")
    with refusing(group, "batch_p2p", {"sends": [(place, 0, tag)]}):
        x = settled(tensor, "isend_inplace").detach()
    return given(isend(x, place, group, tag), x)


def irecv_inplace(
    tensor: torch.Tensor, src: int | None = None, tag: int = 0, group: GroupLike = None, group_src: int = NOT_GIVEN
) -> torch.Tensor:
    """Receive a tensor from one rank into a given one.

    Args:
        tensor: where it goes, of the shape and dtype that will arrive.
        src: the rank that sends it, as it counts in the world; None where `group_src` is given.
        tag: the sender's tag.
        group: anything that `comm_core.as_group` takes; None is the default group.
        group_src: the rank that sends it, as it counts in the group.

    Returns:
        `tensor`, in flight: when it is waited for, what arrived is in it.

    Shapes: the input's.

    Gradient: none; `irecv` has one.

    Raises:
        CommError: a wrong rank, tag or group; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     other, y = 1 - group.rank, torch.empty(2)
        ...     sent = isend_inplace(torch.full((2,), float(group.rank)), other, group=group)
        ...     irecv_inplace(y, other, group=group).wait()
        ...     return y.tolist(), sent.tolist()
        >>> World(2).run(body)
        [([1.0, 1.0], [0.0, 0.0]), ([0.0, 0.0], [1.0, 1.0])]
    """
    place = place_in(group, src, None if group_src == NOT_GIVEN else group_src, "irecv_inplace")
    with refusing(group, "batch_p2p", {"receives": [(place, 0, tag)]}):
        x = written(tensor, "irecv_inplace")
    return filled(irecv(x, place, group, tag), x)


def batch_p2p_ops_inplace(
    op_list: Sequence[str],
    peer_list: Sequence[int],
    tag_list: Sequence[int],
    tensors: Sequence[torch.Tensor],
    group_name: GroupLike = None,
) -> list[torch.Tensor]:
    """Send several tensors and receive into several at once, in any order, without a deadlock.

    Args:
        op_list: for each tensor, `"isend"` or `"irecv"`.
        peer_list: for each tensor, the other rank, as it counts in the world.
        tag_list: for each tensor, its tag.
        tensors: what to send, and what to receive into.
        group_name: anything that `comm_core.as_group` takes; None is the default group.

    Returns:
        The tensors, in flight: when one is waited for, it may be written, or what arrived is in it.

    Shapes: the inputs'.

    Gradient: none; `batch_p2p` has one.

    Raises:
        CommError: no lists, lists of different lengths, another word, or a wrong rank, tag or group; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
        ...     x, y = torch.tensor([group.rank]), torch.empty(1, dtype=torch.int64)
        ...     return batch_p2p_ops_inplace(["isend", "irecv"], [right, left], [0, 0], [x, y], group)[1].item()
        >>> World(3).run(body)
        [2, 0, 1]
    """
    where = "batch_p2p_ops_inplace"
    check_lists([op_list, peer_list, tag_list, tensors], where)
    for word in op_list:
        if word not in ("isend", "irecv"):
            raise ArgumentError(where, f"op {said(word)}", "isend or irecv")
    places = [place_in(group_name, peer, None, where) for peer in peer_list]
    kinds = [Send if word == "isend" else Receive for word in op_list]
    asked = [kind(x, place, tag) for kind, x, place, tag in zip(kinds, tensors, places, tag_list, strict=True)]
    with refusing(group_name, "batch_p2p", named_in(asked)):
        xs = [
            written(x, where) if word == "irecv" else settled(x, where).detach()
            for word, x in zip(op_list, tensors, strict=True)
        ]
    ops = [kind(x, place, tag) for kind, x, place, tag in zip(kinds, xs, places, tag_list, strict=True)]
    moved = batch_p2p(ops, group_name)
    return [
        given(done, x) if word == "isend" else filled(done, x) for word, done, x in zip(op_list, moved, xs, strict=True)
    ]


def check_lists(lists: Sequence[object], where: str) -> None:
    """Ask for lists of ops, peers, tags and tensors, of one length.

    Raises:
        ArgumentError: one of them is no list, or has another length.
    """
    for value, of in zip(lists, ("ops", "peers", "tags", "tensors"), strict=True):
        if not isinstance(value, (list, tuple)):
            raise ArgumentError(where, f"{of} {said(value)}", f"a list of {of}")
    counts = [len(cast(Sequence[object], value)) for value in lists]
    if len(set(counts)) != 1:
        raise ArgumentError(where, f"lists of {counts} ops, peers, tags and tensors", "as many of each")


def written(x: torch.Tensor, where: str) -> torch.Tensor:
    """Return a tensor that is to be written: finished, and no copy of it, as `settled` gives of one that is conjugated.

    Raises:
        DtypeError: not a tensor, or a DTensor.
    """
    finished = settled(x, where)
    resolved = not torch.compiler.is_compiling() and (x.is_conj() or x.is_neg())
    return (x if resolved else finished).detach()


def given(receipt: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return a tensor that was sent, in flight as its receipt is."""
    return after(receipt, x, False)


def filled(arrived: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return a tensor that what arrived is to be written into, in flight as that is."""
    return after(arrived, x, True)


def after(moved: torch.Tensor, x: torch.Tensor, writes: bool) -> torch.Tensor:
    """Return a tensor that has to wait for a message, which is written into it.

    A part of a larger tensor is a view of the memory from its begin: autograd finds parts of it by their places there.
    """
    if type(moved) is not AsyncCollectiveTensor:
        return x.copy_(moved) if writes else x
    message = Message(moved, x, writes)
    if not x.storage_offset():
        like = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        return AsyncCollectiveTensor(message, like, x.device)
    last = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
    message.gives = x.as_strided((x.storage_offset() + max(0, last + 1),), (1,), 0)
    whole = AsyncCollectiveTensor(message, message.gives.to("meta"), x.device)
    return whole.as_strided(x.shape, x.stride(), x.storage_offset())


class Message:
    """A message under way that a given tensor waits for.

    Attributes:
        gives: what the wait returns, which is the tensor unless it is set to a larger one around it.
    """

    __slots__ = ("_moved", "_writes", "_x", "done", "gives")

    def __init__(self, moved: AsyncCollectiveTensor, x: torch.Tensor, writes: bool) -> None:
        self._moved, self._x, self._writes, self.done, self.gives = moved, x, writes, False, x

    def wait(self) -> torch.Tensor:
        """Wait, write what arrived the first time, and return the tensor."""
        arrived = self._moved.trigger_wait()
        if self._writes and not self.done:
            with torch_compat.as_made(arrived):
                self._x.copy_(arrived)
        self.done = True
        return self.gives
