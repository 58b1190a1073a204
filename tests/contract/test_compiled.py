"""Compiled and re-executed graphs give what eager calls give, forward and backward, and speak torch's own op names."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from comm_core import Group, run
from comm_core.catalog import CATALOG
from comm_core.collective import Lowering, Missing
from comm_core.testing import run_ranks

from .bodies import several
from .case import GLOO_ONLY_MOVES, LINEAR, Case, over_dtypes
from .cases import CASES, REFUSED
from .judge import expected, wrong

WORLDS = (3, 2, 1)
EVERYTHING = 2  # the group size in which every case is compiled, as that is slow; in the others the typical one


def compiled_cases(name: str, world: int) -> list[Case]:
    cases = [case for case in CASES[name](world) if case.linear]
    return cases if world == EVERYTHING else cases[:1]


def calling(group: Group, name: str, params: dict[str, Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: run(CATALOG[name], x, group, **params)


def backwards(f: Callable[..., list[torch.Tensor]], inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The results, and the gradients of the sum of their squares."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    results = f(leaves)
    loss = torch.stack([(got * got).sum() for got in results]).sum()
    return [*(got.detach() for got in results), *torch.autograd.grad(loss, leaves)]


def by_compiler(group: Group, name: str, cases: list[Case]) -> list[str]:
    """Compile all cases as one graph and say where it differs from eager."""
    inputs = [case.inputs()[group.rank] for case in cases]
    params = [case.params[group.rank] for case in cases]

    def call(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [run(CATALOG[name], x * 1, group, **of) * 1 for x, of in zip(inputs, params, strict=True)]

    torch.compiler.reset()
    eager = backwards(call, inputs)
    compiled = backwards(torch.compile(call, fullgraph=True, backend="aot_eager"), inputs)
    said = [wrong(one, other) for one, other in zip(compiled, eager, strict=True)]
    what = [f"{case.label}, {way}" for way in ("forward", "backward") for case in cases]
    return [f"{label}: {words}" for label, words in zip(what, said, strict=True) if words]


def by_make_fx(group: Group, name: str, cases: list[Case]) -> list[tuple[list[str], torch.Tensor | str]]:
    """Trace each case on zeros and run the graph on the case's own input: its ops and what it gives."""
    answers: list[tuple[list[str], torch.Tensor | str]] = []
    for case in cases:
        x = case.inputs()[group.rank]
        try:
            graph = make_fx(calling(group, name, case.params[group.rank]))(torch.zeros_like(x))
            ops = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
            answers.append((ops, graph(x)))
        except Exception as error:
            answers.append(([], f"{type(error).__name__}: {error}"))
    return answers


# What a rank does with all rows at once, so that a graph does not grow with the world; they move nothing.
OURS = {"comm_core.scan_rows.default", "comm_core.reduce_rows.default"}


@cache
def on_ranks(world: int, backend: str) -> list[dict[str, Any]]:
    jobs: dict[str, Any] = {}
    for name in CATALOG:
        jobs[f"{name} compiled"] = (by_compiler, (name, compiled_cases(name, world)))
        jobs[f"{name} graph"] = (by_make_fx, (name, CASES[name](world)))
    return run_ranks(several, world, backend, 240.0, (jobs,))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", list(CATALOG))
def test_compiled_is_eager(name: str, world: int, world_backend: str) -> None:
    assert [of[f"{name} compiled"] for of in on_ranks(world, world_backend)] == [[]] * world


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", list(CATALOG))
def test_a_traced_graph_runs_again_on_other_data(name: str, world: int, world_backend: str) -> None:
    twin = CATALOG[name].twin
    for rank, of in enumerate(on_ranks(world, world_backend)):
        for case, (ops, got) in zip(CASES[name](world), of[f"{name} graph"], strict=True):
            assert wrong(got, expected(name, case)[rank]) == "", f"{case.label} on rank {rank}"
            own = CATALOG[name].lowering is Lowering.OPAQUE
            assert (f"comm_core.{name}.default" if own else "_c10d_functional.wait_tensor.default") in ops
            if not isinstance(twin, Missing):
                assert f"_c10d_functional.{twin}.default" in ops, case.label
            foreign = [op for op in ops if not op.startswith(("_c10d_functional.", "aten.", "<built-in"))]
            foreign = [op for op in foreign if op not in OURS and (not own or op != f"comm_core.{name}.default")]
            assert foreign == []


def many_dtypes(group: Group, name: str) -> list[str]:
    """Trace the typical case in all dtypes, with all reduce ops, and compare the graph with eager."""
    found = []
    for case in over_dtypes(CASES[name](group.world)[0]):
        if case.dtype in GLOO_ONLY_MOVES:
            continue
        call, x = calling(group, name, case.params[group.rank]), case.inputs()[group.rank]
        try:
            said = wrong(make_fx(call)(x)(x), call(x))
        except Exception as error:
            said = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        found += [f"{name}, {case.label}: {said}"] if said else []
    return found


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("name", list(CATALOG))
def test_a_traced_graph_takes_the_dtypes_of_eager_calls(name: str) -> None:
    assert run_ranks(many_dtypes, world=2, args=(name,)) == [[], []]


def with_a_result_that_nobody_uses(group: Group) -> list[list[str]]:
    """What is left of a traced graph's ops after dead code is removed, and what a compiler is given."""

    def call(x: torch.Tensor) -> torch.Tensor:
        run(CATALOG["all_reduce"], x, group, reduce_op="sum")
        return x + 1

    graph = make_fx(call)(torch.zeros(2))
    graph.graph.eliminate_dead_code()
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch.compiler.reset()
    torch.compile(call, fullgraph=True, backend=backend)(torch.zeros(2))
    return [[str(node.target) for node in graph.graph.nodes if node.op == "call_function"], seen]


@pytest.mark.usefixtures("world_backend")
def test_a_collective_whose_result_nobody_uses_stays_in_the_graph() -> None:
    """Otherwise a rank that does use it would wait for one that does not."""
    for traced, compiled in run_ranks(with_a_result_that_nobody_uses, world=2):
        for ops in (traced, compiled):
            assert any("all_reduce" in op for op in ops), ops
            assert any("wait_tensor" in op for op in ops), ops


def refusals(group: Group) -> list[tuple[str, str]]:
    """Each entry's first refused call, compiled with and without leave to fall back: what each raises."""
    said = []
    for name, rows in REFUSED.items():
        for _, shape, params, _ in rows[:1]:
            call = calling(group, name, params)
            for fullgraph in (True, False):
                torch.compiler.reset()
                try:
                    torch.compile(call, fullgraph=fullgraph, backend="eager")(torch.zeros(shape))
                except Exception as error:
                    said.append((type(error).__name__, str(error)))
    return said


@pytest.mark.usefixtures("world_backend")
def test_a_wrong_argument_is_named_in_compiled_code_too() -> None:
    """With fullgraph Dynamo raises an error of its own around ours; otherwise ours comes through."""
    wanted = [(name, rows[0][3].__name__) for name, rows in REFUSED.items() if rows]
    for said in run_ranks(refusals, world=3, timeout=120.0):
        assert len(said) == 2 * len(wanted)
        for (name, kind), whole, fallen_back in zip(wanted, said[0::2], said[1::2], strict=True):
            assert f"{kind}('{name}'" in whole[1]
            assert fallen_back[0] == kind
            assert fallen_back[1].startswith(f"{name}: got ")


def test_only_reduce_ops_with_a_gradient_are_compiled_backwards() -> None:
    compiled = {case.params[0].get("reduce_op") for name in CATALOG for case in compiled_cases(name, EVERYTHING)}
    assert compiled - {None} == set(LINEAR)
