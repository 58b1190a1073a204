"""What every collective of a group over shared memory does: say what it is, look at the status, name who failed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import torch

from comm_core.errors import CommError, TransportError
from comm_shm import codes
from comm_shm.faults import Scene, Status, fault
from comm_shm.torch_compat import NamedGroup

if TYPE_CHECKING:
    from comm_shm.torch_compat import Store

OFFERED = "a collective that shm has (all but send, recv and allgather_coalesced), of CPU tensors"
GLOO = 'until shm has it, use new_group(backend="gloo") for this call'

Native = Callable[[Any, int, int, int, int, int, int, int, float], int]


class BackendOptions(Protocol):
    """What torch hands to a backend that is registered with the extended API."""

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

    def refuse_together(self, collective: str) -> NoReturn:
        """Refuse a collective of the whole group, on every rank of it.

        Raises:
            TransportError: always, unless the ranks do not agree on what they called.
        """
        self.agree(collective, refusal=1)
        self.refuse_alone(collective)

    def refuse_alone(self, operation: str) -> NoReturn:
        """Refuse an operation that not every rank takes part in.

        Raises:
            TransportError: always.
        """
        raise TransportError(operation, got='a group on backend "shm"', need=OFFERED, hint=GLOO)

    def _limit(self, opts: Any, timeout: timedelta | None) -> float:
        """Return the seconds to wait: of the call, else of its options, else of the group."""
        given = timeout if timeout is not None else getattr(opts, "timeout", None)
        return given.total_seconds() if given is not None and given > timedelta(0) else self._timeout_s

    def _fault(self, status: int, where: str, limit: float) -> CommError:
        states = [codes.RankState(*state) for state in self._native.states(self._handle)]
        first, pair = self._native.broken(self._handle), self._native.pair(self._handle)
        return fault(Status(status), Scene(where, self._rank, self._ranks, limit, states, first, pair))
