"""Gathers and reductions of uneven blocks: sizes given or exchanged, gradients of one process, compiled."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import functional_collectives as fc
from comm_core import World
from comm_core.errors import ArgumentError, CommError


def _leaf(rank):
    return (torch.arange(2.0 * (rank + 1), dtype=torch.float64).view(2, rank + 1) - rank).requires_grad_()


def _there_and_back(group, given):
    import functional_collectives as fc

    x = _leaf(group.rank)
    sizes = [rank + 1 for rank in range(group.world)] if given else None
    whole = fc.all_gather_v(x * x, 1, group, sizes=sizes)
    part = fc.reduce_scatter_v(whole * (group.rank + 1), "avg", 1, group)
    (part * (group.rank + 2)).sum().backward()
    return whole.detach() + 0, part.detach() + 0, x.grad


def _held(n, results):
    xs = [_leaf(rank) for rank in range(n)]
    whole = torch.cat([x * x for x in xs], 1)
    parts = (whole * sum(rank + 1 for rank in range(n)) / n).tensor_split(n, 1)
    sum((part * (rank + 2)).sum() for rank, part in enumerate(parts)).backward()
    for (got, part, gradient), x, want in zip(results, xs, parts, strict=True):
        torch.testing.assert_close(got, whole.detach())
        torch.testing.assert_close(part, want.detach())
        torch.testing.assert_close(gradient, x.grad)


@pytest.mark.world(1, 2, 3)
@pytest.mark.parametrize("given", [True, False])
def test_values_and_gradients_are_those_of_one_process(world, given):
    _held(world.size, world.run(_there_and_back, given))


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("given", [True, False])
def test_values_and_gradients_on_simulated_ranks(size, given):
    _held(size, World(size).run(_there_and_back, given))


def _in_flight(group):
    import functional_collectives as fc

    xs = [
        fc.all_gather_v(torch.ones(group.rank), 0, group, sizes=[0, 1, 2]),
        fc.reduce_scatter_v(torch.ones(5), "sum", 0, group),
    ]
    kinds = [type(x).__name__ for x in xs]
    return kinds, len(fc.inflight()), [tuple(x.shape) for x in xs], [x.sum().item() for x in xs]


@pytest.mark.world(3)
def test_results_are_in_flight_and_know_their_shapes(world):
    for rank, (kinds, flying, shapes, sums) in enumerate(world.run(_in_flight)):
        shares = (2, 2, 1)
        assert shapes == [(3,), (shares[rank],)]
        assert sums == [3.0, 3.0 * shares[rank]]
        assert flying == kinds.count("AsyncCollectiveTensor")


def _compiled(group, backend, given):
    import torch._dynamo
    import torch._dynamo.config

    import functional_collectives as fc

    sizes = [3, 0, 2][: group.world] if given else None

    def program(x):
        whole = fc.all_gather_v(x * 2, 0, group, sizes=sizes)
        return fc.reduce_scatter_v(torch.cat([whole, whole]), "sum", 0, group, sizes=[10, 0, 0] if given else None) + 1

    torch._dynamo.reset()
    x = torch.arange(2.0 * [3, 0, 2][group.rank]).view(-1, 2).requires_grad_()
    results = []
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        for one in (program, torch.compile(program, fullgraph=given, backend=backend)):
            y = one(x)
            results += [y.detach(), torch.autograd.grad((y * y).sum(), x)[0]]
    return torch.equal(results[0], results[2]), torch.equal(results[1], results[3])


def _sizes_exchanged_in_the_graph(group):
    import torch._dynamo
    from torch._dynamo.testing import CompileCounterWithBackend

    import functional_collectives as fc

    def program(x):
        return fc.all_gather_v(x * 2, 0, group) + 1

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(program, fullgraph=True, dynamic=True, backend=counter)
    found = []
    for more in (3, 4, 6):
        x = torch.arange(2.0 * (more + group.rank)).view(-1, 2).requires_grad_()
        for one in (program, compiled):
            y = one(x)
            found.append((y.detach(), torch.autograd.grad((y * y).sum(), x)[0]))
    pairs = zip(found[::2], found[1::2], strict=True)
    return [torch.equal(a, b) for eager, graph in pairs for a, b in zip(eager, graph, strict=True)], counter.frame_count


@pytest.mark.world(2, timeout=180)
def test_sizes_are_exchanged_in_one_graph(world):
    assert world.run(_sizes_exchanged_in_the_graph) == [([True] * 6, 1)] * 2


@pytest.mark.world(3, timeout=180)
@pytest.mark.parametrize(("backend", "given"), [("aot_eager", True), ("inductor", True), ("aot_eager", False)])
def test_compiled_equals_eager(world, backend, given):
    assert world.run(_compiled, backend, given) == [(True, True)] * 3


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("all_gather_v", {"gather_dim": 1}),
        ("all_gather_v", {"gather_dim": 0, "sizes": [1, 2, 3]}),
        ("all_gather_v", {"gather_dim": 0, "sizes": "ab"}),
        ("reduce_scatter_v", {"reduceOp": "sum", "scatter_dim": 0, "sizes": [1, 2, 3]}),
        ("reduce_scatter_v", {"reduceOp": "band", "scatter_dim": 0}),
    ],
)
def test_wrong_arguments_are_refused_at_the_call_on_every_rank(function, arguments):
    def body(group):
        with pytest.raises(CommError) as caught:
            getattr(fc, function)(torch.ones(5), group=group, **arguments)
        return caught.value.where

    assert World(3).run(body) == [function] * 3


def test_sizes_that_are_not_alike_are_named():
    def body(group):
        with pytest.raises(CommError) as caught:
            fc.wait_tensor(fc.all_gather_v(torch.ones(2), 0, group, sizes=[2, 2] if group.rank else [2, 3]))
        return "sizes (2, 3)" in caught.value.got and "sizes (2, 2)" in caught.value.got

    assert World(2).run(body) == [True, True]


def _in_parts(group):
    """Reductions of which a rank may not hold everything that arrives at once, against one process's."""
    import functional_collectives as fc

    n, wrong = group.world, []
    sizes = {"even": [2] * n, "greedy": [6, *[1] * (n - 1)], "all": [*[0] * (n - 1), 7], "ends": [3, *[0] * (n - 2), 4]}
    for name, shares in sizes.items():
        total = sum(shares)
        for dim, shape in ((0, (total,)), (0, (total, 3)), (1, (5, total)), (1, (1, total, 2)), (2, (2, 3, total, 2))):
            xs = [torch.arange(float(torch.Size(shape).numel())).view(shape) + 1000 * rank for rank in range(n)]
            own = xs[group.rank]
            for x in (own, own.transpose(0, -1).contiguous().transpose(0, -1)):
                y = fc.wait_tensor(fc.reduce_scatter_v(x, "sum", dim, group, sizes=shares))
                if not torch.equal(y, sum(xs).split(shares, dim)[group.rank]) or not y.is_contiguous():
                    wrong.append((name, dim, shape))
    return wrong


@pytest.mark.world(2, 3, 4)
def test_reductions_in_parts_are_whole(world):
    assert world.run(_in_parts) == [[]] * world.size


@pytest.mark.parametrize("mode", [FakeTensorMode, lambda: torch.device("meta")])
def test_sizes_that_nobody_can_tell_are_asked_for(mode):
    def body(group):
        with mode():
            x = torch.ones(group.rank + 1, 2)
            with pytest.raises(ArgumentError, match="pass sizes="):
                fc.all_gather_v(x, 0, group)
            return tuple(fc.all_gather_v(x, 0, group, sizes=[1]).shape)

    assert World(1).run(body) == [(1, 2)]


def _one_sums_and_others_weigh(group):
    import functional_collectives as fc

    sizes = list(range(1, group.world + 1))
    x = torch.ones(sizes[group.rank], 3000, requires_grad=True)
    y = fc.all_gather_v(x, 0, group, sizes=sizes)
    (y.sum() if group.rank == 0 else (y * 2).sum()).backward()
    return bool((x.grad == 2 * group.world - 1).all())


@pytest.mark.world(2, 3, 4)
def test_cotangents_that_lie_differently_on_each_rank_meet(world):
    """That of a sum is one number, expanded; the exchanges may not depend on it."""
    assert world.run(_one_sums_and_others_weigh) == [True] * world.size
