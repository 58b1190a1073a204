"""Gradients at the edges: cotangents in flight, transforms, writes to what was saved, complex numbers."""

import inspect

import pytest
import torch

import functional_collectives as fc
from comm_core import World
from comm_core.errors import ArgumentError


def _cotangent_in_flight(group):
    import functional_collectives as fc

    class SumInBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, cotangent):
            return fc.all_reduce(cotangent, "sum")

    x = torch.ones(1, requires_grad=True)
    SumInBackward.apply(fc.all_reduce(x, "sum")).sum().backward()
    return x.grad.item()


@pytest.mark.world(1, 2, 3)
def test_a_cotangent_in_flight_is_reduced_like_any_other(world):
    assert world.run(_cotangent_in_flight) == [float(world.size**2)] * world.size


def _write_after_wait(group):
    import functional_collectives as fc

    x = fc.all_reduce(torch.ones(2, requires_grad=True), "sum")
    y = x * x
    with torch.no_grad():
        fc.wait_tensor(x).add_(100)
    try:
        y.sum().backward()
    except RuntimeError as error:
        return str(error)
    return ""


def _write_with_gradient(group):
    import functional_collectives as fc

    a = torch.ones(2, requires_grad=True)
    x = fc.all_reduce(a, "sum")
    fc.wait_tensor(x).mul_(3)
    x.clone().sum().backward()
    return a.grad.tolist()


@pytest.mark.world(1, 3)
def test_a_write_to_the_waited_tensor_is_seen_by_autograd(world):
    for message in world.run(_write_after_wait):
        assert "modified by an inplace operation" in message
    assert world.run(_write_with_gradient) == [[3.0 * world.size] * 2] * world.size


def _foreach(group):
    import functional_collectives as fc

    x = fc.all_reduce(torch.ones(2), "sum")
    torch._foreach_add_([x], 1.0)
    p = torch.zeros(2, requires_grad=True)
    p.grad = fc.all_reduce(torch.ones(2), "sum")
    torch.optim.SGD([p], lr=1.0, foreach=True).step()
    return x.tolist(), p.tolist()


@pytest.mark.world(1, 3)
def test_foreach_ops_and_optimizers_take_what_is_in_flight(world):
    n = float(world.size)
    assert world.run(_foreach) == [([n + 1] * 2, [-n] * 2)] * world.size


def _conjugated(group):
    import functional_collectives as fc

    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    (fc.all_gather_tensor(z, 0).conj() * (2 + 1j)).real.sum().backward()
    return z.grad.tolist()


@pytest.mark.world(1, 3)
def test_lazily_conjugated_cotangents_travel(world):
    n = world.size
    assert world.run(_conjugated) == [[n * (2 + 1j)] * 2] * n


@pytest.mark.parametrize("word", ["max", "min", "product"])
def test_a_reduction_that_is_not_linear_has_one_gradient_under_every_transform(word):
    def body(group):
        x = (torch.arange(6.0, dtype=torch.float64).view(3, 2) - 2) * (group.rank - 1)

        def each(x):
            return fc.all_reduce(x, word, group)

        leaf = x.clone().requires_grad_()
        torch.vmap(each)(leaf).sum().backward()
        plain = x.clone().requires_grad_()
        each(plain).sum().backward()
        return [
            torch.equal(plain.grad, other)
            for other in (
                leaf.grad,
                torch.func.grad(lambda x: each(x).sum())(x),
                torch.func.grad(lambda x: torch.vmap(each)(x).sum())(x),
                torch.vmap(torch.func.grad(lambda x: each(x).sum()))(x),
            )
        ]

    assert World(3).run(body) == [[True] * 4] * 3


@pytest.mark.parametrize("size", [1, 2, 3])
def test_transforms_compose(size):
    """Against the definition in one process: y_r = sum_s x_s * (s + 1), for each row of a batch."""

    def body(group):
        x = torch.arange(6.0, dtype=torch.float64).view(3, 2) + group.rank

        def loss(row):
            y = fc.all_reduce(row * (group.rank + 1), "sum", group)
            return (y**3).sum()

        return (
            torch.func.vmap(torch.func.grad(loss))(x),
            torch.func.jacrev(lambda row: fc.all_gather_tensor(row, 0, group))(x[0]),
            torch.func.jacrev(torch.func.grad(loss))(x[0]),
        )

    xs = [(torch.arange(6.0, dtype=torch.float64).view(3, 2) + r).requires_grad_() for r in range(size)]
    y = sum(x * (r + 1) for r, x in enumerate(xs))
    expected = torch.autograd.grad(size * (y**3).sum(), xs)
    # Every rank sends the same basis vector at once, so a Jacobian's row is the sum over ranks.
    weights = size * (size + 1) // 2
    for rank, (grad, jacobian, second) in enumerate(World(size).run(body)):
        torch.testing.assert_close(grad, expected[rank])
        own = torch.zeros(size, 2, 2, dtype=torch.float64)
        own[rank] = size * torch.eye(2)
        assert torch.equal(jacobian, own.flatten(0, 1))
        torch.testing.assert_close(second, torch.diag(size * 6 * y[0] * (rank + 1) * weights).detach())


def _waited(group):
    """Every transform of a collective whose result is waited for, and of the same without the wait."""
    import torch.autograd.forward_ad as forward
    import torch.func as T
    from torch.fx.experimental.proxy_tensor import make_fx

    import functional_collectives as fc

    def without(x):
        return fc.all_reduce(x * x, "sum", group) * 1

    def waited(x):
        return fc.wait_tensor(fc.all_reduce(x * x, "sum", group))

    def under(f):
        x, t = torch.arange(4.0) + group.rank, torch.ones(4)
        with forward.dual_level():
            dual = forward.unpack_dual(f(forward.make_dual(x, t))).tangent
        leaf = x.clone().requires_grad_()
        made = make_fx(lambda v: torch.autograd.grad(f(v).sum(), v)[0])(leaf)(leaf)
        batch = torch.autograd.grad(f(leaf), leaf, torch.eye(4), is_grads_batched=True)[0]
        return {
            "dual": dual,
            "jvp": T.jvp(f, (x,), (t,))[1],
            "grad": T.grad(lambda v: f(v).sum())(x),
            "jacrev": T.jacrev(f)(x),
            "hessian": T.hessian(lambda v: f(v).sum())(x),
            "vmap": T.vmap(f)(x.view(2, 2)),
            "vmap, out_dims": T.vmap(f, in_dims=1, out_dims=1)(x.view(2, 2)),
            "make_fx": made,
            "batched": batch,
        }

    want, got = under(without), under(waited)
    return [name for name in want if not torch.equal(want[name], got[name])]


@pytest.mark.world(2)
def test_waiting_is_the_identity_under_every_transform(world):
    assert world.run(_waited) == [[], []]


PARTS = {  # what gives each rank a part of its own
    "reduce": lambda x, **how: fc.reduce(x, "sum", 0, **how),
    "reduce max": lambda x, **how: fc.reduce(x, "max", 0, **how),
    "gather": lambda x, **how: fc.gather(x, 0, **how),
    "scatter": lambda x, **how: fc.scatter(x, 0, **how),
    "reduce_scatter_v": lambda x, **how: fc.reduce_scatter_v(x, "avg", 1, **how),
    "reduce_scatter_v product": lambda x, **how: fc.reduce_scatter_v(x, "product", 1, **how),
    "scan": lambda x, **how: fc.scan(x, "sum", **how),
    "scan product": lambda x, **how: fc.scan(x, "product", reverse=True, **how),
    "exscan": lambda x, **how: fc.exscan(x, "avg", **how),
    "isend and irecv": lambda x, **how: _one_message(x, **how),
    "batch_p2p": lambda x, **how: torch.cat(_swapped(x, **how)),
}


def _one_message(x, group, **how):
    if group.rank == 0:
        return x * fc.isend(x, 1, group, **how).sum()  # zeros
    return fc.irecv(x, 0, group, **how) if group.rank == 1 else x * 0


def _swapped(x, group, **how):
    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
    sent, arrived = fc.batch_p2p([fc.Send(x, right), fc.Receive(x, left)], group, **how)
    return sent, arrived.reshape(-1)


def _grads(group, name):
    grads = []
    for how in ({}, {"backward": "adjoint"}, {"backward": "identity"}):
        x = torch.arange(2.0 * group.world * 3, dtype=torch.float64).view(2 * group.world, 3) + group.rank**2
        x.requires_grad_()
        (PARTS[name](x, group=group, **how) ** 3).sum().backward()
        grads.append(x.grad)
    if name == "isend and irecv" and group.rank > 1:
        return grads
    with pytest.raises(ArgumentError, match="need 'adjoint' or 'identity'"):
        PARTS[name](x, group=group, backward="megatron")
    return grads


@pytest.mark.world(1, 3)
@pytest.mark.parametrize("name", [name for name in PARTS if name != "isend and irecv"])
def test_both_conventions_agree_where_each_rank_gets_another_part(world, name):
    for default, adjoint, identity in world.run(_grads, name):
        assert torch.equal(default, adjoint)
        assert torch.equal(default, identity)
        assert default.shape[1] == 3


@pytest.mark.world(2, 3)
def test_both_conventions_agree_for_a_message(world):
    """The sender gets the receiver's cotangent, and nobody else gets anything."""
    for rank, (default, adjoint, identity) in enumerate(world.run(_grads, "isend and irecv")):
        assert torch.equal(default, adjoint)
        assert torch.equal(default, identity)
        assert bool((default[1:] != 0).all()) == (rank == 0)


def _identity_twice(group):
    """Of each collective on which the conventions differ: the gradient of a gradient, and a loss that has one in it."""
    n, rank, how = group.world, group.rank, {"group": group, "backward": "identity"}
    sizes = [i + 1 for i in range(n)]
    calls = {
        "sum": lambda x: fc.all_reduce(x, "sum", **how),
        "avg": lambda x: fc.all_reduce(x, "avg", **how),
        "all_gather": lambda x: fc.all_gather_tensor(x, 0, **how),
        "all_gather_v": lambda x: fc.all_gather_v(x, 0, sizes=sizes, **how),
        "broadcast": lambda x: fc.broadcast(x, n - 1, **how),
    }
    found = {}
    for name, call in calls.items():
        rows = sizes[rank] if name == "all_gather_v" else 2
        x = (torch.arange(rows * 2.0, dtype=torch.float64).view(rows, 2) + rank + 1).requires_grad_()
        y = call(x)
        w = (y.detach() + rank).requires_grad_()
        (g,) = torch.autograd.grad(y, x, w, create_graph=True)
        v = torch.full_like(g, rank + 2.0)
        (back,) = torch.autograd.grad(g, w, v)
        y = call(x)
        (slope,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
        (slope**2).sum().backward()
        tangents = torch.func.jvp(call, (x.detach(),), (x.detach(),))
        batched = torch.func.vmap(torch.func.grad(lambda x, call=call: (call(x) ** 3).sum()))(
            torch.stack([x.detach()] * 2)
        )
        found[name] = tuple(t.detach().clone() for t in (y, g, back, slope, x.grad, *tangents, *batched))
    return found


@pytest.mark.world(1, 2, 3)
def test_the_identity_convention_holds_for_gradients_of_gradients(world):
    """A collective is y = share * the sum, or a choice, of what the ranks have; its own part of y counts.

    So a gradient g is the own part of a cotangent times the share, and the gradient of g puts it back there.
    """
    n = world.size
    for rank, found in enumerate(world.run(_identity_twice)):
        for name, (y, g, back, slope, twice, primal, tangent, *batched) in found.items():
            share = {"avg": 1 / n, "broadcast": float(rank == n - 1)}.get(name, 1.0)
            first = {"all_gather": 2 * rank, "all_gather_v": sum(range(rank + 1))}.get(name, 0)
            own = slice(first, first + len(g))
            torch.testing.assert_close(g, share * (y + rank)[own])
            put = torch.zeros_like(y)
            put[own] = share * (rank + 2.0)
            torch.testing.assert_close(back, put)
            torch.testing.assert_close(slope, share * 3 * y[own] ** 2)
            torch.testing.assert_close(twice, share**3 * 36 * y[own] ** 3)
            assert torch.equal(primal, y)
            assert torch.equal(tangent, y)  # linear: what it does to tangents is no matter of convention
            for one in batched:
                torch.testing.assert_close(one, slope)


def test_every_function_with_a_gradient_takes_a_convention():
    """The others compute nothing that another rank's loss could see, or are torch's messages, without a gradient."""
    messages = {"isend_inplace", "irecv_inplace", "batch_p2p_ops_inplace"}
    local = {"allow_inflight_collective_as_graph_input_ctx", "checked", "inflight", "premul_sum", "remapped"}
    functions = {name: of for name in fc.__all__ if inspect.isfunction(of := getattr(fc, name))}
    without = {name for name, of in functions.items() if "backward" not in inspect.signature(of).parameters}
    assert without == local | messages | {"barrier", "wait_tensor"}
    kinds = {inspect.signature(of).parameters["backward"].kind for name, of in functions.items() if name not in without}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("reduce_op", ["sum", "product"])
def test_linearize_computes_no_collective_ahead_of_time(reduce_op):
    """It would part the collective from its wait, which it takes for no constant, and copy what has not arrived."""

    def body(group):
        x = torch.tensor([2.0, 3.0])
        _, pushed = torch.func.linearize(lambda v: fc.all_reduce(v * v, reduce_op, group) ** 2, x)
        (graph,) = [cell.cell_contents for cell in pushed.__closure__ if hasattr(cell.cell_contents, "code")]
        (folded,) = [graph.const_subgraph_module.code]
        return "_c10d_functional" in folded, pushed(torch.ones(2)).tolist()

    assert World(1).run(body) == [(False, [32.0, 108.0])]


def test_a_batch_of_nothing_is_a_batch():
    """Of several tensors in one message, too; a hessian at an empty tensor is such a batch."""

    def body(group):
        n, rank = group.world, group.rank

        def several(x):
            peers = (rank + 1) % n, (rank - 1) % n
            return [
                fc.all_reduce(x, "max", group),
                *fc.all_reduce_coalesced([x, x[:1]], "sum", group),
                *fc.reduce_scatter_tensor_coalesced([x, x], "avg", [0, 0], group),
                *fc.all_gather_into_tensor_coalesced([x, x], group),
                *fc.batch_p2p([fc.Send(x, peers[0]), fc.Receive(x, peers[1])], group),
                fc.isend(x, peers[0], group),
                fc.irecv(x, peers[1], group),
            ]

        def loss(x):
            return torch.stack([(y * y).sum() for y in several(x)]).sum()

        x = torch.empty(0, 2 * n)
        slope = torch.func.vmap(torch.func.grad(loss))(x)
        return [tuple(y.shape) for y in [*torch.func.vmap(several)(x), slope]]

    whole, one, part, all_, none = (0, 6), (0, 1), (0, 2), (0, 18), (0, 0)
    assert World(3).run(body) == [[whole, whole, one, part, part, all_, all_, none, whole, none, whole, whole]] * 3
