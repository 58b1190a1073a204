"""What becomes of a collective's input after the collective, read off the FX graph that Inductor lowers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from comm_lowering.choose import Fate
from comm_lowering.source import user_line


def fate(node: fx.Node, written: bool) -> tuple[Fate, str]:
    """Return what becomes of the input of `node`, and why, in words.

    Args:
        node: the collective.
        written: whether the op that arrives writes into its input. Inductor's re-inplacing pass has then proved that
            nothing reads the old value, unless the program itself asked for the overwriting.
    """
    source = node.args[0]
    if not isinstance(source, fx.Node):
        return Fate.LIVES, "the input is no value of the graph"
    root = _graph_input(source)
    if root is not None:
        if written:
            return Fate.OVERWRITTEN, f"the program overwrites its input {root.name}"
        return Fate.LIVES, f"the input {'is' if root is source else 'shares memory with'} graph input {root.name}"
    reader = _later_reader(node, source)
    if written:
        if reader is not None:
            return Fate.OVERWRITTEN, f"{reader.name} reads the overwritten input"
        return Fate.DIES, "nothing reads it later"
    if reader is not None:
        return Fate.LIVES, f"{_word(reader)} reads the input later ({user_line(reader.meta.get('stack_trace'))})"
    return Fate.LIVES, "torch's re-inplacing pass kept the input"


def storage_of(node: fx.Node) -> int | None:
    """Return a number that is the same for nodes that share memory, or None for what is not a tensor."""
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _graph_input(source: fx.Node) -> fx.Node | None:
    memory = storage_of(source)
    for node in source.graph.nodes:
        given = node.op in ("placeholder", "get_attr")
        if given and (node is source or (memory is not None and storage_of(node) == memory)):
            return node
    return None


def _later_reader(node: fx.Node, source: fx.Node) -> fx.Node | None:
    memory, after = storage_of(source), set(_after(node))
    results = _results(node)
    for alias in source.graph.nodes:
        if alias is source or (memory is not None and alias not in results and storage_of(alias) == memory):
            for user in alias.users:
                if user in after and user not in results:
                    return user
    return None


def _after(node: fx.Node) -> Iterator[fx.Node]:
    following = node.next
    while following.op != "root":
        yield following
        following = following.next


def _results(node: fx.Node) -> set[fx.Node]:
    """The collective and what is a view of its result: they may share the input's memory and are not its readers."""
    memory, found = storage_of(node), {node}
    for following in _after(node):
        if storage_of(following) == memory and any(arg in found for arg in following.all_input_nodes):
            found.add(following)
    return found


def _word(node: fx.Node) -> str:
    return "the graph's output" if node.op == "output" else node.name
