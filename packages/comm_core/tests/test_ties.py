"""Ties: nobody but autograd notices them, and second backwards meet under modes, hooks and checkpoints too."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from comm_core import World, catalog, execution, run


def total(x: torch.Tensor, group: Any, op: str = "sum") -> torch.Tensor:
    return run(catalog.ALL_REDUCE, x, group, reduce_op=op)


def bent(y: torch.Tensor, group: Any) -> torch.Tensor:
    return (y**3).sum() if group.rank == 0 else y.sum()


def at(group: Any) -> torch.Tensor:
    return torch.tensor([1.0, 2.0], dtype=torch.float64) + group.rank


def test_a_mode_that_watches_ops_changes_nothing() -> None:
    """The total s is 3 and 5; each slope g = 3 s**2 + 1, the loss of both 2 g**2, and its slope 4 g times 6 s."""

    def body(group: Any) -> list[float]:
        x = at(group).requires_grad_()
        with FlopCounterMode(display=False):
            (once,) = torch.autograd.grad(bent(total(x, group), group), x, create_graph=True)
            return torch.autograd.grad(once.square().sum(), x)[0].tolist()

    assert World(2).run(body) == [[4 * 28.0 * 18.0, 4 * 76.0 * 30.0]] * 2


def test_hvp_and_hessian_of_autograd_functional() -> None:
    """The loss is s**3 and s, of the totals s: its second derivative by both ranks' inputs 6 s."""

    def body(group: Any) -> tuple[list[float], list[list[float]]]:
        def loss(x: torch.Tensor) -> torch.Tensor:
            return bent(total(x, group), group)

        _, product = torch.autograd.functional.hvp(loss, at(group), torch.ones(2, dtype=torch.float64))
        return product.tolist(), torch.autograd.functional.hessian(loss, at(group), vectorize=True).tolist()

    assert World(2).run(body) == [([36.0, 60.0], [[36.0, 0.0], [0.0, 60.0]])] * 2


@pytest.mark.parametrize("op", ["sum", "product"])
@pytest.mark.parametrize("watched", ["forward", "backward"])
def test_a_checkpoint_saves_the_same_with_a_mode_and_without(op: str, watched: str) -> None:
    def body(group: Any) -> list[float]:
        w, x = torch.ones(2, 2, requires_grad=True), torch.ones(2, requires_grad=True)
        modes = {watched: FlopCounterMode(display=False)}

        def under(name: str, call: Callable[[], Any]) -> Any:
            if name not in modes:
                return call()
            with modes[name]:
                return call()

        y = under("forward", lambda: checkpoint(lambda x: total(x @ w, group, op).relu(), x, use_reentrant=False))
        under("backward", lambda: y.sum().backward())
        return x.grad.tolist()  # type: ignore[union-attr]

    assert World(1).run(body) == [[2.0, 2.0]]


def test_a_checkpoint_does_not_run_a_sum_again_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    move = execution.move
    monkeypatch.setattr(execution, "move", lambda entry, *rest: (moved.append(entry.name), move(entry, *rest))[1])

    def body(group: Any) -> None:
        w, x = torch.ones(2, 2, requires_grad=True), torch.ones(2, requires_grad=True)
        checkpoint(lambda x: total((x @ w).relu(), group), x, use_reentrant=False).sum().backward()

    World(1).run(body)
    assert moved == ["all_reduce", "all_reduce"]  # forward and backward


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_what_is_dropped_goes_without_the_collector(hooked: bool, twice: bool) -> None:
    def body(group: Any) -> bool:
        x, scale = torch.ones(3, requires_grad=True), torch.ones(3)
        gone = weakref.ref(scale)
        z = x.sum() * scale
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t) if hooked else torch.enable_grad():
            y = total(z, group)
        del scale, z
        if twice:
            (once,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            del once
        del x, y
        return gone() is None

    gc.collect()
    gc.disable()
    try:
        assert World(1).run(body) == [True]
    finally:
        gc.enable()


def test_hooks_of_saved_tensors_may_be_forbidden() -> None:
    def body(group: Any) -> list[float]:
        x = at(group).requires_grad_()
        with torch.autograd.graph.disable_saved_tensors_hooks("no hooks here"):
            (once,) = torch.autograd.grad(bent(total(x, group), group), x, create_graph=True)
            return torch.autograd.grad(once.sum(), x)[0].tolist()

    assert World(2).run(body) == [[36.0, 60.0]] * 2
