"""The pool that `run_ranks` uses: one for the whole process, started by the first run, ended at exit."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Any

from comm_core.testing.pool import RankPool

_shared: dict[str, RankPool] = {}


def run_ranks(
    fn: Callable[..., Any],
    world: int = 2,
    backend: str | None = None,
    timeout: float = 60.0,
    args: tuple[Any, ...] = (),
) -> list[Any]:
    """Run `fn(group, *args)` on `world` real processes of this machine and return each rank's result.

    Each process has a fresh default process group, seeds set to 0, and the parent's environment, import path and
    working directory. `fn` may be any function, also a closure or a lambda; it is sent by value where the ranks could
    not import it. Tensors come back as plain values: on the CPU and detached. The same body runs on
    `comm_core.World(n).run`, without processes.

    Args:
        fn: what every rank calls, with its group first.
        world: how many ranks.
        backend: the c10d backend: `"shm"`, `"gloo"`, `"nccl"`, `"fake"` or a string such as `"cpu:gloo,cuda:nccl"`;
            by default that of `default_backend`: shared memory where it is there, else gloo.
        timeout: seconds that the run may take, start-up of the processes not counted.
        args: what follows the group; every rank gets a copy.

    Returns:
        The results in rank order.

    Raises:
        ArgumentError: an argument is wrong, or `fn` cannot be pickled.
        RankFailedError: a rank raised or died (a `RanksFailedError`): `.rank` is the first, with its traceback in the
            message, `.cause` its exception, `.errors` every failed rank's end.
        RankTimeoutError: ranks had not finished in time (a `RanksTimedOutError`): `.unfinished` names them and
            `.stacks` says where each was.

    Example:
        >>> from comm_core.testing import run_ranks
        >>> run_ranks(lambda group: (group.rank, group.world), world=3)
        [(0, 3), (1, 3), (2, 3)]
    """
    return shared_pool().run(fn, world, backend, timeout, args)


def shared_pool() -> RankPool:
    """Return the pool of this process that `run_ranks` uses."""
    pool = _shared.get("pool")
    if pool is None:
        pool = _shared["pool"] = RankPool()
        atexit.register(close_shared_pool)
    return pool


def close_shared_pool() -> None:
    """End the processes of the shared pool, if there are any; the next run starts new ones."""
    pool = _shared.get("pool")
    if pool is not None:
        pool.close()
