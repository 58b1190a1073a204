"""Waiting for each other.

Dynamo walks this file, so it stays plain.
"""

from __future__ import annotations

import torch

import comm_core
from comm_core import GroupLike
from comm_core.catalog import BARRIER
from comm_core.tracing import is_traced
from functional_collectives.collectives import parsed_group


def barrier(group: GroupLike = None) -> None:
    """Return when every rank of the group has come here.

    On CUDA the host waits too, not only the stream. In a compiled graph it is an all_reduce of one element with
    its wait, which no compiler removes; `comm_core.run(catalog.BARRIER, x, group)` hands a tensor through it, so that
    what uses the tensor comes behind.

    Args:
        group: anything that `comm_core.as_group` takes; None is the default group.

    Raises:
        CommError: a wrong group, or the transport failed.

    Example:
        >>> from comm_core import World
        >>> came = []
        >>> def body(group):
        ...     came.append(group.rank)
        ...     barrier(group)
        ...     return len(came)
        >>> World(3).run(body)
        [3, 3, 3]
    """
    on, group = parsed_group(group)
    device = "cuda" if on.backend == "nccl" else "cpu"
    met = comm_core.run(BARRIER, torch.zeros((), device=device), group)
    if not is_traced(met):  # a graph's barrier has its wait, and a fake one no value
        met.item()
