"""Collectives in `torch.utils.checkpoint`, which starts them again and stops as soon as backward has what it needs."""

import warnings

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import functional_collectives as fc
from comm_core import World
from comm_core.errors import UnwaitedWarning


def _passed_on(x, right, left, group):
    sent = fc.isend(x, right, group)
    return fc.irecv(x, left, group) + sent.sum()


CALLS = {
    "all_reduce": lambda x, right, left, group: fc.all_reduce(x, "sum", group),
    "all_gather": lambda x, right, left, group: fc.all_gather_tensor(x, 1, group).sum(1, keepdim=True),
    "batch_p2p": lambda x, right, left, group: fc.batch_p2p([fc.Send(x, right), fc.Receive(x, left)], group)[1],
    "isend and irecv": _passed_on,
}


def _twice(group, kept):
    """The gradients of a gradient's square, through each reduction, in a checkpoint or not."""
    n, found = group.world, []
    for op in ("sum", "min", "max", "product"):
        calls = {
            "all_reduce": lambda x, op=op: fc.all_reduce(x**3, op, group),
            "reduce": lambda x, op=op: fc.reduce(x**3, op, 0, group),
            "reduce_scatter": lambda x, op=op: fc.reduce_scatter_tensor(x**3, op, 0, group),
            "reduce_scatter_v": lambda x, op=op: fc.reduce_scatter_v(x**3, op, 0, group),
            "all_reduce_coalesced": lambda x, op=op: torch.cat(fc.all_reduce_coalesced([x**3, x], op, group)),
            "scan": lambda x, op=op: fc.scan(x**3, op, group),
        }
        for call in calls.values():
            x = (torch.arange(2.0 * n, dtype=torch.float64) + 1.5 * group.rank + 1).requires_grad_()
            y = checkpoint(call, x, use_reentrant=False) if kept else call(x)
            (slope,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
            (slope**2).sum().backward()
            found.append(x.grad.tolist())
    return found


@pytest.mark.world(1, 2)
def test_a_gradient_of_a_gradient_goes_through_a_checkpoint(world):
    assert world.run(_twice, True) == world.run(_twice, False)


STEPS = 8  # of which the second hung, or had the values of the first


def trained(group, name):
    """Return the results and gradients of some steps; the matrix is saved before the collective's result is used."""
    matrix, found = torch.full((1, 2), 3.0), []
    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnwaitedWarning)
        for step in range(STEPS):
            x = torch.full((3, 1), 1.0 + step + group.rank, requires_grad=True)

            def layer(x):
                return CALLS[name](x * x, right, left, group) @ matrix

            y = checkpoint(layer, x, use_reentrant=False)
            y.sum().backward()
            found.append((y[0, 0].item(), x.grad[0].item()))
    return found


def expected(n, name):
    """The same by hand: y is three times a sum of squares, of all ranks or of the left one."""
    squares = [[(1.0 + step + rank) ** 2 for rank in range(n)] for step in range(STEPS)]
    from_all = name in ("all_reduce", "all_gather")
    return [
        [
            (3 * (sum(each) if from_all else each[rank - 1]), (12.0 + 12 * (n - 1) * from_all) * (1 + step + rank))
            for step, each in enumerate(squares)
        ]
        for rank in range(n)
    ]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.world(2)
def test_what_a_checkpoint_starts_again_and_leaves_is_ended(name, world):
    assert world.run(trained, name) == expected(2, name)


@pytest.mark.filterwarnings("error::comm_core.errors.UnwaitedWarning")
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", CALLS)
def test_what_a_checkpoint_of_simulated_ranks_leaves_is_ended(name):
    assert World(3).run(lambda group: trained(group, name)) == expected(3, name)
