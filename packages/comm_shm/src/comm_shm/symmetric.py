"""Symmetric memory between the ranks of one machine: tensors that every rank of a group has mapped.

`empty` gives a tensor, `rendezvous` its handle. It works for groups of any backend whose ranks are on one machine, and
groups on backend `"shm"` give it to `comm_core.symmetric_memory` too.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from comm_core.errors import ArgumentError, TransportError, said
from comm_core.groups import AnyGroup, GroupLike, as_group
from comm_shm.allocation import Allocation, allocate
from comm_shm.control import Control, open_control
from comm_shm.entrance import OnlyImagined, opened
from comm_shm.shared_buffer import SharedBuffer, view_of

_DEFAULT_TIMEOUT_S = 1800.0  # torch's own for groups that say nothing
_memories: weakref.WeakKeyDictionary[dist.ProcessGroup, SharedMemory] = weakref.WeakKeyDictionary()


class SharedMemory:
    """The symmetric memory of a group on one machine; `memory_of` gives it.

    Args:
        control: where the ranks meet.
    """

    def __init__(self, control: Control) -> None:
        self.rank = control.rank
        self.world = control.world
        self._control = control
        self._numbers = itertools.count(1)
        self._by_address: dict[int, Allocation] = {}

    def empty(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a tensor that every rank of the group can reach, once all of them have asked for it.

        It is an ordinary CPU tensor: autograd, views, saving and copying work as always. Its memory is zero at first,
        and is given back when no rank has a tensor or handle of it any more; the group need not exist any more. A
        forked child shares the tensors it inherits. `share_memory_()`, and sending it through a queue of
        torch.multiprocessing, move it out of symmetric memory, and its handle says so.

        Args:
            shape: the same on every rank.
            dtype: the same on every rank; torch's default by default.

        Raises:
            MismatchError: the ranks asked for different shapes or dtypes; on every rank, nothing was allocated.
            TransportError: there is not enough memory; on every rank, with the numbers, and nothing is lost.
            ArgumentError: this is no shape or dtype; the other ranks get a `MismatchError`.
        """
        allocation, mapping = allocate(self._control, next(self._numbers), shape, dtype)
        x = torch.empty(tuple(shape), dtype=dtype, device="meta")
        made = view_of(mapping, x.dtype, allocation.layout.part(self.rank), x.numel()).view(x.shape)
        place = made.untyped_storage().data_ptr()
        self._by_address[place] = allocation
        weakref.finalize(mapping, self._by_address.pop, place, None)
        return made

    def rendezvous(self, x: torch.Tensor) -> SharedBuffer:
        """Return the handle of a tensor that `empty` made, or of a contiguous part of it; no rank waits.

        Raises:
            ArgumentError: this memory did not make it, or it has moved since.
            TransportError: it is made of other tensors.
        """
        try:
            x = opened("rendezvous", x)
            place = x.untyped_storage().data_ptr() if x.is_cpu else 0
        except (OnlyImagined, RuntimeError):  # the latter is torch's word for a tensor without storage
            place = 0
        allocation = self._by_address.get(place)
        mapping = allocation.mapping() if allocation is not None else None
        if allocation is None or mapping is None or not x.is_contiguous():
            raise ArgumentError(
                "rendezvous",
                got="a part that is not contiguous" if mapping is not None else said(x),
                need="a tensor that empty() made for this group, or a contiguous part of one",
                hint="share_memory_() and torch.multiprocessing move a tensor elsewhere",
            )
        return SharedBuffer(self._control, allocation, mapping, x)


def memory_of(group: GroupLike = None, timeout: timedelta | None = None) -> SharedMemory:
    """Return the symmetric memory of a group whose ranks are on one machine; every rank of it asks.

    Args:
        group: the group, in any spelling, on any backend.
        timeout: how long its calls wait for the other ranks; the group's timeout by default. The first call counts.

    Raises:
        TransportError: the ranks are on several machines, or this one has no shared memory; on every rank.

    Example:
        >>> from comm_core.testing import run_ranks
        >>> def body(group):
        ...     import comm_shm.symmetric
        ...     memory = comm_shm.symmetric.memory_of(group)
        ...     x = memory.empty((2,)).fill_(group.rank + 1.0)
        ...     return memory.rendezvous(x).two_shot_all_reduce().tolist()
        >>> run_ranks(body, world=2)
        [[3.0, 3.0], [3.0, 3.0]]
    """
    found = as_group(group)
    made = found.process_group
    memory = _memories.get(made)
    if memory is None:
        limit = timeout.total_seconds() if timeout is not None else getattr(made, "_timeout_s", _DEFAULT_TIMEOUT_S)
        memory = _memories[made] = SharedMemory(open_control(_checked(found), limit))
    return memory


def empty(shape: Sequence[int], dtype: torch.dtype | None = None, group: GroupLike = None) -> torch.Tensor:
    """Return a tensor that every rank of a group can reach; every rank asks for the same. See `SharedMemory.empty`.

    Raises:
        MismatchError: the ranks asked for different shapes or dtypes; on every rank.
        TransportError: there is not enough memory, or the ranks cannot share it; on every rank.

    Example:
        >>> from comm_core.testing import run_ranks
        >>> def body(group):
        ...     from comm_shm import symmetric
        ...     x = symmetric.empty((3,), torch.int64, group)
        ...     return x.tolist()
        >>> run_ranks(body, world=2, backend="shm")
        [[0, 0, 0], [0, 0, 0]]
    """
    return memory_of(group).empty(shape, dtype)


def rendezvous(x: torch.Tensor, group: GroupLike = None) -> SharedBuffer:
    """Return the handle of a tensor that `empty` made for a group, or of a contiguous part of it.

    Raises:
        ArgumentError: it was not made for this group.

    Example:
        >>> from comm_core.testing import run_ranks
        >>> def body(group):
        ...     from comm_shm import symmetric
        ...     x = symmetric.empty((1,), torch.int64, group).fill_(10 + group.rank)
        ...     return symmetric.rendezvous(x, group).all_gather().tolist()
        >>> run_ranks(body, world=2, backend="shm")
        [[[10], [11]], [[10], [11]]]
    """
    return memory_of(group).rendezvous(x)


def _checked(group: AnyGroup) -> AnyGroup:
    """Return a group that may have symmetric memory, as far as every rank can see alone."""
    hosts = getattr(group.process_group, "hosts", None)
    if hosts is not None:
        got = f"ranks on {len(hosts.members)} hosts: {'; '.join(map(str, map(list, hosts.members)))}"
        hint = "make a group of the ranks of each host with new_group"
        raise TransportError("symmetric memory", got=got, need="ranks on one host", hint=hint)
    if group.is_simulated:
        need, hint = "a process group", "comm_core.symmetric_memory(group) gives a simulated group's memory"
        raise ArgumentError("symmetric memory", got="a simulated group", need=need, hint=hint)
    return group
