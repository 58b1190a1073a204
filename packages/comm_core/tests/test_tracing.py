"""The truth table of `is_traced`, row by row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from comm_core import compat
from comm_core.tracing import is_plain, is_traced


class Marked(torch.Tensor):
    """A subclass without any behaviour of its own."""


def seen(transform: Callable[[Callable[[torch.Tensor], torch.Tensor]], Callable[[torch.Tensor], object]]) -> list[bool]:
    """What `is_traced` says of the tensor inside a transform."""
    answers: list[bool] = []

    def body(x: torch.Tensor) -> torch.Tensor:
        answers.append(is_traced(x))
        return (x * x).sum()

    transform(body)(torch.ones(3))
    return answers


@pytest.mark.parametrize(
    "x", [torch.ones(2), torch.ones(2, requires_grad=True), torch.nn.Parameter(torch.ones(2)), torch.ones(2)[::2]]
)
def test_plain_tensors_go_straight_to_the_transport(x: torch.Tensor) -> None:
    assert not is_traced(x)
    with torch.no_grad():
        assert not is_traced(x)


def test_under_a_dispatch_mode_calls_go_through_the_dispatcher() -> None:
    x = torch.ones(2)
    with FakeTensorMode():
        assert is_traced(x)
    with FlopCounterMode(display=False):
        assert is_traced(x)
    assert not is_traced(x)


def test_under_make_fx() -> None:
    assert seen(make_fx) == [True]


def test_on_another_tensor_subclass() -> None:
    assert is_traced(torch.ones(2).as_subclass(Marked))
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.ones(2))
    assert is_traced(fake)


@pytest.mark.parametrize(
    "transform",
    [lambda f: torch.vmap(f), torch.func.grad, lambda f: lambda x: torch.func.jvp(f, (x,), (x,))],
    ids=["vmap", "grad", "jvp"],
)
def test_on_what_torch_func_wraps(transform: Callable[..., Callable[[torch.Tensor], object]]) -> None:
    answers: list[tuple[bool, bool]] = []

    def body(x: torch.Tensor) -> torch.Tensor:
        answers.append((is_traced(x), compat.is_transformed(x)))
        return (x * x).sum()

    transform(body)(torch.ones(3))
    assert answers == [(False, True)]


def test_inside_compile() -> None:
    def body(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if is_traced(x) else x - 1

    compiled = torch.compile(body, fullgraph=True, backend="eager")
    assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]
    assert body(torch.ones(2)).tolist() == [0.0, 0.0]


def test_inside_export() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if is_traced(x) else x - 1

    program = torch.export.export(Model(), (torch.ones(2),))
    assert program.module()(torch.ones(2)).tolist() == [2.0, 2.0]


def test_a_mode_outside_the_rank_does_not_reach_its_thread() -> None:
    from comm_core import World

    with FakeTensorMode():
        inside = World(2).run(lambda group: compat.dispatch_modes_active())
    assert inside == [False, False]


@pytest.mark.parametrize("x", [torch.ones(2), torch.nn.Parameter(torch.ones(2)), torch.ones(4)[::2], torch.ones(())])
def test_the_fast_path_takes_plain_tensors(x: torch.Tensor) -> None:
    assert is_plain(x)
    with torch.inference_mode():
        assert is_plain(x)


@pytest.mark.parametrize(
    "x",
    [
        3,
        None,
        [torch.ones(2)],
        torch.ones(2).as_subclass(Marked),
        torch.ones(2).to_sparse(),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch.ones(2, dtype=torch.complex64).conj().imag,
        torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8),
        torch.nested.nested_tensor([torch.ones(2)]),
    ],
    ids=["int", "None", "list", "subclass", "sparse", "conjugated", "negated", "quantized", "nested"],
)
def test_the_fast_path_takes_nothing_else(x: object) -> None:
    assert not is_plain(x)


def test_the_fast_path_is_closed_where_something_watches() -> None:
    x = torch.ones(2)
    with FlopCounterMode(display=False):
        assert not is_plain(x)
    with torch.autograd.forward_ad.dual_level():
        assert not is_plain(x)
    answers: list[bool] = []
    torch.vmap(lambda row: (answers.append(is_plain(row)), row)[1])(torch.ones(2, 2))
    assert answers == [False]
    compiled = torch.compile(lambda y: y + 1 if is_plain(y) else y - 1, fullgraph=True, backend="eager")
    assert compiled(x).tolist() == [0.0, 0.0]
    assert is_plain(x)
