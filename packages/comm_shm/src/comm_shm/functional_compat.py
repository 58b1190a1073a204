"""A way into a Python group for three functional ops of torch that do not find one.

`_c10d_functional::all_gather_into_tensor` and `reduce_scatter_tensor` (and their `_out` forms) and `batch_p2p_ops` call
virtual methods of ProcessGroup that torch 2.11 to 2.14 do not pass on to Python subclasses, unlike all others. Their
kernels are registered for any device, so one for the CPU takes precedence without replacing anything. Groups of other
backends do in it what they did before. It is there from the first shm group on. torch's C++ defines the ops, and
its Python module of them, which takes longer to import than a group to make, is not needed for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d as c10d

from comm_shm.work import FinishedWork


def _all_gather(x: torch.Tensor, world: int, name: Any) -> torch.Tensor:
    shape = list(x.shape) or [1]
    return _all_gather_out(x, world, name, out=x.new_empty([shape[0] * world, *shape[1:]]))


def _all_gather_out(x: torch.Tensor, world: int, name: Any, *, out: torch.Tensor) -> torch.Tensor:
    group = _group(name)
    work = _gather_of(group)(*_reals(out, x))
    return _started(out, work)


def _reduce_scatter(x: torch.Tensor, reduce_op: str, world: int, name: Any) -> torch.Tensor:
    shape = list(x.shape) or [1]
    return _reduce_scatter_out(x, reduce_op, world, name, out=x.new_empty([shape[0] // world, *shape[1:]]))


def _reduce_scatter_out(x: torch.Tensor, reduce_op: str, world: int, name: Any, *, out: torch.Tensor) -> torch.Tensor:
    group = _group(name)
    options = dist.ReduceScatterOptions()
    options.reduceOp = dist.ReduceOp(getattr(dist.ReduceOp, reduce_op.upper()))
    work = _scatter_of(group)(*(_reals(out, x) if reduce_op.lower() in ("sum", "avg") else (out, x)), options)
    return _started(out, work)


def _batch(
    kinds: Sequence[str], peers: Sequence[int], tags: Sequence[int], tensors: Sequence[torch.Tensor], name: Any
) -> list[torch.Tensor]:
    """Start them in order; a receive gives its tensor, a send an empty one, to wait for."""
    group, outs = _group(name), []
    for kind, peer, tag, x in zip(kinds, peers, tags, tensors, strict=True):
        sends = kind == "isend"
        work = (group.send if sends else group.recv)([x], peer, tag)
        outs.append(_started(x.new_empty(0) if sends else x, work))
    return outs


def _group(name: Any) -> Any:
    if isinstance(name, str):
        return c10d._resolve_process_group(name)  # type: ignore[arg-type]  # a NewType of str
    return name if isinstance(name, dist.ProcessGroup) else dist.ProcessGroup.unbox(name)


def _gather_of(group: Any) -> Any:
    return getattr(group, "all_gather_single", None) or group._allgather_base


def _scatter_of(group: Any) -> Any:
    return getattr(group, "reduce_scatter_single", None) or group._reduce_scatter_base


def _reals(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(torch.view_as_real(x) if x.is_complex() else x for x in tensors)


def _started(out: torch.Tensor, work: Any) -> torch.Tensor:
    if not isinstance(work, FinishedWork):  # for wait_tensor to find
        c10d._register_work(out, work)
    return out


class _Kernels:
    """The CPU kernels in torch's table, which keeps those of others beside them."""

    def __init__(self) -> None:
        self._installed: list[torch.library.Library] = []

    def install(self) -> None:
        """Register them; a second time changes nothing."""
        if self._installed:
            return
        library = torch.library.Library("_c10d_functional", "IMPL")
        library.impl("all_gather_into_tensor", _all_gather, "CPU")
        library.impl("all_gather_into_tensor_out", _all_gather_out, "CPU")
        library.impl("reduce_scatter_tensor", _reduce_scatter, "CPU")
        library.impl("reduce_scatter_tensor_out", _reduce_scatter_out, "CPU")
        if hasattr(torch.ops._c10d_functional, "batch_p2p_ops"):  # torch 2.13 and later
            library.impl("batch_p2p_ops", _batch, "CPU")
        self._installed.append(library)

    def uninstall(self) -> None:
        """Take them out again."""
        while self._installed:
            self._installed.pop()._destroy()


KERNELS = _Kernels()
