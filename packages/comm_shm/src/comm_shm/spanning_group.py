"""The c10d process group of ranks on several hosts: shared memory inside each, gloo between them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from comm_core import compat
from comm_core.errors import CommError, TransportError, first_line
from comm_shm import rendezvous
from comm_shm.across import Across
from comm_shm.agreement import BackendOptions
from comm_shm.distant_mail import Letter
from comm_shm.faults import Status
from comm_shm.group import SharedMemoryGroup, joined
from comm_shm.hosts import Hosts, split
from comm_shm.inside import Inside
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


def create(options: BackendOptions, cards: Sequence[Card]) -> SpanningGroup:
    """Return the group of ranks that are not all on one host, once every rank of it has joined.

    Raises:
        TransportError: the hosts cannot reach each other, or shared memory cannot be used on one of them.
        RankTimeoutError: some ranks did not come.
        RankFailedError: a rank ended before it had joined.
    """
    rank = options.group_rank
    layout = _reachable(options, cards)
    hosts = Hosts(layout, rank)
    handle, name = _shared(options, hosts, cards)
    store = prefixed(f"shm/{name}", options.store)
    try:
        speakers = (
            gloo_group(prefixed("speakers", store), hosts.here, len(layout), options.timeout) if hosts.speaks else None
        )
        everyone = gloo_group(prefixed("everyone", store), rank, len(cards), options.timeout)
    except RuntimeError as error:
        got = f"no connection between the hosts: {first_line(error)}"
        need, hint = "hosts that reach each other by TCP", "GLOO_SOCKET_IFNAME names the network interface to use"
        raise TransportError(_WHERE, got=got, need=need, hint=hint) from error
    inside = Inside(handle, hosts, list(options.global_ranks_in_group))
    group = SpanningGroup(options, Spanning(inside, Across(hosts, speakers, everyone, store)))
    try:
        joined(group, options)
    except BaseException:
        group.shutdown()
        raise
    return group


def _reachable(options: BackendOptions, cards: Sequence[Card]) -> tuple[tuple[int, ...], ...]:
    """Return the ranks of each host: of those that may share memory, the ones that can open each other's."""
    from comm_shm import segment

    rank, layout = options.group_rank, split(cards)
    mine = next(ranks for ranks in layout if rank in ranks)
    memfd, name = segment.create_file(1) if rank == mine[0] else (-1, "")
    try:
        offers = _exchanged(options, replace(cards[rank], memfd=memfd, segment=name))
        alone = ""
        if rank != mine[0]:
            try:
                os.close(segment.fetch(offers[mine[0]]))
            except TransportError as error:
                alone = error.got
        answers = _exchanged(options, replace(cards[rank], segment=alone))
    finally:
        if memfd >= 0:
            os.close(memfd)
    return split(cards, [peer for peer, card in enumerate(answers) if card.segment])


def _shared(options: BackendOptions, hosts: Hosts, cards: Sequence[Card]) -> tuple[Any, str]:
    """Return the C core's handle of the segment of this rank's host, and a name that no other group has."""
    from comm_shm import segment

    memfd, name, missing = -1, "", None
    if hosts.speaks:
        try:
            memfd, name = segment.create(len(hosts.mine))
        except TransportError as error:
            missing = str(error)
    try:
        offers = _exchanged(options, replace(cards[hosts.rank], memfd=memfd, segment=name, why_not=missing))
        impossible = rendezvous.unable(offers)
        if impossible is not None:
            raise impossible
        near = [offers[rank] for rank in hosts.mine]
        if not hosts.speaks:
            memfd = segment.fetch(near[0])
        handle = segment.attach(memfd, near, hosts.local)
        _exchanged(options, cards[hosts.rank])  # until then the descriptor is needed
        return handle, offers[0].segment
    finally:
        if memfd >= 0:
            os.close(memfd)


def _exchanged(options: BackendOptions, card: Card) -> list[Card]:
    return rendezvous.exchange(options.store, options.group_rank, options.group_size, card, options.timeout)
