"""The default process group of a rank: made from a fresh part of the pool's store, destroyed after the run."""

from __future__ import annotations

import importlib.metadata
import queue
import socket
import threading
from datetime import timedelta
from functools import cache, lru_cache
from typing import Any

import torch.distributed as dist

from comm_core.groups import AnyGroup, as_group
from comm_core.testing import rank_compat
from comm_core.testing.wire import RunOrder

_LONGER_THAN_THE_RUN_S = 5.0  # so that the pool, which knows who is missing, speaks before the backend does
_CLOSERS = 8
_hosted: list[Any] = []


def make_default_group(order: RunOrder) -> AnyGroup:
    """Initialise torch.distributed for one run and return its default group."""
    if "fake" in order.backend:
        rank_compat.register_fake_backend()
    wanted = {part.rpartition(":")[2] for part in order.backend.split(",")}
    if not wanted <= set(dist.Backend.backend_list):
        _load_backends()
    limit = timedelta(seconds=order.timeout + _LONGER_THAN_THE_RUN_S)
    store = dist.PrefixStore(order.name, _store(order.store_port))  # type: ignore[attr-defined]
    store.set_timeout(limit)
    dist.init_process_group(order.backend, store=store, rank=order.rank, world_size=order.world, timeout=limit)
    return as_group(None)


class GroupCloser:
    """Destroys groups; their sockets and threads, which take 10 to 20 ms to end, end on threads of its own."""

    def __init__(self) -> None:
        self._released: queue.Queue[list[object]] = queue.Queue(maxsize=_CLOSERS)
        for _ in range(_CLOSERS):
            threading.Thread(target=self._close_groups, name="commbook group closer", daemon=True).start()

    def close(self) -> None:
        """Destroy every process group of this process, if there are any."""
        if not dist.is_initialized():
            return
        groups = rank_compat.all_groups()
        dist.destroy_process_group()
        self._released.put(groups)

    def _close_groups(self) -> None:
        while True:
            self._released.get().clear()


@cache
def host_store() -> int:
    """Serve a store on a loopback port for the runs in which this process is rank 0, and return the port."""
    with socket.socket() as listening:  # bound here, because the store would listen on every interface
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port = int(listening.getsockname()[1])
        options: dict[str, Any] = {"is_master": True, "wait_for_workers": False}
        _hosted.append(_tcp_store(port, master_listen_fd=listening.detach(), **options))
    return port


@lru_cache(maxsize=1)
def _store(port: int) -> Any:
    return _tcp_store(port, is_master=False, wait_for_workers=False)


def _tcp_store(port: int, **options: Any) -> Any:
    return dist.TCPStore("127.0.0.1", port, **options)  # type: ignore[attr-defined]


def _load_backends() -> None:
    """Run the entry points by which installed packages register backends, where torch was told not to at import."""
    for entry_point in importlib.metadata.entry_points(group="torch.backends"):
        entry_point.load()()
