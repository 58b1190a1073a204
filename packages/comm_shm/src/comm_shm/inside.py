"""The ranks of one host of a group that spans several: collectives in shared memory, on raw bytes."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from comm_core.errors import CommError
from comm_shm.codes import COLLECTIVE_CODE, DTYPES, PREMUL_SUM, REDUCE_OPS, UNKNOWN, RankState
from comm_shm.faults import Scene, Status, fault
from comm_shm.hosts import Hosts

_CODE = COLLECTIVE_CODE["barrier"]  # of every call in here: what the ranks do is agreed before, across all hosts
NOTHING = (0, 0, 0, 0, 0, 0, 0)  # what a rank has announced before its first collective
_SUM, _AVG = REDUCE_OPS.index("sum"), REDUCE_OPS.index("avg")


class Call(NamedTuple):
    """A collective as the C core is given it; the addresses are of memory that the caller keeps."""

    code: int
    dtype: int
    numel: int
    detail: int
    x: int
    out: int
    last: int
    limit: float

    @property
    def reduces(self) -> int:
        """The reduce op that hosts combine with: an average is a sum that is divided at the end."""
        return _SUM if self.last in (_AVG, PREMUL_SUM) else self.last


class Inside:
    """What the ranks of this host do among themselves.

    Args:
        handle: the C core's handle of the segment of this host.
        hosts: the hosts of the group.
        ranks: the global rank of each rank of the group, for messages.
    """

    def __init__(self, handle: Any, hosts: Hosts, ranks: Sequence[int]) -> None:
        from comm_shm import _native

        self.handle = handle
        self.native: Any = _native
        self.hosts = hosts
        self.ranks = ranks
        self.said: list[tuple[int, ...]] = [NOTHING] * hosts.world
        self.where = "join"

    def all_gather(self, x: torch.Tensor, limit: float, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the bytes of every rank of this host, one row for each."""
        out = torch.empty((len(self.hosts.mine), x.numel()), dtype=torch.uint8) if out is None else out
        self._check(
            self.native.all_gather(self.handle, _CODE, UNKNOWN, x.numel(), 0, x.data_ptr(), out.data_ptr(), 1, limit),
            limit,
        )
        return out

    def all_gather_alike(self, x: torch.Tensor, limit: float) -> torch.Tensor | None:
        """Return the bytes of every rank of this host, None where they bring different numbers of them."""
        out = torch.empty((len(self.hosts.mine), x.numel()), dtype=torch.uint8)
        given = (_CODE, UNKNOWN, x.numel(), 0, x.data_ptr(), out.data_ptr(), 1, limit)
        status = self.native.all_gather(self.handle, *given)
        if status == Status.MISMATCH:
            return None
        self._check(status, limit)
        return out

    def broadcast(self, x: torch.Tensor, limit: float, root: int = 0) -> None:
        """Copy the bytes of one rank of this host, by default the one that speaks for it, to the others."""
        at = x.data_ptr()
        self._check(self.native.broadcast(self.handle, _CODE, UNKNOWN, x.numel(), root, at, at, 1, limit), limit)

    def all_reduce(self, x: torch.Tensor, numel: int, kind: tuple[int, int], limit: float) -> None:
        """Reduce in place; `kind` is the code of a dtype and that of a reduce op."""
        dtype, reduce_op = kind
        at = x.data_ptr()
        status = self.native.all_reduce_one_of(self.handle, _CODE, dtype, numel, 0, at, at, reduce_op, limit)
        self._check(status, limit)

    def all_to_all(self, x: torch.Tensor, out: torch.Tensor, splits: Sequence[int], limit: float) -> None:
        """Exchange bytes: `splits` says how many go to each rank of this host, then how many come from each."""
        counts = array("Q", [*splits, 0])
        address = counts.buffer_info()[0]
        self._check(
            self.native.all_to_all(self.handle, _CODE, UNKNOWN, 0, address, x.data_ptr(), out.data_ptr(), 1, limit),
            limit,
        )

    def fold(self, out: torch.Tensor, parts: Sequence[torch.Tensor], call: Call) -> None:
        """Reduce parts in their order, in this rank alone; an average is only summed."""
        sources = [part.data_ptr() for part in parts]
        numel = out.numel() // DTYPES[call.dtype].itemsize
        self.native.reduce_here(out.data_ptr(), sources, numel, call.dtype, call.reduces)

    def divide(self, data: torch.Tensor, call: Call) -> None:
        """Make the sum of all ranks an average, where that is what was asked for."""
        if call.last == _AVG and data.numel():
            x = data.view(DTYPES[call.dtype])
            (torch.view_as_real(x) if x.is_complex() else x).div_(self.hosts.world)

    def states(self) -> list[RankState]:
        """Return what is known of every rank of the group: of other hosts' only what they announced last."""
        here = dict(zip(self.hosts.mine, self.native.states(self.handle), strict=False))
        return [RankState(*here.get(rank, (0, 0, 0))[:3], *said) for rank, said in enumerate(self.said)]

    def fault(self, status: int, limit: float) -> CommError:
        """Return the error for a status, with the ranks' numbers in the whole group."""
        code, first = self.native.broken(self.handle)
        rank = self.hosts.mine[first] if code else 0
        scene = Scene(self.where, self.hosts.rank, self.ranks, limit, self.states(), (code, rank))
        return fault(Status(status), scene)

    def _check(self, status: int, limit: float) -> None:
        if status:
            raise self.fault(status, limit)


def memory(address: int, count: int) -> torch.Tensor:
    """Return bytes that stand at an address as a tensor; who gives the address keeps them.

    Example:
        >>> x = torch.arange(3, dtype=torch.uint8)
        >>> memory(x.data_ptr(), 3).tolist()
        [0, 1, 2]
    """
    import ctypes

    if count == 0:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer((ctypes.c_ubyte * count).from_address(address), dtype=torch.uint8)
