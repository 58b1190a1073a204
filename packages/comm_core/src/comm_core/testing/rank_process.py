"""One rank process: it serves run after run until the pool closes the connection or the pool's process ends."""

from __future__ import annotations

import faulthandler
import importlib
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comm_core.testing import payload
from comm_core.testing.wire import EndOrder, Hello, Order, Raised, Ready, Returned, RunOrder, receive, send

if TYPE_CHECKING:
    from comm_core.testing.rank_groups import GroupCloser


@dataclass(frozen=True)
class _Rank:
    connection: socket.socket
    orders: queue.SimpleQueue[Order]
    closer: GroupCloser


def preload() -> None:
    """Import what every rank needs, before this process is forked."""
    for module in ("cloudpickle", "comm_core.testing.rank_groups", "comm_core.testing.rank_state"):
        importlib.import_module(module)


def serve(connection_fd: int, stacks_fd: int, owner: int) -> None:
    """Serve runs for the pool of the process `owner`; never returns."""
    connection = socket.socket(fileno=connection_fd)
    faulthandler.enable(all_threads=False)
    # chain: the signal's default action follows, so this process ends when its stacks are written
    faulthandler.register(signal.SIGUSR1, file=stacks_fd, all_threads=True, chain=True)
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(connection, orders, owner), daemon=True).start()

    from comm_core.testing.rank_groups import GroupCloser, host_store

    # torch asks the name server about 127.0.0.1 before it connects: a lost answer costs 1 s here, not 5. The resolver
    # reads this once; the ranks' own environment is that of each run.
    os.environ.setdefault("RES_OPTIONS", "timeout:1")
    rank = _Rank(connection, orders, GroupCloser())
    send(connection, Hello(host_store()))
    while True:
        order = orders.get()
        if isinstance(order, RunOrder):
            _serve_run(rank, order)


def _read_orders(connection: socket.socket, orders: queue.SimpleQueue[Order], owner: int) -> None:
    watched = select.poll()
    watched.register(connection, select.POLLIN)
    if hasattr(os, "pidfd_open"):  # a forked child of the owner may hold the connection open
        watched.register(os.pidfd_open(owner), select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in watched.poll()]
        order = receive(connection) if ready == [connection.fileno()] else None
        if not isinstance(order, (RunOrder, EndOrder)):
            os._exit(0)
        orders.put(order)


def _serve_run(rank: _Rank, order: RunOrder) -> None:
    from comm_core.testing.rank_groups import make_default_group

    initialised = False
    clean = True
    try:
        _prepare(order)
        group = make_default_group(order)
        initialised = True
        fn, args = payload.load_call(order.call)
        send(rank.connection, Returned(payload.dump_result(fn(group, *args))))
    except BaseException as error:  # sys.exit and KeyboardInterrupt are ends of this run, too
        send(rank.connection, _raised(error))
        unsendable = isinstance(error, payload.UnsendableResultError)
        clean = initialised and isinstance(error, Exception) and not unsendable
    else:
        rank.orders.get()
    send(rank.connection, Ready(_closed(rank) and clean))


def _prepare(order: RunOrder) -> None:
    from comm_core.testing import rank_state

    rank_state.take_over(order.surroundings, order)
    rank_state.reset(order)


def _closed(rank: _Rank) -> bool:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        rank.closer.close()
    except Exception:
        traceback.print_exc()
        return False
    return True


def _raised(error: BaseException) -> Raised:
    when = time.monotonic()
    place = error.__traceback__
    while place is not None and place.tb_next is not None and place.tb_frame.f_code.co_filename == __file__:
        place = place.tb_next
    text = "".join(traceback.format_exception(type(error), error, place))
    return Raised(type(error).__qualname__, str(error), text, payload.dump_exception(error), when)
