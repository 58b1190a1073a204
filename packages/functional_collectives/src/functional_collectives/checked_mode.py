"""Checked mode, at this package's door."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import comm_core


@contextlib.contextmanager
def checked(timeout_s: float | None = None) -> Iterator[None]:
    """Compare, before each eager collective in the block, what all ranks of the group are about to do.

    It is `comm_core.checked`, so it holds for every package of commbook. `COMM_CHECKED=1` does it for a whole program.

    Args:
        timeout_s: how long a rank waits for the others to come to a call; None is the group's own time limit.

    Raises:
        CommError: at a collective in the block, on every rank: a `MismatchError` where calls differ, a
            `RankTimeoutError` or `RankFailedError` that names who is late or has ended.

    Example:
        >>> import torch
        >>> from comm_core import World
        >>> from functional_collectives import all_reduce
        >>> def body(group):
        ...     with checked():
        ...         return all_reduce(torch.ones(1), "sum", group).item()
        >>> World(2).run(body)
        [2.0, 2.0]
    """
    with comm_core.checked(timeout_s):
        yield
