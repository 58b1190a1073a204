"""scan and exscan against a loop over ranks in one process; the barrier, which nobody passes alone."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import functional_collectives as fc
from comm_core import World
from comm_core.errors import DeadlockError

OPS = ("sum", "avg", "product", "min", "max")
FIRST = {"sum": 0.0, "avg": 0.0, "product": 1.0, "min": float("inf"), "max": -float("inf")}


def _leaf(rank):
    return (torch.tensor([1.5, -2.0, 0.0, 3.0], dtype=torch.float64) * (rank % 3) - 1).requires_grad_()


def _loss(y, rank):
    return (torch.where(y.isfinite(), y, 0) * (rank + 1)).sum()


def _ours(group):
    import functional_collectives as fc

    results = {}
    for name in ("scan", "exscan"):
        for op in OPS:
            for reverse in (False, True):
                x = _leaf(group.rank)
                y = getattr(fc, name)(x, op, group, reverse=reverse)
                _loss(y, group.rank).backward()
                results[name, op, reverse] = y.detach() + 0, x.grad
    return results


def _defined(n, name, op, reverse):
    """Each rank's loop over the ranks before it; ties are shared as amin and amax do."""
    xs = [_leaf(rank) for rank in range(n)]
    stack = torch.stack(xs)
    ys = []
    for rank in range(n):
        inclusive = name == "scan"
        rows = stack[rank + (not inclusive) :] if reverse else stack[: rank + inclusive]
        how = {"sum": rows.sum, "avg": rows.mean, "product": rows.prod, "min": rows.amin, "max": rows.amax}[op]
        ys.append(how(0) if len(rows) else stack[0].masked_fill(torch.tensor(True), FIRST[op]))
    sum(_loss(y, rank) for rank, y in enumerate(ys)).backward()
    return [(y.detach(), x.grad) for y, x in zip(ys, xs, strict=True)]


def _held(n, results):
    for name, op, reverse in results[0]:
        for got, want in zip(results, _defined(n, name, op, reverse), strict=True):
            torch.testing.assert_close(got[name, op, reverse], want, rtol=1e-12, atol=0)


def _weighted(y, rank):
    return (y**3 * (rank + 1)).sum()


def _second(group):
    """The second derivatives: of the ranks' gradients, squared."""
    found = []
    for op in ("product", "max"):
        x = _leaf(group.rank)
        (first,) = torch.autograd.grad(_weighted(fc.scan(x, op, group), group.rank), x, create_graph=True)
        found += torch.autograd.grad((first**2).sum(), x)
    return found


@pytest.mark.world(3)
def test_the_gradient_has_one_too(world):
    expected = [[] for _ in range(3)]
    for op in ("product", "max"):
        xs = [_leaf(rank) for rank in range(3)]
        stack = torch.stack(xs)
        rows = [stack[: rank + 1] for rank in range(3)]
        ys = [of_rank.prod(0) if op == "product" else of_rank.amax(0) for of_rank in rows]
        first = torch.autograd.grad(sum(map(_weighted, ys, range(3))), xs, create_graph=True)
        for each, of_rank in zip(expected, torch.autograd.grad(sum((g**2).sum() for g in first), xs), strict=True):
            each.append(of_rank)
    for found in (world.run(_second), world.simulate(_second)):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def _of_one_rank(group, reduce_op):
    """A scan of which rank 0 wants a gradient, and the others do not, under no_grad or of what requires none."""
    x = _leaf(group.rank)
    if group.rank == 1:
        with torch.no_grad():
            return fc.scan(x, reduce_op, group).tolist()
    return fc.scan(x if group.rank == 0 else x.detach(), reduce_op, group).tolist()


@pytest.mark.world(3)
@pytest.mark.parametrize("op", ["max", "product"])
def test_ranks_that_want_no_gradient_meet_those_that_do(world, op):
    xs = torch.stack([_leaf(rank).detach() for rank in range(3)])
    expected = (xs.cummax(0).values if op == "max" else xs.cumprod(0)).tolist()
    assert world.run(_of_one_rank, op) == expected
    assert world.simulate(_of_one_rank, op) == expected


def _written_before_backward(group):
    x = torch.ones(3, requires_grad=True)
    z = x * 2
    y = fc.scan(z, "product", group)
    fc.wait_tensor(y)
    z.mul_(5)
    with pytest.raises(RuntimeError) as caught:
        y.sum().backward()
    return "modified by an inplace operation" in str(caught.value)


def test_a_write_to_what_backward_expands_is_refused():
    assert World(2).run(_written_before_backward) == [True] * 2


@pytest.mark.world(1, 2, 3)
def test_values_and_gradients_are_those_of_one_process(world):
    _held(world.size, world.run(_ours))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_values_and_gradients_on_simulated_ranks(size):
    _held(size, World(size).run(_ours))


def _compiled(group, backend):
    import torch._dynamo

    import functional_collectives as fc

    def program(x):
        return fc.scan(fc.exscan(x, "sum", group) + x, "product", group, reverse=True) + 0

    torch._dynamo.reset()
    x = (torch.arange(4.0) - group.rank).requires_grad_()
    results = []
    for one in (program, torch.compile(program, fullgraph=True, backend=backend)):
        y = one(x)
        results += [y.detach(), torch.autograd.grad((y * y).sum(), x)[0]]
    with torch.no_grad():
        results += [torch.compile(program, fullgraph=True, backend=backend)(x)]
    return torch.equal(results[0], results[2]), torch.allclose(results[1], results[3]), torch.equal(*results[::4])


@pytest.mark.world(2, timeout=180)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_equals_eager(world, backend):
    assert world.run(_compiled, backend) == [(True, True, True)] * 2


def _jvp(group):
    import functional_collectives as fc

    x = _leaf(group.rank).detach()
    direction = torch.ones_like(x) * (group.rank + 1)
    return {op: torch.func.jvp(lambda x, op=op: fc.scan(x, op, group), (x,), (direction,))[1] for op in OPS}


@pytest.mark.world(3)
def test_forward_mode(world):
    results = world.run(_jvp)
    for op in OPS:
        for got, want in zip(results, _tangents(op), strict=True):
            torch.testing.assert_close(got[op], want)


def _tangents(op):
    xs = [_leaf(rank).detach() for rank in range(3)]
    directions = tuple(torch.ones_like(x) * (rank + 1) for rank, x in enumerate(xs))

    def whole(*xs):
        stack = torch.stack(xs)
        rows = [stack[: rank + 1] for rank in range(3)]
        how = {"sum": torch.sum, "avg": torch.mean, "product": torch.prod, "min": torch.amin, "max": torch.amax}[op]
        return tuple(how(of, 0) for of in rows)

    return torch.func.jvp(whole, tuple(xs), directions)[1]


def test_a_barrier_is_passed_when_all_have_come():
    came = []

    def body(group):
        came.append(group.rank)
        fc.barrier(group)
        return len(came)

    assert World(4).run(body) == [4] * 4


def _on_real_ranks(group):
    import functional_collectives as fc

    return fc.barrier(group), fc.barrier()


@pytest.mark.world(1, 3)
def test_a_barrier_on_real_ranks(world):
    assert world.run(_on_real_ranks) == [(None, None)] * world.size


def test_a_rank_that_never_comes_is_named():
    def body(group):
        if group.rank:
            with pytest.raises(DeadlockError, match="rank 0 has returned"):
                fc.barrier(group)

    World(3).run(body)


def test_a_barrier_in_a_graph_and_among_fakes(fake_world):
    group = fake_world(4)

    def program(x):
        fc.barrier(group)
        return x + 1

    traced = make_fx(program)(torch.ones(2))
    assert "wait_tensor" in traced.code
    with FakeTensorMode():
        assert program(torch.ones(2)).shape == (2,)
    assert torch.vmap(program)(torch.ones(2)).tolist() == [2.0, 2.0]
    assert torch.func.jvp(program, (torch.ones(2),), (torch.ones(2),))[1].tolist() == [1.0, 1.0]


def _ops_of_the_compiled_barrier(group):
    import torch._dynamo

    import functional_collectives as fc

    seen = []

    def backend(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    def program(x):
        fc.barrier(group)
        return x + 1

    torch._dynamo.reset()
    return torch.compile(program, fullgraph=True, backend=backend)(torch.ones(2)).tolist(), seen


@pytest.mark.world(2)
def test_a_compiled_barrier_stays_though_nobody_uses_it(world):
    for got, ops in world.run(_ops_of_the_compiled_barrier):
        assert got == [2.0, 2.0]
        assert any("all_reduce" in op for op in ops)
        assert any("wait_tensor" in op for op in ops)
