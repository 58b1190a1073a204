"""What stands in the generated code. The groups are fake: the code is looked at, values are in test_values.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed._functional_collectives as funcol
from torch._inductor.utils import run_and_get_code

import comm_lowering
from comm_lowering import Policy, inductor_compat


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple[str, ...]


def source(fn: Callable[..., Any], *args: Any) -> str:
    """The body of the compiled code."""
    torch._dynamo.reset()
    with inductor_compat.uncached():
        _, (code, *_) = run_and_get_code(torch.compile(fn, fullgraph=True), *args)
    return code[code.index("def call(self, args)") : code.index("runner = Runner")]


def generated(fn: Callable[..., Any], *args: Any) -> list[Call]:
    """The kernels and collectives that the compiled code calls, in order."""
    body = source(fn, *args)
    found = re.findall(r"^ +(?:\w+ = )?((?:cpp_fused|torch\.ops\._c10d_functional\.)[\w.]*)\((.*)\)$", body, re.M)
    return [
        Call(name.removeprefix("torch.ops._c10d_functional.").removesuffix(".default"), tuple(given.split(", ")))
        for name, given in found
    ]


def names(calls: list[Call]) -> list[str]:
    return ["kernel" if call.name.startswith("cpp_fused") else call.name for call in calls]


X = torch.ones(8, 6)
Start = Callable[[int], str]


def test_a_dying_input_is_reduced_in_the_buffer_that_its_producer_wrote(fake_group: Start) -> None:
    name = fake_group(3)
    comm_lowering.enable()
    calls = generated(lambda x: funcol.all_reduce(x * 2, "sum", name) + 1, X)
    assert names(calls) == ["kernel", "all_reduce_", "wait_tensor", "kernel"]
    produced = calls[0].arguments[-1]
    assert calls[0].arguments == ("arg0_1", produced)
    assert calls[1].arguments[0] == calls[2].arguments[0] == calls[3].arguments[0] == produced


def test_an_input_that_lives_on_is_copied_first(fake_group: Start) -> None:
    name = fake_group(3)
    comm_lowering.enable()
    calls = generated(lambda x: funcol.all_reduce(x, "sum", name) + x, X)
    assert names(calls) == ["kernel", "all_reduce_", "wait_tensor", "kernel"]
    assert calls[1].arguments[0] != "arg0_1"
    assert calls[0].arguments == ("arg0_1", calls[1].arguments[0])
    assert "arg0_1" in calls[3].arguments


def test_a_group_of_one_rank_calls_nothing_unless_asked_to(fake_group: Start) -> None:
    name = fake_group(1)

    def fn(x: torch.Tensor) -> torch.Tensor:
        y = funcol.all_reduce(x * 2, "sum", name) + funcol.all_gather_tensor(x, 0, name)
        return y + funcol.reduce_scatter_tensor(x, "sum", 0, name)

    comm_lowering.enable()
    assert names(generated(fn, X)) == ["kernel"]
    comm_lowering.enable(Policy(lone_group="call"))
    assert {"all_reduce_", "all_gather_into_tensor", "reduce_scatter_tensor"} <= set(names(generated(fn, X)))


def test_copies_are_reported_as_they_are_in_the_code(fake_group: Start) -> None:
    name = fake_group(3)

    def after_matmul(x: torch.Tensor) -> torch.Tensor:
        return funcol.all_reduce(x @ x.t(), "sum", name) + 1

    def after_pointwise(x: torch.Tensor) -> torch.Tensor:
        return funcol.all_reduce(x * 2, "sum", name) + 1

    seen = {}
    for in_place in ("auto", "never"):
        comm_lowering.enable(Policy(in_place=in_place))  # type: ignore[arg-type]
        for fn in (after_matmul, after_pointwise):
            (record,) = comm_lowering.explain(fn, X).collectives
            kernels = names(generated(fn, X)).count("kernel")
            seen[in_place, fn.__name__] = (record.copies_added, record.copies_saved, record.copy, kernels)
    assert seen == {
        ("auto", "after_matmul"): (0, 1, "none", 1),
        ("auto", "after_pointwise"): (0, 1, "none", 2),
        ("never", "after_matmul"): (1, 0, "own kernel", 2),
        ("never", "after_pointwise"): (0, 1, "fused away", 2),
    }


def test_a_wait_on_a_view_keeps_the_input_from_being_reused_too_early(fake_group: Start) -> None:
    """Inductor's own lowering lets the matrix product write into the buffer that is still being sent."""
    name, ops = fake_group(3), torch.ops._c10d_functional

    def fn(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sent = x * 2
        started = ops.all_gather_into_tensor(sent, 3, name).view(-1)
        meanwhile = torch.mm(x, w).relu().sum()  # the product has the size of `sent`
        return meanwhile, ops.wait_tensor(started) + 1

    comm_lowering.enable()
    code = source(fn, X, torch.ones(6, 6))
    in_flight = code[code.index("all_gather_into_tensor.default(buf0") : code.index("wait_tensor.default(")]
    assert "extern_kernels.mm(" in in_flight
    assert "buf0;" not in in_flight
    (record,) = comm_lowering.explain(fn, X, torch.ones(6, 6)).collectives
    assert (record.wait, record.kernels_before_wait) == ("after 2 kernels", 2)


def test_an_input_that_another_lowering_aliased_is_not_overwritten(fake_group: Start, monkeypatch: Any) -> None:
    """The graph says that sin makes a fresh tensor; a lowering that hands its input on breaks that promise."""
    from torch._inductor import lowering

    name, sin = fake_group(3), torch.ops.aten.sin.default
    monkeypatch.setitem(lowering.lowerings, sin, lambda x: x)
    comm_lowering.enable()
    calls = generated(lambda x: funcol.all_reduce(torch.sin(x), "sum", name) + 1, X)
    assert calls[names(calls).index("all_reduce_")].arguments[0] != "arg0_1"


def test_without_user_lowerings_the_built_in_table_is_used_and_restored(fake_group: Start, monkeypatch: Any) -> None:
    """Torch 2.11 has no user_lowerings."""
    from torch._inductor import lowering

    monkeypatch.setattr(inductor_compat, "_tables", lambda: (lowering.lowerings,))
    name, before = fake_group(1), dict(lowering.lowerings)
    comm_lowering.enable(Policy(collectives=("all_reduce",)))
    calls = generated(lambda x: funcol.all_reduce(x, "sum", name) + funcol.all_gather_tensor(x, 0, name), X)
    assert "all_gather_into_tensor" in names(calls)
    assert "all_reduce_" not in names(calls)
    comm_lowering.disable()
    assert lowering.lowerings == before
