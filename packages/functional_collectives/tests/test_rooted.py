"""gather and scatter as functions: in flight, differentiable from placeholders, compiled, refused on every rank."""

import pytest
import torch

import functional_collectives as fc
from comm_core import World
from comm_core.errors import CommError


def _there_and_back(group):
    """Scatter what the last rank has, change it, gather it on rank 0."""
    import functional_collectives as fc

    n = group.world
    x = (torch.arange(2.0 * n, dtype=torch.float64).view(2, n) + 10 * group.rank).requires_grad_()
    part = fc.scatter(x, n - 1, 1, group)
    whole = fc.gather(part * part * (group.rank + 1), 0, -1, group)
    (whole.sum() * 3).backward()
    return part.detach() + 0, whole.detach() + 0, x.grad


def _defined(n):
    x = (torch.arange(2.0 * n, dtype=torch.float64).view(2, n) + 10 * (n - 1)).requires_grad_()
    whole = x * x * torch.arange(1.0, n + 1, dtype=torch.float64)
    (whole.sum() * 3).backward()
    return x, whole


@pytest.mark.world(1, 2, 3)
def test_values_and_gradients_are_those_of_one_process(world):
    _held(world.size, world.run(_there_and_back))


@pytest.mark.parametrize("size", [1, 3, 4])
def test_values_and_gradients_on_simulated_ranks(size):
    _held(size, World(size).run(_there_and_back))


def _held(n, results):
    x, whole = _defined(n)
    for rank, (part, gathered, gradient) in enumerate(results):
        assert torch.equal(part, x.detach()[:, rank : rank + 1])
        assert torch.equal(gathered, whole.detach() if rank == 0 else whole.detach()[:, :0])
        assert torch.equal(gradient, x.grad if rank == n - 1 else torch.zeros(2, n, dtype=torch.float64))


def _in_flight(group):
    import functional_collectives as fc

    xs = [fc.gather(torch.ones(3), 0, 0, group), fc.scatter(torch.ones(3 * group.world), 0, 0, group)]
    kinds = [type(x).__name__ for x in xs]
    assert [x.where.rpartition(":")[0].endswith("test_rooted.py") for x in fc.inflight()] == [True, True]
    return kinds, [x.tolist() for x in xs]


@pytest.mark.world(1, 3)
def test_results_are_in_flight_until_used(world):
    for rank, (kinds, values) in enumerate(world.run(_in_flight)):
        assert kinds == ["AsyncCollectiveTensor"] * 2
        assert values == [[1.0] * 3 * world.size if rank == 0 else [], [1.0] * 3]


def _compiled(group, backend):
    import torch._dynamo

    import functional_collectives as fc

    def program(x):
        return fc.gather(fc.scatter(x, 1, 0, group, sizes=[2, 0, 4]) * 2, 1, 0, group, sizes=[2, 0, 4]) + 0

    torch._dynamo.reset()
    x = torch.arange(12.0).view(6, 2).add_(group.rank).requires_grad_()
    results = []
    for one in (program, torch.compile(program, fullgraph=True, backend=backend)):
        y = one(x)
        results += [y.detach(), torch.autograd.grad((y * y).sum(), x)[0]]
    return torch.equal(results[0], results[2]) and torch.equal(results[1], results[3]), tuple(results[0].shape)


@pytest.mark.world(3, timeout=180)
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_compiled_equals_eager(world, backend):
    assert world.run(_compiled, backend) == [(True, (0, 2)), (True, (6, 2)), (True, (0, 2))]


def _sizes_of_the_others(group):
    x = torch.ones(5, 2)  # more rows than are sent: only the source's are looked at
    given = x[:3] if group.rank == 0 else x
    return fc.scatter(given, 0, 0, group, sizes=[1, 2, 0]).sum(1).tolist()


def test_what_the_others_hold_does_not_matter():
    assert World(3).run(_sizes_of_the_others) == [[2.0], [2.0, 2.0], []]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("gather", {"dst": 3}),
        ("gather", {"dst": 0, "gather_dim": 2}),
        ("gather", {"dst": 0, "sizes": [1, 1]}),
        ("scatter", {"src": -1}),
        ("scatter", {"src": 0, "scatter_dim": 1}),
        ("scatter", {"src": 0, "sizes": [1, 2]}),
        ("scatter", {"src": 0, "sizes": "abc"}),
    ],
)
def test_wrong_arguments_are_refused_at_the_call_on_every_rank(function, arguments):
    def body(group):
        with pytest.raises(CommError) as caught:
            getattr(fc, function)(torch.ones(3, 2), group=group, **arguments)
        return caught.value.where

    assert World(3).run(body) == [function] * 3
