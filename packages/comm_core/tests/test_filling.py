"""Calls whose kernel writes what it sends: views of conjugates and negatives, premultiplied sums; with gradients."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from comm_core import CATALOG, World, checked, launch, premul_sum, run
from comm_core.catalog import under
from comm_core_pytest import Ranks

SIZES = (3, 1, 2)
PARAMS: dict[str, dict[str, Any]] = {
    "all_gather": {"dim": 1},
    "all_gather_v": {"dim": 1, "sizes": (6, 6, 6)},
    "all_reduce": {"reduce_op": "sum"},
    "all_to_all": {"output_splits": None, "input_splits": None},
    "barrier": {},
    "batch_p2p": {"reverse": False},
    "broadcast": {"src": 1},
    "exscan": {"reduce_op": "avg", "reverse": False},
    "gather": {"dst": 1, "dim": 1, "sizes": (6, 6, 6)},
    "permute": {"destinations": (1, 2, 0)},
    "reduce": {"reduce_op": "sum", "dst": 1},
    "reduce_scatter": {"reduce_op": "sum", "dim": 1},
    "reduce_scatter_v": {"reduce_op": "avg", "dim": 1, "sizes": SIZES},
    "scan": {"reduce_op": "sum", "reverse": True},
    "scatter": {"src": 1, "dim": 1, "sizes": SIZES},
    "wait": {},
}
FILLS = {"all_gather", "all_gather_v", "exscan", "gather", "reduce_scatter", "reduce_scatter_v", "scan", "scatter"}
NAMES = sorted(set(CATALOG) - {"barrier"})
MULTIPLIED = ("reduce_scatter", "reduce_scatter_v", "scan", "exscan")


def params(name: str, rank: int) -> dict[str, Any]:
    ring = {"sends": (((rank + 1) % 3, 3, 0),), "receives": (((rank - 1) % 3, 3, 0),)}
    return {**PARAMS[name], **(ring if name == "batch_p2p" else {})}


def leaf(rank: int) -> torch.Tensor:
    parts = torch.arange(36.0, dtype=torch.float64).view(3, 6, 2) % 5 - rank
    return torch.view_as_complex(parts.contiguous()).requires_grad_()


def conjugate(x: torch.Tensor) -> torch.Tensor:
    return x.conj()


def negative(x: torch.Tensor) -> torch.Tensor:
    return x.conj().imag


def turned(x: torch.Tensor) -> torch.Tensor:
    return x.conj().t().reshape(2, 3, 3)[0].t().repeat(1, 2).conj()


def of_view(group: Any, name: str, view: Any) -> list[torch.Tensor]:
    """The result for a view, the same without a gradient, and the gradient by what it is a view of; and by hand."""
    found = []
    for resolve in (False, True):
        x = leaf(group.rank)
        sent = view(x)[:, : None if name != "scatter" or group.rank == PARAMS[name]["src"] else 0]
        sent = sent.resolve_conj().resolve_neg() if resolve else sent
        y = run(CATALOG[name], sent, group, **params(name, group.rank))
        ((y * y).abs() * (group.rank + 1)).sum().backward()
        plain = run(CATALOG[name], sent.detach(), group, **params(name, group.rank))
        started = launch(CATALOG[name], sent.detach(), group, **params(name, group.rank)).wait()
        found += [y.detach(), x.grad, plain, started]
    return found


def differ(group: Any) -> list[str]:
    wrong = []
    for name in NAMES:
        for view in (conjugate, negative, turned):
            found = of_view(group, name, view)
            if not all(torch.equal(x, y) for x, y in zip(found[:4], found[4:], strict=True)):
                wrong.append(f"{name} {view.__name__}")
    return wrong


@pytest.mark.world(3)
def test_a_view_of_conjugates_or_negatives_is_its_values(world: Ranks) -> None:
    assert world.run(differ) == [[]] * 3
    assert world.simulate(differ) == [[]] * 3


def scanned(group: Any) -> list[str]:
    """The scans whose expansion has the derivatives, of a negative view on one rank, and of negatives on the others."""
    wrong = []
    for name, op in itertools.product(("scan", "exscan"), ("product", "min", "max")):
        found = []
        for by_view in (True, False):
            x = leaf(group.rank).detach().real.contiguous().requires_grad_()
            sent = torch._neg_view(x) if by_view and group.rank == 1 else -x
            y = run(CATALOG[name], sent, group, reduce_op=op, reverse=False)
            (y.clamp(-99, 99) * (group.rank + 1)).sum().backward()
            found.append((y.detach(), x.grad))
        if not all(torch.equal(x, y) for x, y in zip(*found, strict=True)):
            wrong.append(f"{name} {op}")
    return wrong


@pytest.mark.world(3)
def test_a_negative_view_has_the_derivatives_of_negatives_also_by_expansion(world: Ranks) -> None:
    assert world.run(scanned) == [[]] * 3
    assert world.simulate(scanned) == [[]] * 3


def batched(group: Any) -> bool:
    x = leaf(group.rank).detach().conj().imag
    found = []
    for sent in (x, x.resolve_neg()):
        found.append(
            torch.func.vmap(lambda row: run(CATALOG["scan"], row, group, reduce_op="sum", reverse=False))(sent)
        )
    return torch.equal(*found)


def test_a_negative_view_goes_through_vmap() -> None:
    assert World(2).run(batched) == [True] * 2


def test_what_fills_is_what_lays_out() -> None:
    assert {name for name, entry in CATALOG.items() if entry.fills} == FILLS


def gradients(group: Any, name: str, factor: Any, by_hand: bool) -> list[torch.Tensor]:
    """The result of a premultiplied sum, both of its gradients, and those of their sum."""
    x = leaf(group.rank)
    learnt = torch.tensor(factor, dtype=torch.complex128 if isinstance(factor, complex) else torch.float64)
    learnt.requires_grad_()
    sent, op = (x * learnt, "sum") if by_hand else (x, premul_sum(learnt))
    y = run(CATALOG[name], sent, group, **{**PARAMS[name], "reduce_op": op})
    loss = ((y.abs() ** 2) * (group.rank + 1)).sum()
    first = torch.autograd.grad(loss, (x, learnt), create_graph=True)
    again = torch.autograd.grad(sum((one.abs() ** 2).sum() for one in first), (x, learnt))
    return [y.detach(), *(one.detach() for one in first), *again]


def learnt(group: Any) -> list[str]:
    wrong = []
    for name in MULTIPLIED:
        for factor in (0.5 - group.rank, 1.0 + 0.5j * group.rank):
            found = zip(*(gradients(group, name, factor, by_hand) for by_hand in (False, True)), strict=True)
            if not all(torch.allclose(x, y, rtol=1e-12) for x, y in found):
                wrong.append(f"{name} by {factor}")
    return wrong


@pytest.mark.world(3)
def test_gradients_by_tensor_and_factor_are_those_of_a_product_also_a_second_time(world: Ranks) -> None:
    assert world.run(learnt) == [[]] * 3
    assert world.simulate(learnt) == [[]] * 3


def unwritten(group: Any) -> list[str]:
    """Every collective whose backward writes to what it was given, or gives something else when it is recorded."""
    wrong = []
    for name, convention, op in itertools.product(NAMES, ("adjoint", "identity"), ("sum", "avg", premul_sum(0.5))):
        of = params(name, group.rank)
        if op != "sum" and "reduce_op" not in of:
            continue
        x = leaf(group.rank)
        sent = x[:, : None if name != "scatter" or group.rank == of["src"] else 0]
        y = run(under(CATALOG[name], convention), sent, group, **{k: op if k == "reduce_op" else of[k] for k in of})
        given = [x.detach(), y.detach(), torch.full_like(y, 1.0 + group.rank)]
        before = [each.clone() for each in given]
        (recorded,) = torch.autograd.grad(y, x, given[2], create_graph=True)
        (plain,) = torch.autograd.grad(y, x, given[2])
        if not all(map(torch.equal, [*given, plain], [*before, recorded.detach()])):
            wrong.append(f"{name}, {convention}, {op}")
    return wrong


@pytest.mark.world(3)
def test_backward_writes_to_nothing_that_it_was_given(world: Ranks) -> None:
    assert world.run(unwritten) == [[]] * 3
    assert world.simulate(unwritten) == [[]] * 3


def by_number(group: Any, factor: Any) -> bool:
    found = []
    for by_hand in (False, True):
        x = leaf(group.rank)
        sent, op = (x * factor, "sum") if by_hand else (x, premul_sum(factor))
        y = run(CATALOG["reduce_scatter"], sent, group, reduce_op=op, dim=1)
        (y.abs() ** 2).sum().backward()
        found.append((y.detach(), x.grad))
    return all(torch.equal(x, y) for x, y in zip(*found, strict=True))


@pytest.mark.parametrize("factor", [2, 0.5, 1 - 2j])
def test_a_number_multiplies_the_gradient_by_its_conjugate(factor: Any) -> None:
    assert World(3).run(by_number, factor) == [True] * 3


def in_checked_mode(group: Any) -> list[list[float]]:
    """Ranks that multiply meet one that does not: what they are asked to agree on is the sum."""
    with checked():
        op = "sum" if group.rank == 1 else premul_sum(10.0)
        y = run(CATALOG["reduce_scatter"], torch.ones(2, 3), group, reduce_op=op, dim=1)
    return y.tolist()


@pytest.mark.world(3)
def test_ranks_that_multiply_agree_with_one_that_does_not(world: Ranks) -> None:
    assert world.run(in_checked_mode) == [[[21.0], [21.0]]] * 3


def seen_by_a_hook(group: Any) -> bool:
    """What looks at saved tensors sees a product's and a sum's, and the gradient is the same."""
    found = []
    for hooked in (False, True):
        x, factor = leaf(group.rank), torch.tensor(2.0, requires_grad=True)
        pack = torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.clone(), lambda saved: saved)
        with pack if hooked else torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: saved):
            y = run(CATALOG["scan"], x, group, reduce_op=premul_sum(factor), reverse=False)
        (y.abs() ** 2).sum().backward()
        found.append((x.grad, factor.grad))
    return all(torch.equal(x, y) for x, y in zip(*found, strict=True))


def test_a_hook_on_saved_tensors_changes_no_gradient() -> None:
    assert World(2).run(seen_by_a_hook) == [True] * 2


def changed_before_backward(group: Any) -> str:
    x, factor = torch.ones(2, 2), torch.tensor(2.0, requires_grad=True)
    y = run(CATALOG["scan"], x, group, reduce_op=premul_sum(factor), reverse=False)
    x.add_(1)
    try:
        y.sum().backward()
    except RuntimeError as error:
        return str(error)
    return "nothing"


def test_a_write_to_what_the_factors_gradient_needs_is_refused() -> None:
    assert all("modified by an inplace operation" in said for said in World(2).run(changed_before_backward))


def transformed(group: Any) -> bool:
    """Under torch.func they are products and sums too."""

    def f(x: torch.Tensor, factor: torch.Tensor, by_hand: bool) -> torch.Tensor:
        sent, op = (x * factor, "sum") if by_hand else (x, premul_sum(factor))
        return (run(CATALOG["reduce_scatter"], sent, group, reduce_op=op, dim=1) ** 2).sum()

    x, factor, found = torch.arange(6.0).view(2, 3) + group.rank, torch.tensor(0.5), []
    for by_hand in (False, True):
        of_both = torch.func.grad(f, argnums=(0, 1))(x, factor, by_hand)
        of_factor = torch.func.grad(f, argnums=1)(x, factor, by_hand)
        of_batch = torch.func.vmap(lambda one, by_hand=by_hand: f(x, one, by_hand))(torch.arange(3.0))
        found.append([*of_both, of_factor, of_batch])
    return all(torch.equal(x, y) for x, y in zip(*found, strict=True))


def test_transforms_see_the_product() -> None:
    assert World(3).run(transformed) == [True] * 3
