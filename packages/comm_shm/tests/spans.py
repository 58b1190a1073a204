"""Groups on several hosts, made on one machine by dividing its ranks: what the tests of such groups share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from comm_core.errors import CommError
from comm_core.testing import run_ranks


def on_hosts(layout: str, body: Callable[..., Any], *args: Any, backend: str = "gloo") -> list[Any]:
    """Run `body(group over several hosts, *args)` on as many ranks as the layout has letters, one for each host."""

    def ranked(group: Any) -> Any:
        os.environ["COMM_SHM_HOST"] = layout[group.rank]
        try:
            span = dist.new_group(backend="shm")
        finally:
            del os.environ["COMM_SHM_HOST"]
        try:
            return body(span, *args)
        finally:
            dist.destroy_process_group(span)

    return run_ranks(ranked, len(layout), backend)


def joined(rank: int, world: int, store: Any, layout: str, **options: Any) -> None:
    """Make the default group, on a fleet's ranks."""
    os.environ["COMM_SHM_HOST"] = layout[rank]
    dist.init_process_group("shm", store=store, rank=rank, world_size=world, **options)


def attempt(call: Callable[[], Any]) -> tuple[type[CommError] | None, str]:
    """Return the kind and the words of the error of a call."""
    try:
        call()
    except CommError as error:
        return type(error), str(error)
    return None, ""
