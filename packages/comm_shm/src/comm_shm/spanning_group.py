"""The c10d process group of ranks on several hosts: shared memory inside each, gloo between them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch

from comm_core import compat
from comm_core.errors import CommError, TransportError, first_line
from comm_shm import rendezvous
from comm_shm.across import GRACE_S, Across
from comm_shm.agreement import BackendOptions
from comm_shm.distant_mail import Letter
from comm_shm.doors import Door
from comm_shm.faults import Status
from comm_shm.group import SharedMemoryGroup, joined
from comm_shm.hosts import Hosts, split
from comm_shm.inside import Inside
from comm_shm.making import ENDING_S, Making
from comm_shm.rendezvous import Card
from comm_shm.spanning import Spanning
from comm_shm.spanning_native import SpanningNative
from comm_shm.torch_compat import gloo_group, prefixed
from comm_shm.turns import Request
from comm_shm.work import Started

_WHERE = 'backend "shm"'


@compat.opaque
class SpanningGroup(SharedMemoryGroup):
    """A group whose ranks are on several hosts, with everything that a group on one host has.

    Errors are the same on every rank of every host. Reduction is in rank order inside a host, then in the order of the
    hosts' first ranks, so its bits may differ from those of the same ranks on one host.

    Args:
        options: store, rank, size, timeout, name and global ranks, as torch hands them to a backend.
        spanning: the collectives between these ranks.
    """

    def __init__(self, options: BackendOptions, spanning: Spanning) -> None:
        super().__init__(options, spanning.inside.handle)
        self.hosts = spanning.hosts
        self._spanning = spanning
        self._native: Any = SpanningNative(spanning)
        self._all_reduce = _the_long_way

    def failure(self, status: int, started: Started, limit: float) -> CommError:
        """Return the error for a status."""
        request = started.request
        if isinstance(request, Request) and request.error is not None:
            return request.error
        if started.message and status == Status.BROKEN:
            return self._fault(status, started.where, limit)
        return super().failure(status, started, limit)

    def _fault(self, status: int, where: str, limit: float) -> CommError:
        if status == Status.BROKEN:  # the first rank that failed has said why
            return self._spanning.across.told() or self._spanning.inside.fault(status, limit)
        return super()._fault(status, where, limit)

    def _posted(self, where: str, flat: torch.Tensor, address: tuple[int, int]) -> Started:
        started = super()._posted(where, flat, address)
        if isinstance(started.request, Letter):
            started.request.keep = started.keep
        return started


def _the_long_way(*_given: object) -> int:
    return -1  # the C core's answer where it has no short one


def create(options: BackendOptions, cards: Sequence[Card], door: Door) -> SpanningGroup:
    """Return the group of ranks that are not all on one host, once every rank of it has joined.

    Raises:
        TransportError: the hosts cannot reach each other, or shared memory cannot be used on one of them.
        RankTimeoutError: some ranks did not come.
        RankFailedError: a rank ended before it had joined, or gave the group up.
    """
    making = Making(options, cards, door)
    try:
        making.watch()
        return _created(options, cards, making)
    except BaseException as error:
        told = making.give_up(error)
        if told is error:
            raise
        raise told from error
    finally:
        making.close()


def _created(options: BackendOptions, cards: Sequence[Card], making: Making) -> SpanningGroup:
    hosts = Hosts(_reachable(making, cards, options.group_rank), options.group_rank)
    handle, name, memfd = _shared(making, hosts, cards)
    try:
        speakers, everyone = _connected(making, hosts, options.timeout)
        across = Across(hosts, speakers, everyone, prefixed(f"shm/{name}", options.store))
        making.undo = across.close  # an error on its way up would keep the connections open
        # Until all are here the descriptor is needed, and connections may be left open by who has given up.
        making.exchange(cards[hosts.rank], GRACE_S)
    finally:
        os.close(memfd)
    inside = Inside(handle, hosts, list(options.global_ranks_in_group))
    group = SpanningGroup(options, Spanning(inside, across))
    making.undo = group.shutdown
    joined(group, options)
    making.forget()
    return group


def _connected(making: Making, hosts: Hosts, timeout: timedelta) -> tuple[Any, Any]:
    """Return gloo's groups of the ranks that speak for their hosts, None on the others, and of all ranks."""

    def connect() -> tuple[Any, Any]:
        everyone = gloo_group(making.store("everyone", range(hosts.world)), hosts.rank, hosts.world, timeout)
        if not hosts.speaks:
            return None, everyone
        first = [ranks[0] for ranks in hosts.members]
        return gloo_group(making.store("speakers", first), hosts.here, len(first), timeout), everyone

    try:
        groups: tuple[Any, Any] = making.beside(connect)
    except CommError:
        raise
    except RuntimeError as error:
        got = f"no connection between the hosts: {first_line(error)}"
        need, hint = "hosts that reach each other by TCP", "GLOO_SOCKET_IFNAME names the network interface to use"
        raise TransportError(_WHERE, got=got, need=need, hint=hint) from error
    return groups


def _reachable(making: Making, cards: Sequence[Card], rank: int) -> tuple[tuple[int, ...], ...]:
    """Return the ranks of each host: of those that may share memory, the ones that can open each other's."""
    from comm_shm import segment

    mine = next(ranks for ranks in split(cards) if rank in ranks)
    memfd, name = segment.create_file(1) if rank == mine[0] else (-1, "")
    try:
        offers = making.exchange(replace(cards[rank], memfd=memfd, segment=name))
        alone = ""
        if rank != mine[0]:
            try:
                os.close(segment.fetch(offers[mine[0]]))
            except TransportError as error:
                making.look()
                alone = error.got
        answers = making.exchange(replace(cards[rank], segment=alone))
    finally:
        if memfd >= 0:
            os.close(memfd)
    return split(cards, [peer for peer, card in enumerate(answers) if card.segment])


def _shared(making: Making, hosts: Hosts, cards: Sequence[Card]) -> tuple[Any, str, int]:
    """Return the C core's handle of the segment of this rank's host, a name that no other group has, the descriptor."""
    from comm_shm import segment

    memfd, name, missing = -1, "", None
    if hosts.speaks:
        try:
            memfd, name = segment.create(len(hosts.mine))
        except TransportError as error:
            missing = str(error)
    try:
        offers = making.exchange(replace(cards[hosts.rank], memfd=memfd, segment=name, why_not=missing))
        impossible = rendezvous.unable(offers)
        if impossible is not None:
            raise impossible
        near = [offers[rank] for rank in hosts.mine]
        try:
            if not hosts.speaks:
                memfd = segment.fetch(near[0])
            return segment.attach(memfd, near, hosts.local), offers[0].segment, memfd
        except CommError:
            making.look(ENDING_S)  # a rank that has ended is named by its number in the group
            raise
    except BaseException:
        if memfd >= 0:
            os.close(memfd)
        raise
