"""What every collective of a group over shared memory does: say what it is, look at the status, name who failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import torch

from comm_core.errors import CommError
from comm_shm import codes
from comm_shm.faults import Scene, Status, fault
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

    def agree(
        self,
        collective: str,
        tensor: torch.Tensor | None = None,
        *,
        reduce_op: int = 0,
        refusal: int = 0,
        timeout_s: float | None = None,
    ) -> None:
        """Wait for every rank and check that all of them announce the same; move no data.

        Raises:
            MismatchError: they do not.
            RankTimeoutError: ranks did not arrive in time; they are named.
            RankFailedError: a rank died or left; it is named.
        """
        limit = self._timeout_s if timeout_s is None else timeout_s
        dtype = codes.UNKNOWN if tensor is None else codes.DTYPE_CODE.get(tensor.dtype, codes.UNKNOWN)
        numel = 0 if tensor is None else tensor.numel()
        code = codes.COLLECTIVE_CODE[collective]
        status = self._native.agree(self._handle, code, dtype, reduce_op, numel, 0, refusal, limit)
        if status:
            raise self._fault(status, collective, limit)

    def refuse(self, collective: str, refusal: str, error: CommError, x: torch.Tensor | None = None) -> NoReturn:
        """Tell every rank that this one will not do it, then raise the error.

        Raises:
            CommError: the given one when all ranks refuse alike, else a `MismatchError` that says who refused what.
        """
        self.agree(collective, x, refusal=codes.REFUSALS.index(refusal))
        raise error

    def _fault(self, status: int, where: str, limit: float) -> CommError:
        return fault(Status(status), self._scene(where, limit))

    def _scene(self, where: str, limit: float) -> Scene:
        states = [codes.RankState(*state) for state in self._native.states(self._handle)]
        first, pair = self._native.broken(self._handle), self._native.pair(self._handle)
        return Scene(where, self._rank, self._ranks, limit, states, first, pair)
