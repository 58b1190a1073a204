"""Calls of a group, seen by whoever watches torch's: a profiler, or a mode such as `CommDebugMode` (2.11 to 2.14).

torch calls a process group that is written in Python past its ops `c10d::allreduce_` and so on, at which a profiler
takes its times and a dispatch mode its counts. So while one of them is on, a call makes up for that; else it costs two
looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._C._autograd import _profiler_enabled
from torch.utils import _python_dispatch as dispatch

modes = torch._C._len_torch_dispatch_stack
profiled = _profiler_enabled

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


def shown(name: str, call: Callable[[], Any], tensors: tuple[Any, ...]) -> Any:
    """Make a call of a group under the eyes of the modes that are on, the innermost first, and of the profiler.

    Args:
        name: the method of the process group.
        call: the call.
        tensors: its tensors, or lists of them, as torch's op has them first; a mode sees these, and no other arguments.
    """
    mode = dispatch._get_current_dispatch_mode() if modes() else None
    if mode is not None and not mode.is_infra_mode():  # torch's own, as of fake tensors, are no watchers
        with dispatch._pop_mode_temporarily() as mode:
            return mode.__torch_dispatch__(_op(name, lambda: shown(name, call, tensors)), (), tensors, {})
    if profiled():
        with torch.autograd.profiler.record_function(f"shm:{_WORDS.get(name, name)}"):
            return call()
    return call()


def _op(name: str, call: Callable[[], Any]) -> torch._ops.OpOverload:
    """Return torch's op for a method, except that calling it makes this one call."""

    def made(*_args: Any, **_named: Any) -> Any:
        return call()

    packet = getattr(torch.ops.c10d, _OPS[name])
    op = packet.default
    return torch._ops.OpOverload(packet, made, made, op._schema, op._tags)
