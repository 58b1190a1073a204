"""Runs a catalogue entry on a group: eager or traced, with its gradient.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch

from comm_core import checking, compat
from comm_core.catalog import BY_KEY
from comm_core.catalog.blocks import Fill
from comm_core.collective import Collective, Params
from comm_core.compat import forward_ad_active, functions_transformed, is_transformed, sees_saved_tensors
from comm_core.compiled_groups import compiled_group
from comm_core.derivatives import after, check_gradient, expanded, is_expanded, is_linear, summed, transposed, weighted
from comm_core.errors import ArgumentError, CommError
from comm_core.groups import AnyGroup, GroupLike, as_group
from comm_core.outbox import finished, to_send
from comm_core.pending import Pending
from comm_core.premul import parted
from comm_core.settling import arrived, settled, unfolded
from comm_core.simulate import SimulatedGroup
from comm_core.ties import applied_unseen, tie, tied, tied_to
from comm_core.tracing import is_plain, is_traced, node, transforms_active
from comm_core.wires import process_transport, traced_transport

Finish = Callable[[Pending], torch.Tensor]


def run(entry: Collective, x: torch.Tensor, group: GroupLike = None, **params: Any) -> torch.Tensor:
    """Run a collective to its end and return this rank's result.

    Args:
        entry: an entry of the catalogue.
        x: this rank's tensor.
        group: anything that `as_group` takes.
        **params: the entry's own parameters, for example `reduce_op="sum"`.

    Shapes: as the entry's shape rule says.

    Gradient: the entry's transpose, for a scalar that is the sum of all ranks' losses.

    Raises:
        CommError: an argument is wrong, a gradient is wanted of what has none, or the transport failed.

    Example:
        >>> from comm_core import World, catalog
        >>> World(2).run(lambda group: run(catalog.ALL_REDUCE, torch.ones(2), group, reduce_op="sum").tolist())
        [[2.0, 2.0], [2.0, 2.0]]
    """
    return start(entry, x, Pending.wait, group, **params)


def start(entry: Collective, x: torch.Tensor, finish: Finish, group: GroupLike = None, **params: Any) -> torch.Tensor:
    """Start a collective and let `finish` make a tensor of what is in flight; `run` waits there.

    In a traced graph, and under torch.func, the result is always finished.

    Raises:
        CommError: as for `run`.

    Example:
        >>> from comm_core import Pending, World, catalog
        >>> def body(group):
        ...     return start(catalog.ALL_REDUCE, torch.ones(2), Pending.wait, group, reduce_op="sum").tolist()
        >>> World(2).run(body)
        [[2.0, 2.0], [2.0, 2.0]]
    """
    if type(params.get("reduce_op", "")) is not str:
        with checking.refusing(group, entry.name):
            factor, params = parted(x, params, entry.name)
        if factor is not None:
            from comm_core.filling import start_multiplied  # it builds on this module

            return start_multiplied(entry, x, factor, finish, group, params)
    if is_plain(x):
        on, records = as_group(group), x.requires_grad and torch.is_grad_enabled()
        try:
            parsed = parsed_params(entry, x, on, params)
            if records:
                check_gradient(entry)
        except CommError as error:
            checking.refuse(on, entry.name, error, params)
            raise
        if records:
            return differentiated(entry, x, on, parsed, finish)
        return finish(launch_parsed(entry, x, on, parsed))
    if torch.compiler.is_dynamo_compiling():
        return start_in_graph(entry, x, group, params)
    return start_watched(entry, x, finish, group, params)


def start_watched(entry: Collective, x: torch.Tensor, finish: Finish, group: GroupLike, params: Params) -> torch.Tensor:
    """Start a collective that something looks at: autograd, a transform, a mode; or whose input is no plain tensor."""
    on = as_group(group)
    with checking.refusing(on, entry.name, params):
        x = arrived(x, entry.name)
        parsed = parsed_params(entry, x, on, params)
        if torch.is_grad_enabled() and x.requires_grad:
            check_gradient(entry)
    if x.is_conj() or x.is_neg():
        from comm_core.filling import start_lazy  # it builds on this module

        return start_lazy(entry, x, on, parsed, finish)
    if is_transformed(x) or functions_transformed():  # also of what is not wrapped, whose results would be
        return differentiated(entry, x, on, parsed, finished)
    return differentiated(entry, x, on, parsed, finish) if is_differentiated(x) else move(entry, x, on, parsed, finish)


def differentiated(entry: Collective, x: torch.Tensor, on: AnyGroup, params: Params, finish: Finish) -> torch.Tensor:
    """Start a collective whose derivatives may be asked for, by autograd or a transform."""
    if is_expanded(entry, x, params):
        from comm_core.recordings import with_expanded_gradient  # it builds on this module

        return with_expanded_gradient(entry, x, on, params, finish)
    if "receives" in params and not functions_transformed() and not is_transformed(x):
        from comm_core.cotangents import recorded_messages  # it builds on this module

        return recorded_messages(x, entry.key, on, params, finish)
    return recorded_with_tie(x, entry.key, on, params, finish)[0]


def start_in_graph(entry: Collective, x: torch.Tensor, group: GroupLike, params: Params) -> torch.Tensor:
    """Run a collective in code that is being compiled or exported: as ops of the graph, the wait among them."""
    x, on, parsed = parsed_in_graph(entry, x, group, params)
    if transforms_active():
        return run_in_graph(x, entry.key, on.name, **parsed)
    if is_expanded(entry, x, parsed) and torch.is_grad_enabled() and x.requires_grad:
        return expanded(entry, GroupEmit(on), x, parsed)
    return cast(torch.Tensor, Differentiable.apply(x, entry.key, on, parsed, finished))  # type: ignore[no-untyped-call]


def parsed_in_graph(
    entry: Collective, x: torch.Tensor, group: GroupLike, params: Params
) -> tuple[torch.Tensor, AnyGroup, Params]:
    """Return a compiled call's tensor settled, its group and its parameters parsed.

    Raises:
        CommError: one of them is wrong, or a gradient is wanted of what has none.
    """
    try:
        x = settled(x, entry.name)
        on = compiled_group(group)
        parsed = parsed_params(entry, x, on, params)
        if torch.is_grad_enabled() and x.requires_grad:
            check_gradient(entry)
    except CommError as error:  # anew, by position: of an error's arguments Dynamo shows only those
        raise type(error)(error.where, error.got, error.need, error.hint) from None
    return x, on, parsed


@node
def run_in_graph(x: torch.Tensor, key: str, group: str, **params: Any) -> torch.Tensor:
    """Run a collective under torch.func inside a compiled graph."""
    entry, on = BY_KEY[key], as_group(group)
    if is_expanded(entry, x, params):
        return expanded(entry, GroupEmit(on), x, params)
    return recorded(x, key, on, params, finished)


def recorded(x: torch.Tensor, key: str, group: AnyGroup, params: Params, finish: Finish) -> torch.Tensor:
    """Run a collective by the `autograd.Function` that fits the place: compiled, under torch.func, or neither."""
    if torch.compiler.is_dynamo_compiling():
        return cast(torch.Tensor, Differentiable.apply(x, key, group, params, finish))  # type: ignore[no-untyped-call]
    return recorded_with_tie(x, key, group, params, finish)[0]


def recorded_with_tie(
    x: torch.Tensor, key: str, group: AnyGroup, params: Params, finish: Finish
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run a collective in code that is not being compiled; return its tie too, None where nothing is recorded."""
    if is_transformed(x) or functions_transformed():
        return cast(Any, Transformed.apply(x, key, group, params, finished))  # type: ignore[no-untyped-call]
    if not is_differentiated(x):
        return move(BY_KEY[key], x, group, params, finish), None
    if sees_saved_tensors() and is_linear(BY_KEY[key], params):
        return applied_unseen(Recorded, x, key, group, params, finish)
    return compat.applied(Recorded)(x, key, group, params, finish)


def is_differentiated(x: torch.Tensor) -> bool:
    """Tell whether autograd looks at what is done with a tensor, backward or forward."""
    return (torch.is_grad_enabled() and x.requires_grad) or forward_ad_active()


def move(entry: Collective, x: torch.Tensor, group: AnyGroup, params: Params, finish: Finish) -> torch.Tensor:
    """Move the bytes of one call whose parameters `check` has parsed: as ops of a graph, or on the transport."""
    if is_traced(x):
        return entry.kernel(traced_transport(group), unfolded(x), **params).wait()
    if finish is finished and "receives" in params:
        x = to_send(x, params["receives"])
    return finish(launch_parsed(entry, x, group, params))


def launch(entry: Collective, x: torch.Tensor, group: GroupLike = None, **params: Any) -> Pending:
    """Start a collective without recording a gradient; `Pending.wait` gives the result.

    Raises:
        CommError: an argument is wrong.

    Example:
        >>> from comm_core import World, catalog
        >>> World(2).run(lambda group: launch(catalog.BROADCAST, torch.tensor(group.rank), group, src=1).wait())
        [tensor(1), tensor(1)]
    """
    on = as_group(group)
    with checking.refusing(on, entry.name, params):
        x = arrived(x, entry.name).detach()
        factor, params = parted(x, params, entry.name)
        parsed = parsed_params(entry, x, on, params)
    if factor is None and not (x.is_conj() or x.is_neg()):
        return launch_parsed(entry, x, on, parsed)
    from comm_core.filling import launch_filled  # it builds on this module

    return launch_filled(entry, x, on, parsed, factor)


def launch_parsed(
    entry: Collective, x: torch.Tensor, group: AnyGroup, params: Params, fill: Fill | None = None
) -> Pending:
    """Start a collective whose parameters `check` has parsed; a kernel that `fills` may be given what with."""
    if isinstance(group, SimulatedGroup):
        return group.meet(entry, x, params)
    if checking.mode is not None:
        if entry.name == checking.MESSAGES and not x.is_meta:
            begin = functools.partial(entry.kernel, process_transport(group), x, **params)  # a lambda costs every call
            return checking.watched(group, begin, params)
        checking.agree(group, entry, x, params)
    if x.is_meta:  # nothing to move, so what moves bytes is not asked
        return Pending(x.new_empty(entry.shape(tuple(x.shape), group.world, group.rank, **params)), what=entry.name)
    wire = process_transport(group)
    pending = entry.kernel(wire, x, **params) if fill is None else entry.kernel(wire, x, fill=fill, **params)
    pending.what = entry.name
    return pending


def parsed_params(entry: Collective, x: torch.Tensor, group: AnyGroup, params: Params) -> Params:
    """Parse a collective's own parameters.

    Raises:
        ArgumentError: the names are not the entry's own.
        CommError: as the entry's `check` does.
    """
    try:
        return entry.check(x, group.world, group.rank, **params)
    except TypeError as error:
        if isinstance(error, CommError) or params.keys() == entry.parameters:
            raise
    raise ArgumentError(
        entry.name,
        "parameters " + (", ".join(sorted(params)) or "none"),
        ", ".join(sorted(entry.parameters)) or "none",
    )


class GroupEmit:
    """Runs catalogue entries for a gradient rule, on the group of the forward call."""

    def __init__(self, group: AnyGroup, finish: Finish = finished) -> None:
        self.group = group
        self.finish = finish
        self.rank, self.world = group.rank, group.world

    def __call__(self, name: str, x: torch.Tensor, **params: Any) -> torch.Tensor:
        """Run the entry to its end, differentiably; a cotangent may be in flight itself."""
        level = compat.batch_level(x)
        if level:
            batch = settled(compat.as_batch(x, level), name)
            (done, _), dim = in_one(BY_KEY[name], batch, 0, self.group, params, finished)
            return compat.as_batched(done, dim, level)
        x = settled(x, name)
        return recorded(x, name, self.group, params, self.finish)


def in_one(
    entry: Collective, x: torch.Tensor, dim: int, group: AnyGroup, params: Params, finish: Finish
) -> tuple[tuple[torch.Tensor, torch.Tensor | None], int]:
    """Run one collective for a whole batch, which is `dim` of the tensor; return result, tie and batch's dim."""
    batched = cast(Any, entry.batch)(x.ndim - 1, **params)
    moved = x.movedim(dim, batched.position)
    return recorded_with_tie(moved, entry.key, group, batched.params, finish), batched.position


class Differentiable(torch.autograd.Function):
    """Every collective as a differentiable function, from the rules of its catalogue entry."""

    @staticmethod
    def forward(x: torch.Tensor, key: str, group: AnyGroup, params: Params, finish: Finish) -> torch.Tensor:
        """Run the kernel."""
        return move(BY_KEY[key], x, group, params, finish)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep what backward needs."""
        x, key, group, params, _ = inputs
        keep(ctx, x, output, key, group, params)

    @staticmethod
    def backward(
        ctx: Any, cotangent: torch.Tensor | None, of_tie: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, None, None, None, None]:
        """Run the gradient rule."""
        entry, emit = BY_KEY[ctx.key], GroupEmit(ctx.group)
        if is_linear(entry, ctx.params):
            return transposed(entry, emit, tied(ctx, cotangent, of_tie), ctx.params), None, None, None, None
        x, y, *_ = saved = ctx.saved_tensors
        cotangent = settled(tied(ctx, cotangent, of_tie, saved), ctx.key)
        factors = partial(ctx, after(x, cotangent), after(settled(y, ctx.key), cotangent))
        return weighted(entry, emit, cotangent, factors, summed(ctx.params)), None, None, None, None


def partial(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the partial derivative of a recorded reduction by this rank's input."""
    return cast(Any, BY_KEY[ctx.key].partial)(GroupEmit(ctx.group), x, y, **ctx.params)


def keep(
    ctx: Any,
    x: torch.Tensor,
    output: torch.Tensor,
    key: str,
    group: AnyGroup,
    params: Params,
    tie: torch.Tensor | None = None,
) -> None:
    """Keep what derivatives need: the parameters, and the tensors where the collective is not linear.

    Of a call with a tie, zeros are made in `tied`, where they are needed, and not by autograd for every unused tie.
    """
    ctx.key, ctx.group, ctx.params, ctx.tied_shape = key, group, params, None if tie is None else output.shape
    tensors = () if is_linear(BY_KEY[key], params) else (x, output)
    if tie is not None:
        ctx.set_materialize_grads(False)
        tensors = (*tensors, tie)
    if tensors:
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)


def tangent(ctx: Any, x: torch.Tensor, *_: None) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the forward-mode derivative, a linear collective of the tangents, and the tie's, which has no elements."""
    params, its_tie = ctx.params, ctx.saved_tensors[-1]
    if not is_linear(BY_KEY[ctx.key], params):
        x, params = x * partial(ctx, *ctx.saved_tensors[:2]), summed(params)
    pushed = tied_to(GroupEmit(ctx.group)(ctx.key, x, **params), its_tie)
    return pushed, tie(pushed)


class Transformed(Differentiable):
    """`Differentiable` under torch.func; Dynamo must not see it, as it refuses a class with a `jvp` (torch 2.13)."""

    @staticmethod
    def forward(  # type: ignore[override]
        x: torch.Tensor, key: str, group: AnyGroup, params: Params, finish: Finish
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the kernel."""
        return move(BY_KEY[key], x, group, params, finish), tie(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what backward needs."""
        x, key, group, params, _ = inputs
        keep(ctx, x, output[0], key, group, params, output[1])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], x: torch.Tensor, key: str, group: AnyGroup, params: Params, finish: Finish
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[int, None]]:
        """Run one collective for the whole batch."""
        (done, its_tie), dim = in_one(BY_KEY[key], x, in_dims[0], group, params, finish)
        return (done, tie(x) if its_tie is None else its_tie), (dim, None)

    jvp = staticmethod(tangent)


class Recorded(torch.autograd.Function):
    """`Transformed` for eager calls that no transform watches: torch then spares a look at the signature."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, key: str, group: AnyGroup, params: Params, finish: Finish
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the kernel and keep what backward needs."""
        output, its_tie = move(BY_KEY[key], x, group, params, finish), tie(x)
        keep(ctx, x, output, key, group, params, its_tie)
        return output, its_tie

    backward = Differentiable.backward
    jvp = staticmethod(tangent)
