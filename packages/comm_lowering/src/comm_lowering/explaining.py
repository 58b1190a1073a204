"""Compiling a function for the sake of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from comm_core.errors import ArgumentError
from comm_lowering.graph_state import LOG, GraphState
from comm_lowering.pytree_compat import tree_leaves
from comm_lowering.register import in_force
from comm_lowering.report import Report, merge


def explain(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Report:
    """Compile `fn` with Inductor, run it once, and return what became of every collective.

    Every rank of the groups in use must call it, as it runs the collectives. Where the result requires a gradient,
    the backward is compiled and run too, without touching any `.grad`. The function is compiled anew even where a
    cache has it, and what `torch.compile` made of it elsewhere stays. Outside `enable` it uses `Policy()`.

    Args:
        fn: a function or module, plain or wrapped by `torch.compile`.
        *args: its arguments.
        **kwargs: its keyword arguments.

    Returns:
        The report; `print` shows a table, `to_json()` gives plain data.

    Raises:
        ArgumentError: `fn` cannot be called.
        TransportError: this torch lacks a name that the lowering needs.

    Example:
        >>> import torch
        >>> print(explain(lambda x: x * 2, torch.ones(3)))
        lowering report: no collectives in 1 compiled graph (1 traced)
        policy: in_place=auto lone_group=skip collectives=all
    """
    if not callable(fn):
        raise ArgumentError("explain", got=f"a {type(fn).__name__}", need="a function or module to compile")
    with in_force() as policy:
        from comm_lowering import inductor_compat as compat

        counts = {"traced": 0, "compiled": 0}
        breaks = compat.graph_breaks()
        with LOG.watching() as seen, compat.uncached():
            _run_once(torch.compile(compat.plain(fn), backend=_backend(counts)), args, kwargs)
            reports = [_finished(index, graph, state) for index, (graph, state) in enumerate(seen)]
        new = tuple(reason for reason, count in compat.graph_breaks().items() if count > breaks.get(reason, 0))
    return replace(merge(reports, policy), graphs=counts["traced"], compiled=counts["compiled"], graph_breaks=new)


def reports() -> tuple[Report, ...]:
    """Return a report for each of the last 64 graphs with collectives that were lowered in this process.

    A graph that came out of Inductor's cache was not lowered here and has none; `explain` always has one. Waits are
    given in program order, as the schedule is gone.

    Example:
        >>> all(report.collectives for report in reports())
        True
    """
    return LOG.reports()


def last_report() -> Report | None:
    """Return the report on the last graph with collectives that was lowered in this process, None before the first.

    Example:
        >>> last_report() == next(reversed(reports()), None)
        True
    """
    return (reports() or (None,))[-1]


def _backend(counts: dict[str, int]) -> Callable[..., Any]:
    """Return a Dynamo backend of its own, so that nothing compiled before is taken for this run."""
    from comm_lowering import inductor_compat as compat

    def one_more() -> None:
        counts["compiled"] += 1

    def backend(graph: Any, inputs: Any) -> Any:
        counts["traced"] += 1
        return compat.compile_graph(graph, inputs, one_more)

    return backend


def _run_once(compiled: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    results = [leaf for leaf in tree_leaves(compiled(*args, **kwargs)) if isinstance(leaf, torch.Tensor)]
    results = [result for result in results if result.requires_grad]
    inputs = _leaves(results)
    if inputs:
        seeds = [torch.ones_like(result) for result in results]
        torch.autograd.grad(results, inputs, seeds, allow_unused=True)


def _leaves(results: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the tensors that a backward from `results` would accumulate into."""
    seen, todo, found = set(), [result.grad_fn for result in results], []
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        todo += [following for following, _ in node.next_functions]
    return found


def _finished(index: int, graph: Any, state: GraphState) -> Report:
    from comm_lowering import inductor_compat as compat

    return state.report(index, compat.schedule_of(graph))
