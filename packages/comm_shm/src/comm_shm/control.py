"""Where the ranks of a group meet over memory that they share beside the group: a small segment of its own.

It has the flags, headers and fault reports of a group's segment and next to no room for data. The group itself is used
to make it, and not afterwards: what is agreed here never stands between two collectives of the group.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from comm_core.errors import CommError, TransportError
from comm_core.groups import AnyGroup
from comm_shm import codes, rendezvous
from comm_shm.availability import why_not
from comm_shm.faults import Scene, Status, fault

_SLOT_BYTES = 4096
_NOTE_BYTES = 2048  # what a rank tells the others at once
_TELL = codes.COLLECTIVE_CODE["symmetric empty"]
_WHERE = "symmetric memory"


class Control:
    """Ranks that can meet, tell each other something short, and be told who is missing.

    Args:
        group: the group whose ranks they are.
        cards: who each rank is.
        handle: the C core's handle of the mapped segment; closed when nobody holds this any more.
        timeout_s: how long to wait for the other ranks.
    """

    def __init__(self, group: AnyGroup, cards: Sequence[rendezvous.Card], handle: Any, timeout_s: float) -> None:
        from comm_shm import _native

        self.rank = group.rank
        self.world = group.world
        self.cards = cards
        self.handle = handle
        self.timeout_s = timeout_s
        self._ranks = group.ranks
        self.native = _native

    def tell(self, note: dict[str, Any]) -> list[dict[str, Any]]:
        """Give every rank's note to every rank.

        Raises:
            MismatchError: other ranks called something else.
            RankTimeoutError, RankFailedError: ranks did not come.
        """
        mine = bytearray(json.dumps(note).encode()[:_NOTE_BYTES].ljust(_NOTE_BYTES))
        everyones = bytearray(_NOTE_BYTES * self.world)
        status = self.native.all_gather(
            self.handle, _TELL, codes.UNKNOWN, _NOTE_BYTES, 0, _address(mine), _address(everyones), 1, self.timeout_s
        )
        self.check(status, "symmetric empty", self.timeout_s)
        return [json.loads(everyones[at : at + _NOTE_BYTES]) for at in range(0, len(everyones), _NOTE_BYTES)]

    def check(self, status: int, where: str, limit: float) -> None:
        """Raise what a status of the C core stands for."""
        if status:
            raise self.fault(status, where, limit)

    def fault(self, status: int, where: str, limit: float, awaited: Sequence[int] = ()) -> CommError:
        """Return the error for a status; it names the ranks that are missing, or those that were waited for."""
        states = self.states()
        first = self.native.broken(self.handle)
        return fault(Status(status), Scene(where, self.rank, self._ranks, limit, states, first, awaited=awaited))

    def states(self) -> list[codes.RankState]:
        """Return what each rank announced last."""
        return [codes.RankState(*state) for state in self.native.states(self.handle)]


def open_control(group: AnyGroup, timeout_s: float) -> Control:
    """Return where the ranks of a group meet, once all of them have it; every rank calls this.

    Raises:
        TransportError: the ranks cannot share memory; on every rank.
    """
    memfd, name, missing = -1, "", why_not()
    if missing is None and group.rank == 0:
        from comm_shm import segment  # needs the extension

        try:
            memfd, name = segment.create(group.world, _SLOT_BYTES)
        except TransportError as error:
            missing = str(error)
    try:
        cards = _exchanged(group, rendezvous.own_card(missing, memfd, name))
        impossible = rendezvous.refusal(cards)
        if impossible is not None:
            raise TransportError(_WHERE, got=impossible.got, need=impossible.need or "ranks that can share memory")
        handle, failed = None, None
        try:
            handle = _attached(cards, group.rank, memfd)
        except CommError as error:
            failed = error
        for failure in _exchanged(group, failed):
            if failure is not None:
                raise failure
    finally:
        if memfd >= 0:
            os.close(memfd)
    return Control(group, cards, handle, timeout_s)


def _attached(cards: Sequence[rendezvous.Card], rank: int, memfd: int) -> Any:
    from comm_shm import segment

    fetched = segment.fetch(cards[0]) if rank else -1
    try:
        return segment.attach(fetched if rank else memfd, cards, rank, _SLOT_BYTES)
    finally:
        if fetched >= 0:
            os.close(fetched)


def _exchanged(group: AnyGroup, mine: Any) -> list[Any]:
    """Give what each rank has to every rank, over the group itself."""
    everyones: list[Any] = [None] * group.world
    dist.all_gather_object(everyones, mine, group=group.process_group)
    return everyones


def _address(data: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(data)).from_buffer(data))
