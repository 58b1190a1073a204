"""One handler for each word of `comm_core.Lowering`: it gathers the facts, asks `choose`, and carries the choice out.

A handler returns Inductor's value for the result, or None to leave the op to Inductor's own lowering. Only
`register.py` imports this file, as it loads Inductor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from comm_core import Collective, Lowering, Missing, as_group
from comm_lowering import inductor_compat as compat
from comm_lowering.choose import Choice, Fate, Kernel, Request, choose
from comm_lowering.graph_state import LOG, Copy, GraphState, Note
from comm_lowering.liveness import fate
from comm_lowering.policy import Policy
from comm_lowering.source import user_line


@dataclass(frozen=True, slots=True)
class Site:
    """An op that was taken over: its catalogue entry, the op itself, and the policy in force."""

    entry: Collective
    op: Any
    policy: Policy
    writes: bool = False


Handler = Callable[..., Any]


def clone_then_in_place(site: Site, box: Any, *args: Any) -> Any:
    """Run the in-place op in the input's buffer where that is free, else in a copy."""
    note = _note(site, box, args)
    kernel = note.choice.kernel
    if kernel is Kernel.INDUCTOR:
        return None
    if kernel is Kernel.IDENTITY:
        return box if site.writes else compat.clone(box)
    if kernel is Kernel.COPY_THEN_IN_PLACE:
        source, box = compat.buffer_name(box), compat.clone(box)
        box, _ = compat.contiguous(box)
        note.copy = Copy(source, compat.last_operation())
    else:
        box, note.copy = _contiguous(box)
    assert not isinstance(site.entry.in_place, Missing)
    compat.start_in_place(compat.functional_op(site.entry.in_place), box, *args)
    note.start = compat.last_operation()
    return box


def out_of_place(site: Site, box: Any, *args: Any) -> Any:
    """Run the op into a new buffer."""
    note = _note(site, box, args)
    if note.choice.kernel is Kernel.INDUCTOR:
        return None
    if note.choice.kernel is Kernel.IDENTITY:
        return compat.clone(box)
    box, note.copy = _contiguous(box)
    out = compat.start_out_of_place(site.op, box, *args)
    note.start = compat.last_operation()
    return out


def wait(site: Site, box: Any) -> Any:
    """Wait where the program waits, unless nothing was started."""
    note = _state(site).note_of_wait(compat.current_node())
    if note is not None and note.choice.kernel is Kernel.IDENTITY:
        return box
    compat.wait(site.op, box)
    if note is not None:
        note.waits.append(compat.last_operation())
    return box


HANDLERS: dict[Lowering, Handler | Missing] = {
    Lowering.CLONE_THEN_IN_PLACE: clone_then_in_place,
    Lowering.OUT_OF_PLACE: out_of_place,
    Lowering.WAIT: wait,
    Lowering.OPAQUE: Missing("Inductor runs the op as it is, in its place among its like"),
    Lowering.COMPOSITE: Missing("its parts are collectives of the catalogue and are lowered by their own kinds"),
}


def _contiguous(box: Any) -> tuple[Any, Copy | None]:
    source = compat.buffer_name(box)
    box, copied = compat.contiguous(box)
    return box, Copy(source, compat.last_operation()) if copied else None


def _state(site: Site) -> GraphState:
    def make(graph: Any) -> GraphState:
        return LOG.begin(graph, lambda: GraphState(site.policy, compat.phase_of(graph)))

    state: GraphState = compat.state_of_graph(make)
    return state


def _note(site: Site, box: Any, args: tuple[Any, ...]) -> Note:
    """Choose a kernel for the node that is being lowered and write that down."""
    node = compat.current_node()
    arguments = _arguments(site, args)
    facts = _facts(site, node, str(arguments["group_name"]))
    note = Note(facts, _choice(site, box, node, facts, arguments))
    _state(site).notes[node.name] = note
    return note


def _arguments(site: Site, args: tuple[Any, ...]) -> dict[str, Any]:
    names = [argument.name for argument in site.op._schema.arguments[1:]]
    return dict(zip(names, args, strict=False))


def _facts(site: Site, node: fx.Node, group: str) -> dict[str, Any]:
    value = node.args[0].meta["val"] if isinstance(node.args[0], fx.Node) else torch.empty(0)
    nbytes = value.numel() * value.element_size()
    return {
        "op": site.entry.name,
        "form": site.op._schema.name.partition("::")[2],
        "source": user_line(node.meta.get("stack_trace")),
        "nbytes": nbytes if isinstance(nbytes, int) else None,
        "size": str(nbytes),
        "dtype": str(value.dtype).removeprefix("torch."),
        "group": group,
        "world": as_group(group).world,
    }


def _choice(site: Site, box: Any, node: fx.Node, facts: dict[str, Any], arguments: dict[str, Any]) -> Choice:
    if not compat.pass_in_config():
        why = "the config of this compilation lacks the cache key pass: call enable() in this thread, after setting it"
        return Choice(Kernel.INDUCTOR, why)
    if facts["group"] not in {name for name, _, _ in compat.groups()}:
        return Choice(Kernel.INDUCTOR, f"group {facts['group']!r} is not one that the cache key can tell apart")
    becomes, because = fate(node, site.writes)
    if becomes is Fate.DIES and compat.is_graph_input(box):
        becomes, because = Fate.LIVES, "Inductor made the input a view of a graph input"
    request = Request(
        collective=site.entry.name,
        lowering=site.entry.lowering,
        nbytes=facts["nbytes"],
        dtype=facts["dtype"],
        world=facts["world"],
        fate=becomes,
        because=because,
        reduce_op=arguments.get("reduce_op"),
    )
    return choose(request, site.policy)
