"""The ops of our own, `torch.ops.comm_core.*`, for collectives that a graph has no op of torch for.

They have finished when they return, so a graph that nobody lowered is right; but for `start_batch_p2p` and
`start_reduce`, which have `_c10d_functional.wait_tensor` to finish them, as torch's ops do, and for messages that are
only sent, of which `outbox` keeps a copy until they are through. `reduce_rows` and `scan_rows` move nothing: they are
what a rank does with what arrived from all, as one op, so that a graph does not grow with the world; rows are combined
in rank order, as in eager code, to the last bit. Where torch can keep ops in their order (effect tokens), it is told
to: of two messages that do not depend on each other, no compiler may change the order. They have the gradients of
their entries, for who differentiates a graph with one in it; what is started has none. They are there from the first
traced call that needs one, and until `unregister`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from comm_core import compat, inductor_compat
from comm_core.collective import Params
from comm_core.compat import constant_in_graphs
from comm_core.groups import as_group
from comm_core.outbox import finished, to_send
from comm_core.pending import Pending
from comm_core.reduce_ops import preceding_in_rank_order, prefixes_in_rank_order, reduce_in_rank_order

NAMESPACE = "comm_core"
_libraries: list[torch.library.Library] = []
_registering = threading.Lock()


def flattened(messages: Sequence[Sequence[int]]) -> list[int]:
    """Return messages as the list of numbers that an op takes.

    Example:
        >>> flattened([(1, 5, 0), (2, 3, 7)])
        [1, 5, 0, 2, 3, 7]
    """
    return [number for message in messages for number in message]


def unflattened(numbers: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Return the messages that a list of numbers stands for.

    Example:
        >>> unflattened([1, 5, 0, 2, 3, 7])
        ((1, 5, 0), (2, 3, 7))
    """
    return tuple((numbers[i], numbers[i + 1], numbers[i + 2]) for i in range(0, len(numbers), 3))


@constant_in_graphs
def register() -> bool:
    """Make the ops known to torch; a second time changes nothing.

    Returns:
        True.

    Example:
        >>> register()
        True
        >>> torch.ops.comm_core.reduce.default._schema.name
        'comm_core::reduce'
    """
    with _registering:  # simulated ranks are threads, and come here together
        if not _libraries:
            _libraries.append(_made())
    return True


def _made() -> torch.library.Library:
    library = torch.library.Library(NAMESPACE, "DEF")
    library.define("reduce(Tensor x, str reduce_op, int dst, str group) -> Tensor")
    library.define("start_reduce(Tensor x, str reduce_op, int dst, str group) -> Tensor")
    library.define("batch_p2p(Tensor x, SymInt[] sends, SymInt[] receives, str group) -> Tensor")
    library.define("start_batch_p2p(Tensor x, SymInt[] sends, SymInt[] receives, str group) -> Tensor")
    library.define("reduce_rows(Tensor rows, str reduce_op) -> Tensor")
    library.define("scan_rows(Tensor rows, str reduce_op, bool exclusive, bool reverse) -> Tensor")
    for name, kernel, fake, params in (
        ("reduce", _reduce, _reduce_fake, _reduce_params),
        ("start_reduce", _start_reduce, _reduce_fake, None),
        ("batch_p2p", _batch_p2p, _batch_p2p_fake, _batch_p2p_params),
        ("start_batch_p2p", _start_batch_p2p, _batch_p2p_fake, None),
    ):
        op = f"{NAMESPACE}::{name}"
        library.impl(name, kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(op, functools.partial(_in_order, name, fake), lib=library)
        if params is not None:
            remember = functools.partial(_remember, name, params)
            torch.library.register_autograd(op, _backward, setup_context=remember, lib=library)
        compat.keep_in_order(op, library)
    _define_local(library, "reduce_rows", _reduce_rows, _row_fake)
    _define_local(library, "scan_rows", _scan_rows, _rows_fake)
    return library


def _define_local(
    library: torch.library.Library,
    name: str,
    kernel: Callable[..., torch.Tensor],
    fake: Callable[..., torch.Tensor],
) -> None:
    """Make an op known that moves nothing."""
    op = f"{NAMESPACE}::{name}"
    library.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(op, fake, lib=library)
    slope = functools.partial(_rows_backward, kernel)
    torch.library.register_autograd(op, slope, setup_context=_remember_rows, lib=library)


def _reduce_rows(rows: torch.Tensor, reduce_op: str) -> torch.Tensor:
    return reduce_in_rank_order(reduce_op, rows.unbind(0))


def _row_fake(rows: torch.Tensor, reduce_op: str) -> torch.Tensor:
    return rows.new_empty(rows.shape[1:])


def _scan_rows(rows: torch.Tensor, reduce_op: str, exclusive: bool, reverse: bool) -> torch.Tensor:
    order = rows.unbind(0)
    prefixes = preceding_in_rank_order if exclusive else prefixes_in_rank_order
    made = prefixes(reduce_op, order[::-1] if reverse else order)
    return torch.stack(made[::-1] if reverse else made)


def _rows_fake(rows: torch.Tensor, reduce_op: str, exclusive: bool, reverse: bool) -> torch.Tensor:
    return rows.new_empty(rows.shape)


def _remember_rows(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    rows, *ctx.rest = inputs
    ctx.save_for_backward(rows)


def _rows_backward(compute: Callable[..., torch.Tensor], ctx: Any, cotangent: torch.Tensor) -> tuple[Any, ...]:
    """Differentiate what the op does; the entries' own gradients do not come here."""
    (rows,) = ctx.saved_tensors
    with torch.enable_grad():
        leaf = rows.detach().requires_grad_()
        (slope,) = torch.autograd.grad(compute(leaf, *ctx.rest), leaf, cotangent)
    return slope, *(None for _ in ctx.rest)


def _in_order(name: str, fake: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
    inductor_compat.keep_order(getattr(torch.ops.comm_core, name).default)
    return fake(*args)


def unregister() -> None:
    """Take the ops out again; graphs that have them no longer run."""
    with _registering:
        inductor_compat.forget_order()
        inductor_compat.forget_reads("tracing")
        while _libraries:
            compat.destroy(_libraries.pop())


def _remember(
    name: str, params: Callable[..., Params], ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor
) -> None:
    """Keep what the entry's gradient rule needs, for who differentiates a graph that has the op in it."""
    from comm_core.execution import keep

    x, *numbers, group = inputs
    keep(ctx, x, output, name, as_group(group), params(*numbers))


def _backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    from comm_core.execution import Differentiable

    slope, *_ = Differentiable.backward(ctx, cotangent)
    return slope, None, None, None


def _reduce_params(reduce_op: str, dst: int) -> Params:
    return {"reduce_op": reduce_op, "dst": dst}


def _batch_p2p_params(sends: Sequence[int], receives: Sequence[int]) -> Params:
    return {"sends": unflattened(sends), "receives": unflattened(receives), "reverse": False}


def _reduce(x: torch.Tensor, reduce_op: str, dst: int, group: str) -> torch.Tensor:
    from comm_core.wires import moving_transport

    return moving_transport(as_group(group)).reduce(x, reduce_op, dst).wait()


def _reduce_fake(x: torch.Tensor, reduce_op: str, dst: int, group: str) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _batch_p2p(x: torch.Tensor, sends: Sequence[int], receives: Sequence[int], group: str) -> torch.Tensor:
    """Exchange messages; of what is only sent a copy, for a compiler may write over `x` before it is through."""
    from comm_core.wires import moving_transport

    x = to_send(x, receives).contiguous()
    return finished(moving_transport(as_group(group)).batch_p2p(x, unflattened(sends), unflattened(receives)))


def _batch_p2p_fake(x: torch.Tensor, sends: Sequence[int], receives: Sequence[int], group: str) -> torch.Tensor:
    return x.new_empty((sum(receives[1::3]), *x.shape[1:]))


def _start_reduce(x: torch.Tensor, reduce_op: str, dst: int, group: str) -> torch.Tensor:
    """Start a reduction; the transport works on a copy of `x`, which is the result."""
    from comm_core.wires import moving_transport

    out = _reduce_fake(x, reduce_op, dst, group)
    pending = moving_transport(as_group(group)).reduce(x, reduce_op, dst, out)
    compat.register_work(out, _Started(pending))
    return out


class _Started(dist.Work):
    """What `wait_tensor` finds for one of these ops that is under way."""

    def __init__(self, pending: Pending) -> None:
        super().__init__()
        self._pending = pending

    def wait(self, timeout: object = None) -> bool:
        self._pending.wait()
        return True


def _start_batch_p2p(x: torch.Tensor, sends: Sequence[int], receives: Sequence[int], group: str) -> torch.Tensor:
    """Start messages from a copy of `x`, for a compiler may write over `x` before they are through."""
    from comm_core.wires import moving_transport

    out = _batch_p2p_fake(x, sends, receives, group)
    sent = x.clone(memory_format=torch.contiguous_format)
    pending = moving_transport(as_group(group)).batch_p2p(sent, unflattened(sends), unflattened(receives), out)
    compat.register_work(out, _Started(pending))
    return out
