from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from comm_lowering.choose import Fate
from comm_lowering.liveness import fate

relu = torch.ops.aten.relu.default  # stands for the collective: a functional op with one tensor argument


def the_relu(fn: Callable[..., object]) -> fx.Node:
    graph = make_fx(fn, tracing_mode="fake")(torch.ones(4, 4)).graph
    return next(node for node in graph.nodes if node.target is relu)


@pytest.mark.parametrize(
    ("fn", "expected", "said"),
    [
        (lambda x: relu(x), Fate.LIVES, "is graph input"),
        (lambda x: relu(x.t()), Fate.LIVES, "shares memory with graph input"),
        (lambda x: (lambda y: relu(y) + y)(x * 2), Fate.LIVES, "add reads the input later"),
        (lambda x: (lambda y: (relu(y), y))(x * 2), Fate.LIVES, "the graph's output reads"),
        (lambda x: (lambda y, v: relu(y).sum() + v.sum())(*(lambda y: (y, y[1:]))(x * 2)), Fate.LIVES, "reads the"),
    ],
)
def test_a_functional_op_knows_who_still_needs_its_input(fn: Callable[..., object], expected: Fate, said: str) -> None:
    becomes, why = fate(the_relu(fn), written=False)
    assert becomes is expected
    assert said in why


def test_an_op_that_inductor_re_inplaced_has_a_dead_input() -> None:
    assert fate(the_relu(lambda x: relu(x * 2) + 1), written=True)[0] is Fate.DIES
    assert fate(the_relu(lambda x: relu((x * 2).view(16)).view(4, 4).t() + 1), written=True)[0] is Fate.DIES


def test_overwriting_that_the_program_can_see_is_kept_in_place() -> None:
    assert fate(the_relu(lambda x: relu(x)), written=True)[0] is Fate.OVERWRITTEN
    assert fate(the_relu(lambda x: relu(x.t())), written=True)[0] is Fate.OVERWRITTEN


def test_views_of_an_in_place_result_are_no_later_readers() -> None:
    in_place = torch.ops.aten.relu_.default
    with FakeTensorMode():
        graph = make_fx(lambda x: in_place(x * 2).t() + 1)(torch.ones(4, 4)).graph
    node = next(node for node in graph.nodes if node.target is in_place)
    assert fate(node, written=True)[0] is Fate.DIES
