"""Between hosts: bytes over gloo, and one error for all ranks when something breaks.

Two gloo groups: of the ranks that speak for their hosts, and of all ranks, for what goes from one rank to another. A
rank that fails writes its error into the store, unless one stands there, and closes its connections: whoever waits for
it finds them closed, looks into the store, and raises the error that stands there. So every rank raises the first one.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from comm_core import errors
from comm_core.errors import CommError, RankFailedError, RankTimeoutError, first_line
from comm_shm.faults import REBUILD, Scene
from comm_shm.hosts import Hosts

if TYPE_CHECKING:
    from comm_shm.torch_compat import Store

GRACE_S = 2.0  # who is told of a late rank by its own host need not guess
_FAULT = "shm/fault"
_TAGS = 1 << 30  # gloo's tags below this are of messages, see distant_mail.py


class Across:
    """The connections of this rank to other hosts.

    Args:
        hosts: the hosts of the group.
        speakers: gloo's group of the ranks that speak for their hosts; None on the others.
        everyone: gloo's group of all ranks.
        store: where the first error is written.
    """

    def __init__(self, hosts: Hosts, speakers: Any, everyone: Any, store: Store) -> None:
        self.hosts = hosts
        self.everyone = everyone
        self._speakers = speakers
        self._store = store
        self._swaps = 0
        self._trades = 0

    def swap(
        self, outgoing: Mapping[int, torch.Tensor], incoming: Mapping[int, torch.Tensor], scene: Scene, limit: float
    ) -> None:
        """Send bytes to other hosts and receive bytes from them; called by the ranks that speak for them.

        Raises:
            RankTimeoutError: they did not come in time.
            RankFailedError: the connection was closed.
        """
        self._swaps += 1
        names = [ranks[0] for ranks in self.hosts.members]
        wire = Wire(self._speakers, self._swaps % _TAGS, names, scene)
        wire.exchange(outgoing, incoming, limit)

    def trade(
        self, outgoing: Mapping[int, torch.Tensor], incoming: Mapping[int, torch.Tensor], scene: Scene, limit: float
    ) -> None:
        """Send bytes to ranks and receive bytes from ranks, directly."""
        self._trades += 1
        wire = Wire(self.everyone, _TAGS + self._trades % _TAGS, range(self.hosts.world), scene)
        wire.exchange(outgoing, incoming, limit)

    def first(self, error: CommError) -> CommError:
        """Return the error that the first rank wrote that failed: this one, if that is this rank."""
        kind = next(name for name in vars(errors) if getattr(errors, name) is type(error))
        mine = json.dumps([kind, error.where, error.got, error.need, error.hint])
        try:
            told = json.loads(self._store.compare_set(_FAULT, "", mine))
        except (RuntimeError, ValueError):  # the store went with the rank that served it
            return error
        found: CommError = getattr(errors, told[0])(*told[1:])
        return found

    def close(self) -> None:
        """Close the connections; who waits for this rank notices."""
        for group in (self._speakers, self.everyone):
            if group is not None:
                group.shutdown()
        self._speakers = self.everyone = None


class Wire(NamedTuple):
    """One exchange over gloo."""

    gloo: Any
    """The gloo group."""
    tag: int
    """What tells it from others."""
    names: Sequence[int]
    """For each rank of the gloo group, the rank that it is."""
    scene: Scene
    """What an error says."""

    def exchange(
        self, outgoing: Mapping[int, torch.Tensor], incoming: Mapping[int, torch.Tensor], limit: float
    ) -> None:
        """Send to and receive from ranks of the gloo group.

        Raises:
            RankTimeoutError: a rank did not come in time.
            RankFailedError: its connection is closed.
        """
        deadline, works = time.monotonic() + limit, []
        for start, tensors in ((self.gloo.recv, incoming), (self.gloo.send, outgoing)):
            for peer, x in tensors.items():
                if x.numel():
                    with self._naming(peer, deadline):
                        works.append((peer, start([x], peer, self.tag)))
        for peer, work in works:
            with self._naming(peer, deadline):
                work.wait(timedelta(seconds=max(deadline - time.monotonic(), 0.001)))

    @contextlib.contextmanager
    def _naming(self, peer: int, deadline: float) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise lost(self.names[peer], self.scene, error, late=time.monotonic() >= deadline) from error


def lost(rank: int, scene: Scene, error: Exception, *, late: bool) -> CommError:
    """Return the error for a rank of another host that cannot be reached."""
    who, need = scene.name(rank), "every rank of the group to make this call"
    if late:
        got = f"no arrival within {scene.timeout_s:g} s of {who}, on another host"
        return RankTimeoutError(scene.where, got=got, need=need, hint=f"see where it is; then {REBUILD}")
    got = f"{who}, on another host, which has ended or cannot be reached ({first_line(error)[:120]})"
    return RankFailedError(scene.where, got=got, need=need, hint=f"look at its output; then {REBUILD}")
