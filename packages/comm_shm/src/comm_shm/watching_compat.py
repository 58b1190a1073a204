"""Calls of a group, seen by whoever watches torch's: a profiler, or a mode such as `CommDebugMode` (2.11 to 2.14).

torch calls a process group that is written in Python past its ops `c10d::allreduce_` and so on, at which a profiler
takes its times and a dispatch mode its counts. So while one of them is on, a call makes up for that; else it costs two
looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import profiler
from torch.utils import _python_dispatch as dispatch

_OPS = {
    "allreduce": "allreduce_",
    "allreduce_coalesced": "allreduce_coalesced_",
    "broadcast": "broadcast_",
    "reduce": "reduce_",
    "allgather": "allgather_",
    "allgather_coalesced": "allgather_coalesced_",
    "all_gather_single": "_allgather_base_",
    "all_gather_single_coalesced": "allgather_into_tensor_coalesced_",
    "reduce_scatter": "reduce_scatter_",
    "reduce_scatter_single": "_reduce_scatter_base_",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor_coalesced_",
    "alltoall": "alltoall_",
    "all_to_all_single": "alltoall_base_",
    "gather": "gather_",
    "scatter": "scatter_",
    "barrier": "barrier",
    "send": "send",
    "recv": "recv_",
    "recv_anysource": "recv_any_source_",
}
_WORDS = {"allreduce": "all_reduce", "allgather": "all_gather", "alltoall": "all_to_all"}


def watched_now() -> bool:
    """Return whether a profiler or a mode may be on: two names of torch's that it keeps for quick looks."""
    return profiler._is_profiler_enabled or dispatch._is_in_non_infra_torch_dispatch_mode


def shown(name: str, call: Callable[[], Any], tensors: tuple[Any, ...]) -> Any:
    """Make a call of a group under the eyes of the modes that are on, the innermost first, and of the profiler.

    Args:
        name: the method of the process group.
        call: the call.
        tensors: its tensors, or lists of them, as torch's op has them first; a mode sees these, and no other arguments.
    """
    mode = dispatch._get_current_dispatch_mode()
    if mode is not None and not mode.is_infra_mode():  # torch's own, as of fake tensors, are no watchers
        with dispatch._pop_mode_temporarily() as mode:
            return mode.__torch_dispatch__(_op(name, lambda: shown(name, call, tensors)), (), tensors, {})
    if profiler._is_profiler_enabled:
        with profiler.record_function(f"shm:{_WORDS.get(name, name)}"):
            return call()
    return call()


def _op(name: str, call: Callable[[], Any]) -> torch._ops.OpOverload:
    """Return torch's op for a method, except that calling it makes this one call."""

    def made(*_args: Any, **_named: Any) -> Any:
        return call()

    packet = getattr(torch.ops.c10d, _OPS[name])
    op = packet.default
    return torch._ops.OpOverload(packet, made, made, op._schema, op._tags)
