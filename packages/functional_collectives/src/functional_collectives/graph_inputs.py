"""Results in flight as inputs of compiled code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from functional_collectives import torch_compat


@contextlib.contextmanager
def allow_inflight_collective_as_graph_input_ctx(value: bool = True) -> Iterator[None]:
    """Let compiled code wait for what `torch.distributed` started with `async_op=True` outside of it.

    A result of this package needs no such context: compiled code takes it as it is, and waits.

    Args:
        value: False to forbid it again inside another such context.

    Example:
        >>> with allow_inflight_collective_as_graph_input_ctx():
        ...     print("here wait_tensor(x) in compiled code waits for dist.all_reduce(x, async_op=True)")
        here wait_tensor(x) in compiled code waits for dist.all_reduce(x, async_op=True)
    """
    with torch_compat.inflight_inputs(value):
        yield
