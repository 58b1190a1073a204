"""The public functions: group spellings, in flight or finished, composed, compiled, refused."""

import pytest
import torch

import functional_collectives as fc
from comm_core import World, errors


def _spellings(group):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    import functional_collectives as fc

    n = group.world
    mesh = init_device_mesh("cpu", (1, n), mesh_dim_names=("dp", "tp"))
    x = torch.tensor([1.0 + group.rank])
    spelled = [
        None,
        group,
        dist.group.WORLD,
        dist.group.WORLD.group_name,
        mesh["tp"],
        (mesh, "tp"),
        (mesh, 1),
        (mesh, -1),
        list(range(n)),
        mesh,
    ]
    return [fc.all_reduce(x, "sum", one).item() for one in spelled]


@pytest.mark.world(1, 2, 3)
def test_every_spelling_of_a_group_means_it(world):
    total = sum(range(1, world.size + 1))
    assert world.run(_spellings) == [[total] * 10] * world.size


def _in_flight(group):
    import functional_collectives as fc

    results = {
        "all_reduce": fc.all_reduce(torch.ones(2), "sum"),
        "all_gather": fc.all_gather_tensor(torch.ones(2, 2), 1),
        "reduce_scatter": fc.reduce_scatter_tensor(torch.ones(group.world, 2), "sum", 0),
        "all_to_all": fc.all_to_all_single(torch.ones(group.world), None, None),
        "broadcast": fc.broadcast(torch.ones(2), 0),
        "permute": fc.permute_tensor(torch.ones(2, 2), [(i + 1) % group.world for i in range(group.world)]),
    }
    flying = {record.name for record in fc.inflight()}
    kinds = {name: type(x).__name__ for name, x in results.items()}
    for x in results.values():
        fc.wait_tensor(x)
    return kinds, flying, len(fc.inflight())


@pytest.mark.world(2, 3)
def test_every_collective_returns_in_flight_and_is_listed(world):
    for kinds, flying, left in world.run(_in_flight):
        assert set(kinds.values()) == {"AsyncCollectiveTensor"}
        assert flying == {"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "permute"}
        assert left == 0


def _program(x, group):
    n = group.world
    y = fc.all_gather_tensor(fc.all_reduce(x * 2, "sum", group), 1, group)
    z = fc.reduce_scatter_tensor(y, "avg", 1, group) + fc.broadcast(x, n - 1, group)
    w = fc.permute_tensor(z, [(i + 1) % n for i in range(n)], group)
    return fc.all_to_all_single(w * x, None, None, group)


def _eager_and_compiled(group, backend):
    import torch._dynamo

    torch._dynamo.reset()
    x = (torch.arange(4.0 * group.world).view(2 * group.world, 2) + group.rank).requires_grad_()
    eager = _program(x, group)
    (eager_grad,) = torch.autograd.grad((eager * eager).sum(), x)
    compiled = torch.compile(lambda x: _program(x, group), fullgraph=True, backend=backend)(x)
    (compiled_grad,) = torch.autograd.grad((compiled * compiled).sum(), x)
    return torch.equal(eager.detach() + 0, compiled.detach()), torch.allclose(eager_grad, compiled_grad, rtol=1e-6)


@pytest.mark.world(1, 2, 3)
def test_compiled_fullgraph_equals_eager_forward_and_backward(world):
    assert world.run(_eager_and_compiled, "aot_eager") == [(True, True)] * world.size


@pytest.mark.world(2, timeout=180)
def test_compiled_with_inductor_equals_eager(world):
    assert world.run(_eager_and_compiled, "inductor") == [(True, True)] * world.size


@pytest.mark.parametrize("size", [1, 3])
def test_compiled_equals_eager_on_simulated_ranks(size):
    assert World(size).run(_eager_and_compiled, "aot_eager") == [(True, True)] * size


def test_a_compiled_function_keeps_its_groups_apart():
    """One compiled function called with two groups must not reuse the first one's graph."""

    def body(group):
        pair = group.subgroup([group.rank // 2 * 2, group.rank // 2 * 2 + 1])
        compiled = torch.compile(lambda x, g: fc.all_reduce(x, "sum", g), backend="eager", fullgraph=True)
        x = torch.tensor([float(group.rank)])
        return [compiled(x, group).item(), compiled(x, pair).item(), compiled(x, group).item()]

    assert World(4).run(body) == [[6, 1, 6], [6, 1, 6], [6, 5, 6], [6, 5, 6]]


def _oracle(xs):
    """The program's outputs over all ranks, from the definitions, in one process."""
    n = len(xs)
    reduced = [sum(x * 2 for x in xs)] * n
    gathered = [torch.cat(reduced, 1)] * n
    z = [sum(gathered).chunk(n, 1)[r] / n + xs[n - 1] for r in range(n)]
    w = [z[(r - 1) % n] for r in range(n)]
    sent = [(w[r] * xs[r]).chunk(n) for r in range(n)]
    return [torch.cat([sent[s][r] for s in range(n)]) for r in range(n)]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_program_of_six_collectives_has_the_gradients_of_its_definition(size):
    def leaf(rank):
        return (torch.arange(4.0 * size, dtype=torch.float64).view(2 * size, 2) + rank).requires_grad_()

    def body(group):
        x = leaf(group.rank)
        y = _program(x, group)
        (y * y * (group.rank + 1)).sum().backward()
        return y.detach(), x.grad

    xs = [leaf(rank) for rank in range(size)]
    ys = _oracle(xs)
    sum((y * y * (rank + 1)).sum() for rank, y in enumerate(ys)).backward()
    for (y, grad), x, expected in zip(World(size).run(body), xs, ys, strict=True):
        torch.testing.assert_close(y, expected.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(grad, x.grad, rtol=1e-12, atol=0)


BAD = {
    "reduce op": (errors.ReduceOpError, lambda x, g: fc.all_reduce(x, "summ", g)),
    "reduce op of dtype": (errors.ReduceOpError, lambda x, g: fc.all_reduce(x, "band", g)),
    "group name": (errors.GroupError, lambda x, g: fc.all_reduce(x, "sum", "no such group")),
    "group ranks": (errors.GroupError, lambda x, g: fc.all_reduce(x, "sum", [0, 0])),
    "group type": (errors.GroupError, lambda x, g: fc.all_reduce(x, "sum", 3.5)),
    "gather dim": (errors.ShapeError, lambda x, g: fc.all_gather_tensor(x, 2, g)),
    "scatter dim": (errors.ShapeError, lambda x, g: fc.reduce_scatter_tensor(x, "sum", -3, g)),
    "scatter size": (errors.ShapeError, lambda x, g: fc.reduce_scatter_tensor(torch.ones(7), "sum", 0, g)),
    "one split list": (errors.ShapeError, lambda x, g: fc.all_to_all_single(x, [2, 2], None, g)),
    "splits sum": (errors.ShapeError, lambda x, g: fc.all_to_all_single(x, [2, 2], [1, 1], g)),
    "splits length": (errors.ShapeError, lambda x, g: fc.all_to_all_single(x, [4], [4], g)),
    "split negative": (errors.ShapeError, lambda x, g: fc.all_to_all_single(x, [5, -1], [5, -1], g)),
    "source rank": (errors.RankError, lambda x, g: fc.broadcast(x, 2, g)),
    "negative source": (errors.RankError, lambda x, g: fc.broadcast(x, -1, g)),
    "permutation twice": (errors.RankError, lambda x, g: fc.permute_tensor(x, [1, 1], g)),
    "permutation short": (errors.RankError, lambda x, g: fc.permute_tensor(x, [1], g)),
    "not a tensor": (errors.DtypeError, lambda x, g: fc.all_reduce([1.0], "sum", g)),
    "sparse": (errors.DtypeError, lambda x, g: fc.all_reduce(x.to_sparse(), "sum", g)),
    "tag": (errors.ArgumentError, lambda x, g: fc.all_reduce(x, "sum", g, "tag")),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_at_the_call_on_every_rank(what):
    kind, call = BAD[what]

    def body(group):
        with pytest.raises(kind) as caught:
            call(torch.ones(4, 2), group)
        return str(caught.value)

    messages = World(2).run(body)
    assert len(messages) == 2
    for message in messages:
        assert "got " in message
        assert "need " in message
        assert "tensor(" not in message


def _refused_then_right(group):
    """A refused call must leave the group usable: nothing was sent."""
    import functional_collectives as fc
    from comm_core import errors

    kinds = []
    for bad in (
        lambda: fc.all_reduce(torch.ones(2), "nope"),
        lambda: (
            fc.reduce_scatter_tensor(torch.ones(group.world + 1), "sum", 0) if group.world > 1 else fc.broadcast(1, 0)
        ),
        lambda: fc.broadcast(torch.ones(2), group.world),
    ):
        try:
            bad()
        except errors.CommError as error:
            kinds.append(type(error).__name__)
    return kinds, fc.all_reduce(torch.ones(1), "sum").item()


@pytest.mark.world(1, 2, 3)
def test_after_a_refusal_the_group_still_works(world):
    for kinds, total in world.run(_refused_then_right):
        assert len(kinds) == 3
        assert total == world.size
