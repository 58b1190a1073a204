"""What every collective of a group over shared memory does: say what it is, look at the status, name who failed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import torch
import torch.distributed as dist

from comm_core.errors import CommError, MismatchError, TransportError
from comm_shm import codes
from comm_shm.entrance import opened
from comm_shm.faults import Scene, Status, fault
from comm_shm.room import WHY, NoRoom
from comm_shm.torch_compat import NamedGroup

if TYPE_CHECKING:
    from comm_shm.torch_compat import Store

GLOO = 'use new_group(backend="gloo") for this call, or name a backend for each device: "cpu:shm,cuda:nccl"'


class BackendOptions(Protocol):
    """What torch hands to a backend that is registered with the extended API."""

    store: Store
    group_rank: int
    group_size: int
    timeout: timedelta
    group_id: str
    global_ranks_in_group: list[int]


@dataclass(slots=True)
class JoinOptions:
    """Options of a group that is made without torch's help, as by `split_group`.

    Args:
        store: where the ranks meet.
        group_rank: this rank in the group.
        group_size: how many ranks it has.
        timeout: how long its collectives wait.
        group_id: its name.
        global_ranks_in_group: the global rank of each of its ranks; empty when they are not known.
    """

    store: Store
    group_rank: int
    group_size: int
    timeout: timedelta
    group_id: str
    global_ranks_in_group: list[int]


class Refused(Exception):
    """What a rank found wrong with its own call, on its way to where the other ranks are told.

    Args:
        where: the collective.
        why: one of `codes.REFUSALS`.
        error: what this rank's caller is to see.
        x: the tensor that the collective is announced with, if any.
    """

    def __init__(self, where: str, why: str, error: CommError, x: torch.Tensor | None) -> None:
        super().__init__(where, why)
        self.where, self.error = where, error
        self.code, self.refusal = codes.COLLECTIVE_CODE[where], codes.REFUSALS.index(why)
        self.dtype, self.numel = described(x)


def described(x: torch.Tensor | None) -> tuple[int, int]:
    """Return the code of a tensor's dtype and its elements, as they are announced."""
    return (codes.UNKNOWN, 0) if x is None else (codes.DTYPE_CODE.get(x.dtype, codes.UNKNOWN), x.numel())


def acquainted(options: BackendOptions) -> Callable[[], list[int]] | None:
    """Return what says which ranks of a group to come have ended, where a default group over shared memory knows it."""
    known, above = dist.group.WORLD, options.global_ranks_in_group
    if not isinstance(known, AgreeingGroup):
        return None
    return lambda: [above.index(rank) for rank in known.ended() if rank in above]


class AgreeingGroup(NamedGroup):
    """A group whose ranks compare what they are about to do before any of them does it.

    Args:
        options: store, rank, size, timeout, name and global ranks, as torch hands them to a backend.
        handle: the C core's handle of the mapped segment.
    """

    def __init__(self, options: BackendOptions, handle: Any) -> None:
        from comm_shm import _native

        super().__init__(options.group_rank, options.group_size, options.group_id)
        self._rank = options.group_rank
        self._world = options.group_size
        self._ranks = list(options.global_ranks_in_group)
        self._store = options.store
        self._timeout_s = options.timeout.total_seconds()
        self._handle = handle
        self._native = _native

    def agree(self, collective: str) -> None:
        """Wait for every rank and check that all of them announce the same; move no data.

        Raises:
            MismatchError: they do not.
            RankTimeoutError: ranks did not arrive in time; they are named.
            RankFailedError: a rank died or left; it is named.
        """
        self._announce(collective, (codes.COLLECTIVE_CODE[collective], codes.UNKNOWN, 0, 0))

    def ended(self) -> list[int]:
        """Return the ranks whose processes are known to have ended: those of other hosts are not."""
        return [rank for rank, state in enumerate(self._native.states(self._handle)) if codes.RankState(*state).dead]

    def refuse(self, where: str, why: str, error: CommError, x: torch.Tensor | None = None) -> NoReturn:
        """Give up a call that this rank has got wrong; where the call came in, the other ranks are told.

        Raises:
            Refused: always.
        """
        raise Refused(where, why, error, x)

    def open(self, where: str, value: Any) -> Any:
        """Return an argument with plain tensors only, once those in flight are there.

        Raises:
            Refused: another kind of tensor is among them.
            OnlyImagined: a FakeTensor is.
        """
        try:
            return opened(where, value)
        except TransportError as error:
            self.refuse(where, "not a plain tensor", error)

    def tell(self, refused: Refused, later: bool) -> NoReturn:
        """Tell every rank that this one refuses a call, then raise the error.

        A call that waits first hears what the others have to say; one that is started leaves word and goes on.

        Raises:
            CommError: the refusal's own error when the call is started, or when all ranks refuse alike; else a
                `MismatchError` that says who refused what.
        """
        said = refused.code, refused.dtype, refused.numel, refused.refusal
        if not later:
            self._announce(refused.where, said)
        else:
            request: Any = None
            with contextlib.suppress(OSError):  # no thread is left that could tell them
                request = self._native.refuse(self._handle, *said, self._timeout_s)
            if isinstance(request, int):  # the group cannot be used
                raise self._fault(request, refused.where, self._timeout_s)
        raise refused.error from refused.error.__cause__

    def tell_of_room(self, where: str, none: NoRoom, later: bool) -> NoReturn:
        """Tell every rank that this one has no room for the copies of a call, then raise an error with the numbers.

        Raises:
            CommError: a `TransportError`, also where the other ranks have called the same and get a `MismatchError`.
        """
        error = none.error(where)
        error.__cause__ = none.__cause__
        with contextlib.suppress(MismatchError):  # it tells this rank no more than what it has said itself
            self.tell(Refused(where, WHY, error, None), later)
        raise error

    def _announce(self, where: str, said: tuple[int, int, int, int]) -> None:
        code, dtype, numel, refusal = said
        status = self._native.agree(self._handle, code, dtype, 0, numel, 0, refusal, self._timeout_s)
        if status:
            raise self._fault(status, where, self._timeout_s)

    def _fault(self, status: int, where: str, limit: float) -> CommError:
        return fault(Status(status), self._scene(where, limit))

    def _scene(self, where: str, limit: float) -> Scene:
        states = [codes.RankState(*state) for state in self._native.states(self._handle)]
        first, pair = self._native.broken(self._handle), self._native.pair(self._handle)
        return Scene(where, self._rank, self._ranks, limit, states, first, pair)
