"""The identity convention: what follows is computed alike on all ranks, and its loss is counted once."""

from typing import Any

import pytest
import torch

from comm_core import CATALOG, World, run
from comm_core.catalog import under
from comm_core.errors import ArgumentError
from comm_core.testing import run_ranks

REPLICATED = {  # results that are equal on all ranks: what they are, and a program in one process that gives them
    "all_reduce sum": ("all_reduce", {"reduce_op": "sum"}, lambda xs: sum(xs)),
    "all_reduce avg": ("all_reduce", {"reduce_op": "avg"}, lambda xs: sum(xs) / len(xs)),
    "all_reduce max": ("all_reduce", {"reduce_op": "max"}, lambda xs: torch.stack(xs).amax(0)),
    "all_reduce min": ("all_reduce", {"reduce_op": "min"}, lambda xs: torch.stack(xs).amin(0)),
    "all_reduce product": ("all_reduce", {"reduce_op": "product"}, lambda xs: torch.stack(xs).prod(0)),
    "all_gather": ("all_gather", {"dim": 1}, lambda xs: torch.cat(xs, 1)),
    "all_gather_v": ("all_gather_v", {"dim": 1, "sizes": 3}, lambda xs: torch.cat(xs, 1)),
    "broadcast": ("broadcast", {"src": 0}, lambda xs: xs[0] + 0 * sum(xs)),
}
PARTS = {
    "reduce_scatter": {"reduce_op": "sum", "dim": 0},
    "all_to_all": {"output_splits": None, "input_splits": None},
    "gather": {"dst": 0, "dim": 0, "sizes": None},
    "scatter": None,
    "reduce_scatter_v": None,
    "reduce": {"reduce_op": "sum", "dst": 0},
    "batch_p2p": None,
    "scan": {"reduce_op": "sum", "reverse": False},
    "exscan": {"reduce_op": "sum", "reverse": False},
    "barrier": {},
    "permute": None,
    "wait": {},
}


def leaf(rank: int, world: int) -> torch.Tensor:
    return (torch.arange(6.0 * world, dtype=torch.float64).view(2 * world, 3) - 2 + rank % 2).requires_grad_()


def of_ours(group: Any, case: str) -> torch.Tensor:
    name, params, _ = REPLICATED[case]
    x = leaf(group.rank, group.world)
    of_all = {name: [value] * group.world if name == "sizes" else value for name, value in params.items()}
    y = run(under(CATALOG[name], "identity"), x, group, **of_all)
    (y**3).sum().backward()  # the same loss on every rank
    assert x.grad is not None
    return x.grad


def all_of_ours(group: Any) -> dict[str, torch.Tensor]:
    return {case: of_ours(group, case) for case in REPLICATED}


def wanted(case: str, world: int) -> list[torch.Tensor]:
    xs = [leaf(rank, world) for rank in range(world)]
    (REPLICATED[case][2](xs) ** 3).sum().backward()  # once
    return [x.grad for x in xs]  # type: ignore[misc]


def test_every_entry_is_in_one_of_the_tables() -> None:
    assert {name for name, _, _ in REPLICATED.values()} | set(PARTS) == set(CATALOG)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("case", REPLICATED)
def test_a_replicated_loss_is_counted_once(case: str, world: int) -> None:
    torch.testing.assert_close(World(world).run(of_ours, case), wanted(case, world))


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_same_on_real_ranks(world: int) -> None:
    results = run_ranks(all_of_ours, world=world)
    for case in REPLICATED:
        torch.testing.assert_close([result[case] for result in results], wanted(case, world))


def test_the_linear_ones_do_not_communicate_in_backward() -> None:
    """One rank alone can run its backward; with the adjoint it would wait for the other."""

    def body(group: Any) -> bool:
        for name, params in (
            ("all_reduce", {"reduce_op": "sum"}),
            ("all_gather", {"dim": 0}),
            ("broadcast", {"src": 1}),
        ):
            x = torch.ones(2, requires_grad=True)
            y = run(under(CATALOG[name], "identity"), x, group, **params)
            if group.rank == 0:
                y.sum().backward()
        return True

    assert World(2).run(body) == [True, True]


@pytest.mark.parametrize("name", PARTS)
def test_where_ranks_hold_different_parts_the_conventions_agree(name: str) -> None:
    assert under(CATALOG[name], "identity").gradient is CATALOG[name].gradient


def compiled(group: Any) -> list[bool]:
    torch._dynamo.reset()

    def fn(x: torch.Tensor) -> torch.Tensor:
        y = run(under(CATALOG["all_reduce"], "identity"), x, group, reduce_op="sum")
        return run(under(CATALOG["all_gather"], "identity"), y, group, dim=0)

    x = leaf(group.rank, group.world)
    grads = [
        torch.autograd.grad((one(x) ** 2).sum(), x)[0]
        for one in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager"))
    ]
    return [torch.equal(*grads), bool((grads[0] != 0).any())]


@pytest.mark.usefixtures("world_backend")
def test_compiled_equals_eager() -> None:
    assert run_ranks(compiled, world=2) == [[True, True]] * 2


def test_another_convention_is_refused() -> None:
    with pytest.raises(ArgumentError, match="need 'adjoint' or 'identity'"):
        under(CATALOG["all_reduce"], "megatron")
