from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed._functional_collectives as funcol

import comm_core
import comm_lowering
from comm_core import catalog
from comm_core.errors import ArgumentError
from comm_lowering import Policy, inductor_compat

Start = Callable[[int], str]
HERE = Path(__file__).name


def test_a_function_without_collectives_has_an_empty_report_that_says_so() -> None:
    report = comm_lowering.explain(lambda x: x + 1, torch.ones(3))
    assert report.collectives == ()
    assert "no collectives in 1 compiled graph (1 traced)" in str(report)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ArgumentError, match="got a int"):
        comm_lowering.explain(3)  # type: ignore[arg-type]


def test_a_graph_break_is_counted_and_its_reason_given(fake_group: Start) -> None:
    name = fake_group(3)

    def fn(x: torch.Tensor) -> torch.Tensor:
        y = funcol.all_reduce(x * 2, "sum", name)
        torch._dynamo.graph_break(msg="asked for by the test")
        return funcol.all_reduce(y + 1, "sum", name)

    report = comm_lowering.explain(fn, torch.ones(8, 6))
    assert (report.graphs, report.compiled) == (2, 2)
    assert [record.graph for record in report.collectives] == [0, 1]
    assert any("asked for by the test" in reason for reason in report.graph_breaks)


class Block(torch.nn.Module):
    """A column-parallel and a row-parallel layer, as tensor parallelism has them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(6, 8)
        self.down = torch.nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.up(x).relu()
        return comm_core.run(catalog.ALL_REDUCE, self.down(hidden), None, reduce_op="sum")


def test_a_module_is_explained_forward_and_backward_without_touching_gradients(fake_group: Start) -> None:
    fake_group(3)
    torch.manual_seed(0)
    block = Block()
    report = comm_lowering.explain(torch.compile(block), torch.ones(8, 6))
    assert [(record.op, record.phase) for record in report.collectives] == [
        ("all_reduce", "forward"),
        ("all_reduce", "backward"),
    ]
    assert all(parameter.grad is None for parameter in block.parameters())
    forward = report.collectives[0]
    assert (forward.kernel, forward.nbytes, forward.dtype, forward.world) == ("in_place", 8 * 6 * 4, "float32", 3)
    line = Block.forward.__code__.co_firstlineno + 2
    assert forward.source == f"{HERE}:{line} in forward"


def test_explain_leaves_the_switch_as_it_was_and_uses_the_policy_in_force(fake_group: Start) -> None:
    name, x = fake_group(3), torch.ones(8, 6)

    def fn(x: torch.Tensor) -> torch.Tensor:
        return funcol.all_reduce(x * 2, "sum", name) + 1

    assert comm_lowering.explain(fn, x).policy == Policy()
    assert comm_lowering.enabled() is None
    only_waits = Policy(collectives=("wait",))
    comm_lowering.enable(only_waits)
    report = comm_lowering.explain(fn, x)
    assert comm_lowering.enabled() == report.policy == only_waits
    assert [record.kernel for record in report.collectives] == ["inductor"]


def test_explaining_often_never_falls_back_to_eager(fake_group: Start) -> None:
    """Dynamo gives up compiling a function anew after 8 times; a report must not then be empty."""
    name = fake_group(64)

    def fn(x: torch.Tensor) -> torch.Tensor:
        return funcol.all_reduce(x, "sum", name)

    found = [len(comm_lowering.explain(fn, torch.ones(8, 6)).collectives) for _ in range(10)]
    assert found == [1] * 10


def test_the_log_has_the_graphs_compiled_elsewhere(fake_group: Start) -> None:
    name = fake_group(3)
    comm_lowering.enable()
    with inductor_compat.uncached():
        torch.compile(lambda x: funcol.all_reduce(x * 3, "max", name), fullgraph=True)(torch.ones(8, 6))
    report = comm_lowering.last_report()
    assert report is not None
    assert report == comm_lowering.reports()[-1]
    assert [record.wait for record in report.collectives] == ["in program order"]
