"""Several tensors in one call: each result is that of the tensor alone; nothing moves for a wrong list."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import functional_collectives as fc
from comm_core import World, errors
from functional_collectives import coalesced, packing


def _tensors(group):
    """Tensors of every kind of shape, each of a size that the group divides in some dim."""
    n, r = group.world, group.rank
    x = torch.arange(12.0 * n * n).view(2 * n, 3, 2 * n) * (r + 1)
    return [x, x[:, 0, 0].contiguous(), x.transpose(0, 2), x[:0], x[:n] + 0.5]


def _calls(fc, group, reduce_op="sum"):
    """Each function with its single form, as pairs of list -> list."""
    dims = [2, 0, -1, 0, 0]
    return {
        "all_reduce": (
            lambda xs: fc.all_reduce_coalesced(xs, reduce_op, group),
            lambda xs: [fc.all_reduce(x, reduce_op, group) for x in xs],
        ),
        "all_gather": (
            lambda xs: fc.all_gather_into_tensor_coalesced(xs, group),
            lambda xs: [fc.all_gather_tensor(x, 0, group) for x in xs],
        ),
        "reduce_scatter": (
            lambda xs: fc.reduce_scatter_tensor_coalesced(xs, reduce_op, dims, group),
            lambda xs: [fc.reduce_scatter_tensor(x, reduce_op, d, group) for x, d in zip(xs, dims, strict=True)],
        ),
    }


def _same(ours, theirs):
    return len(ours) == len(theirs) and all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b) and a.is_contiguous()
        for a, b in zip(map(fc.wait_tensor, ours), theirs, strict=True)
    )


def _gradients(call, xs, rank):
    leaves = [x.detach().clone().requires_grad_() for x in xs]
    ys = call([leaf * 2 for leaf in leaves])
    return torch.autograd.grad(sum((y * y * (rank + place)).sum() for place, y in enumerate(ys)), leaves)


def _as_torch(group):
    import warnings

    import torch.distributed as dist
    import torch.distributed._functional_collectives as torchs

    warnings.simplefilter("ignore")
    pg, wrong = dist.group.WORLD, []
    theirs = _calls(torchs, pg)
    for name, (together, _) in _calls(fc, pg).items():
        xs = [x.contiguous() for x in _tensors(group)]
        expected = [torchs.wait_tensor(y) for y in theirs[name][0](list(xs))]
        if not _same(together(xs), expected):
            wrong.append(f"{name} values")
        pair = [_gradients(one, xs, group.rank) for one in (together, theirs[name][0])]
        if not all(torch.equal(a, b) for a, b in zip(*pair, strict=True)):
            wrong.append(f"{name} gradients")
    return wrong


@pytest.mark.world(1, 2, 3)
def test_values_and_gradients_are_torchs(world):
    assert world.run(_as_torch) == [[]] * world.size


def _as_one_by_one(group, word):
    wrong = []
    for name, (together, alone) in _calls(fc, group, word).items():
        xs = [x.double() - 3 for x in _tensors(group)]
        kept, copies = list(xs), [x.clone() for x in xs]
        if not _same(together(xs), [fc.wait_tensor(y) for y in alone(xs)]):
            wrong.append(f"{name} values")
        if any(a is not b for a, b in zip(xs, kept, strict=True)) or not all(map(torch.equal, xs, copies)):
            wrong.append(f"{name} wrote to its input")
        pair = [_gradients(one, xs, group.rank) for one in (together, alone)]
        if not all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(*pair, strict=True)):
            wrong.append(f"{name} gradients")
    return wrong


@pytest.mark.parametrize("word", ["sum", "avg", "max", "product"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_results_are_those_of_each_tensor_alone(size, word):
    assert World(size).run(_as_one_by_one, word) == [[]] * size


@pytest.mark.world(1, 3)
def test_on_real_ranks_the_results_are_those_of_each_tensor_alone(world):
    assert world.run(_as_one_by_one, "max") == [[]] * world.size


def _started(group):
    n = group.world
    xs = [
        torch.ones(n),
        torch.ones(n, 2),
        torch.ones(n, dtype=torch.int32),
        torch.tensor([True] * n),
        torch.ones(2 * n),
    ]
    counts = []
    for call in (
        lambda: fc.all_reduce_coalesced(xs, "max"),
        lambda: fc.all_gather_into_tensor_coalesced(xs),
        lambda: fc.reduce_scatter_tensor_coalesced(xs, "max", [0] * 5),
    ):
        ys = call()
        in_flight = all(type(y) is fc.AsyncCollectiveTensor for y in ys)
        counts.append((len(fc.inflight()), in_flight, [y.dtype for y in ys] == [x.dtype for x in xs]))
        for y in ys:
            y.sum()
        counts.append(len(fc.inflight()))
    return counts


@pytest.mark.world(1, 3)
def test_a_reduction_is_one_message_for_each_dtype_and_all_are_in_flight(world):
    assert world.run(_started) == [[(3, True, True), 0, (5, True, True), 0, (3, True, True), 0]] * world.size


def _backward_messages(group):
    from torch.distributed.tensor.debug import CommDebugMode

    xs = [torch.ones(group.world, requires_grad=True) for _ in range(4)]
    ys = fc.all_reduce_coalesced([x * 2 for x in xs], "sum")
    loss = sum(y.sum() for y in ys)
    with CommDebugMode() as counted:
        loss.backward()
    return counted.get_total_counts()


@pytest.mark.world(1, 3)
def test_backward_is_one_message_too(world):
    assert world.run(_backward_messages) == [1] * world.size


def _compiled(group, backend):
    import torch._dynamo

    torch._dynamo.reset()
    wrong = []
    for name, (together, _) in _calls(fc, group).items():
        compiled = torch.compile(together, fullgraph=True, backend=backend)
        xs = _tensors(group)
        if not _same(compiled(xs), [fc.wait_tensor(y) for y in together(xs)]):
            wrong.append(f"{name} values")
        pair = [_gradients(one, xs, group.rank) for one in (together, compiled)]
        if not all(map(torch.allclose, *pair)):
            wrong.append(f"{name} gradients")
    return wrong


@pytest.mark.world(1, 3)
def test_compiled_fullgraph_equals_eager_forward_and_backward(world):
    assert world.run(_compiled, "aot_eager") == [[]] * world.size


@pytest.mark.world(2, timeout=180)
def test_compiled_with_inductor_equals_eager(world):
    assert world.run(_compiled, "inductor") == [[]] * world.size


@pytest.mark.parametrize("size", [1, 3])
def test_compiled_equals_eager_on_simulated_ranks(size):
    assert World(size).run(_compiled, "aot_eager") == [[]] * size


def test_vmap_and_grad_go_through():
    def body(group):
        def loss(x):
            a, b = fc.all_reduce_coalesced([x, x[:1] * (group.rank + 1)], "sum", group)
            return (a**2).sum() + b.sum()

        x = torch.arange(6.0).view(3, 2)
        row = [torch.func.grad(loss)(x[place]) for place in range(3)]
        return torch.equal(torch.vmap(torch.func.grad(loss))(x), torch.stack(row))

    assert World(3).run(body) == [True] * 3


def _edges(group):
    first = fc.all_reduce(torch.ones(2), "sum")
    a, b = fc.all_reduce_coalesced((first, torch.zeros(2)), "sum")
    a.add_(1)
    return fc.all_reduce_coalesced([], "sum"), a.tolist(), b.tolist()


@pytest.mark.world(1, 3)
def test_inputs_in_flight_no_inputs_and_writes_to_one_result(world):
    assert world.run(_edges) == [([], [world.size**2 + 1.0] * 2, [0.0] * 2)] * world.size


def test_forward_mode_goes_through():
    from torch.autograd import forward_ad

    def body(group):
        with forward_ad.dual_level():
            x = forward_ad.make_dual(torch.ones(2), torch.full((2,), 3.0))
            calls = (
                fc.all_reduce_coalesced([x, x], "sum", group),
                fc.reduce_scatter_tensor_coalesced([x, x], "sum", [0, 0], group),
            )
            return [forward_ad.unpack_dual(fc.wait_tensor(y)).tangent.tolist() for ys in calls for y in ys]

    assert World(1).run(body) == [[[3.0, 3.0]] * 4]


def test_a_mixed_list_gives_gradients_to_those_that_want_them():
    def body(group):
        x = torch.ones(2, requires_grad=group.rank == 0)  # the ranks need not want the same
        y, z = fc.all_reduce_coalesced([x, torch.ones(1, requires_grad=True)], "sum", group)
        (y.sum() + z.sum()).backward()
        return x.grad.tolist() if x.grad is not None else None

    assert World(2).run(body) == [[2.0, 2.0], None]


BAD = {
    "a tensor": (errors.DtypeError, lambda g: fc.all_reduce_coalesced(torch.ones(2, 2), "sum", g), "list of tensors"),
    "no tensor": (errors.DtypeError, lambda g: fc.all_reduce_coalesced([torch.ones(2), 1.0], "sum", g), "tensor 1"),
    "reduce op": (errors.ReduceOpError, lambda g: fc.all_reduce_coalesced([torch.ones(2)], "summ", g), "tensor 0"),
    "no dims": (
        errors.ShapeError,
        lambda g: fc.all_gather_into_tensor_coalesced([torch.ones(2), torch.tensor(1.0)], g),
        "all_gather_into_tensor_coalesced, tensor 1",
    ),
    "too few dims": (
        errors.ArgumentError,
        lambda g: fc.reduce_scatter_tensor_coalesced([torch.ones(2)] * 2, "sum", [0], g),
        "a list of 2 dims",
    ),
    "one dim": (
        errors.ArgumentError,
        lambda g: fc.reduce_scatter_tensor_coalesced([torch.ones(2)], "sum", 0, g),
        "a list of 1 dims",
    ),
    "size": (
        errors.ShapeError,
        lambda g: fc.reduce_scatter_tensor_coalesced([torch.ones(2, 2), torch.ones(2, 3)], "sum", [0, 1], g),
        r"tensor 1: got size 3 in dim 1",
    ),
    "tag": (errors.ArgumentError, lambda g: fc.all_reduce_coalesced([], "sum", g, "tag"), "tag"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_list_is_refused_and_the_tensor_named(what):
    kind, call, words = BAD[what]

    def body(group):
        with pytest.raises(kind, match=words):
            call(group)
        return fc.all_reduce(torch.ones(1), "sum", group).item()

    assert World(2).run(body) == [2.0, 2.0]


def _bad_second(group):
    for call in (
        lambda xs: fc.all_reduce_coalesced(xs, "band"),
        lambda xs: fc.reduce_scatter_tensor_coalesced(xs, "band", [0, 0]),
        lambda xs: fc.all_gather_into_tensor_coalesced([xs[0], torch.tensor(1)]),
    ):
        with pytest.raises(errors.CommError, match="tensor 1"):
            call([torch.ones(6, dtype=torch.int32), torch.ones(6)])
    return len(fc.inflight()), fc.all_reduce(torch.ones(1), "sum").item()


@pytest.mark.world(1, 3)
def test_nothing_has_started_when_a_later_tensor_is_refused(world):
    assert world.run(_bad_second) == [(0, float(world.size))] * world.size


def test_lists_of_different_lengths_are_named_in_the_simulator():
    def body(group):
        fc.all_reduce_coalesced([torch.ones(2)] * (1 + group.rank), "sum", group)

    with pytest.raises(errors.MismatchError, match="all_reduce"):
        World(2).run(body)


def test_premul_sum_of_a_list_and_into_the_tensor():
    def body(group):
        op = fc.premul_sum(0.5 * (group.rank + 1))
        ys = fc.all_reduce_coalesced([torch.ones(2), torch.ones(1, dtype=torch.float64)], op, group)
        parts = fc.reduce_scatter_tensor_coalesced([torch.ones(2), torch.ones(2, 4)], op, [0, 1], group)
        into = torch.ones(2)
        fc.all_reduce_inplace(into, op, group)
        return [y.tolist() for y in [*ys, *parts, into]]

    part = [[1.5], [[1.5, 1.5], [1.5, 1.5]]]
    assert World(2).run(body) == [[[1.5, 1.5], [1.5], *part, [1.5, 1.5]]] * 2


def _conventions(group, backward):
    """Gradients of each list function and of the functions for one tensor, under one convention."""
    n, how = group.world, {"backward": backward}
    inputs = [torch.arange(2.0 * n).view(n, 2) + group.rank, torch.ones(2 * n, 1) * (group.rank + 1)]
    together = {
        "all_reduce": lambda xs: fc.all_reduce_coalesced(xs, "avg", group, **how),
        "all_gather": lambda xs: fc.all_gather_into_tensor_coalesced(xs, group, **how),
        "reduce_scatter": lambda xs: fc.reduce_scatter_tensor_coalesced(xs, "sum", [0, 0], group, **how),
    }
    alone = {
        "all_reduce": lambda x: fc.all_reduce(x, "avg", group, **how),
        "all_gather": lambda x: fc.all_gather_tensor(x, 0, group, **how),
        "reduce_scatter": lambda x: fc.reduce_scatter_tensor(x, "sum", 0, group, **how),
    }

    def grads(call):
        xs = [x.clone().requires_grad_() for x in inputs]
        loss = sum((y * y * (group.rank + 1)).sum() for y in call(xs))
        return torch.autograd.grad(loss, xs)

    wrong = []
    for name, call in together.items():
        one_by_one = grads(lambda xs, name=name: [alone[name](x) for x in xs])
        if not all(map(torch.equal, grads(call), one_by_one)):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("backward", ["adjoint", "identity"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_both_conventions_have_the_gradients_of_one_by_one(size, backward):
    assert World(size).run(_conventions, backward) == [[]] * size


def _multiplied(group, together, op):
    """The premultiplied reductions of a list with views in it, and all gradients; the first tensor requires none."""
    of_op = op(0.5 - group.rank)
    xs = [torch.arange(6.0).view(3, 2) + group.rank, torch.arange(12.0).view(2, 6).t()[:, :2] * (group.rank + 1)]
    xs = [*xs, (torch.arange(6.0).view(2, 3) + 1j * group.rank).conj()]
    leaves = [xs[0], *(x.detach().requires_grad_() for x in xs[1:])]
    dims = [0, 0, 1]
    if together:
        ys = fc.reduce_scatter_tensor_coalesced(leaves, fc.premul_sum(of_op), dims, group)
        zs = fc.all_reduce_coalesced(leaves, fc.premul_sum(of_op), group)
    else:
        ys = [fc.reduce_scatter_tensor(x * of_op, "sum", dim, group) for x, dim in zip(leaves, dims, strict=True)]
        zs = [fc.all_reduce(x * of_op, "sum", group) for x in leaves]
    loss = sum((y.abs() ** 2).sum() * (1 + place) for place, y in enumerate([*ys, *zs]))
    wanted = [*leaves[1:], *([of_op] if getattr(of_op, "requires_grad", False) else [])]
    first = torch.autograd.grad(loss, wanted, create_graph=True)
    again = torch.autograd.grad(sum((one.abs() ** 2).sum() for one in first), wanted)
    return [one.detach() for one in (*ys, *zs, *first, *again)]


def _as_multiplied_one_by_one(group):
    ops = {"number": float, "tensor": torch.tensor, "learnt": lambda f: torch.tensor(f, requires_grad=True)}
    wrong = []
    for name, op in ops.items():
        found = zip(_multiplied(group, True, op), _multiplied(group, False, op), strict=True)
        if not all(torch.allclose(x, y, rtol=1e-5) for x, y in found):
            wrong.append(name)
    return wrong


@pytest.mark.world(3)
def test_a_factor_multiplies_a_list_as_it_does_each_tensor_and_has_its_gradient(world):
    assert world.run(_as_multiplied_one_by_one) == [[]] * 3
    assert world.simulate(_as_multiplied_one_by_one) == [[]] * 3


def _gathered_for_some(group):
    """Gathers of which rank 0 wants the gradient of one tensor, rank 1 of both, and rank 2 of none."""
    xs = [torch.full((1, 2), 1.0 + group.rank), torch.full((1,), 5.0 + group.rank)]
    wanted = [xs[:1], xs, []][group.rank]
    for x in wanted:
        x.requires_grad_()
    ys = fc.all_gather_into_tensor_coalesced(xs, group)
    return [y.tolist() for y in ys], [y.requires_grad for y in ys]


@pytest.mark.world(3)
def test_a_gather_of_several_meets_whoever_wants_a_gradient(world):
    values = [[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], [5.0, 6.0, 7.0]]
    expected = [(values, wanted) for wanted in ([True, False], [True, True], [False, False])]
    assert world.run(_gathered_for_some) == expected
    assert world.simulate(_gathered_for_some) == expected


def _beside_a_transform(group):
    """Calls on tensors that torch.func, which takes another's gradient, has not wrapped."""
    x, ones = torch.arange(6.0).view(2, 3).requires_grad_(), torch.ones(2, 3)
    negative = torch.ones(2, 3, dtype=torch.complex64).conj().imag - 0
    calls = {
        "all_reduce": lambda: [fc.all_reduce(x, "sum", group)],
        "plain": lambda: [fc.all_gather_tensor(ones, 1, group), fc.broadcast(ones, 0, group)],
        "ints": lambda: [fc.all_gather_tensor(ones.long(), 0, group), fc.all_reduce(ones.long(), "max", group)],
        "coalesced": lambda: fc.all_reduce_coalesced([x, ones], "sum", group),
        "gathers": lambda: fc.all_gather_into_tensor_coalesced([x, ones], group),
        "multiplied": lambda: [fc.scan(x, fc.premul_sum(2.0), group)],
        "negative": lambda: [fc.scan(negative, "sum", group)],
        "expanded": lambda: [fc.scan(x, "max", group)],
    }
    found = {}
    for name, call in calls.items():
        sums = torch.func.grad(lambda factor, call=call: sum(y.sum() for y in call()) * factor)(torch.tensor(2.0))
        found[name] = sums.item()
    return found


@pytest.mark.world(2)
def test_what_requires_grad_goes_through_the_transform_of_another_tensor(world):
    sums = {
        "all_reduce": 30.0,
        "plain": 18.0,
        "ints": 18.0,
        "coalesced": 42.0,
        "gathers": 42.0,
        "negative": 0.0,
        "expanded": 15.0,
    }
    expected = [{**sums, "multiplied": 30.0 * (rank + 1)} for rank in range(2)]
    assert world.run(_beside_a_transform) == expected
    assert world.simulate(_beside_a_transform) == expected


def _large(group):
    """Reductions of tensors with and without room for a message of their own, and the bytes of the results' memory."""
    small = [torch.full((2 * group.world, 3), 1.0 + place) for place in range(3)]
    large = [torch.full((group.world, coalesced.LARGE // 4 // group.world + 1), 1.0 + place) for place in range(2)]
    found = []
    for xs in (small, large, [*small, *large]):
        ys = [fc.wait_tensor(y) for y in fc.reduce_scatter_tensor_coalesced(xs, "sum", [0] * len(xs), group)]
        right = all(torch.equal(y, x[: y.shape[0]] * group.world) for x, y in zip(xs, ys, strict=True))
        found.append((right, len({y.untyped_storage().data_ptr() for y in ys})))
    return found


def _large_by_a_factor(group):
    """Large tensors of which one rank wants the gradient, of another's factor that rank, and the third none."""
    xs = [torch.full((3, coalesced.LARGE // 8), 1.0 + place) for place in range(2)]
    factor = torch.tensor(2.0, requires_grad=group.rank == 1)
    if group.rank == 0:
        xs = [x.requires_grad_() for x in xs]
    ys = fc.reduce_scatter_tensor_coalesced(xs, fc.premul_sum(factor), [0, 0], group)
    many = len({fc.wait_tensor(y).untyped_storage().data_ptr() for y in ys})
    return many, [y.requires_grad for y in ys], [y[0, 0].item() for y in ys]


@pytest.mark.world(3)
def test_large_tensors_meet_whoever_wants_a_gradient(world):
    expected = [(2, [rank < 2] * 2, [6.0, 12.0]) for rank in range(3)]
    assert world.run(_large_by_a_factor) == expected
    assert world.simulate(_large_by_a_factor) == expected


def _checkpointed(group):
    x, factor = torch.ones(4, requires_grad=True), torch.tensor(2.0, requires_grad=True)

    def body(x):
        return sum(y.sum() for y in fc.all_reduce_coalesced([x, x * 2], fc.premul_sum(factor), group))

    checkpoint(body, x, use_reentrant=False).backward()
    return x.grad.tolist(), factor.grad.item()


def test_a_list_by_a_factor_in_a_checkpoint_has_its_gradients():
    assert World(2).run(_checkpointed) == [([12.0] * 4, 24.0)] * 2


class _Products(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.mul.Tensor
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wanted", [(True, False, False), (True, True, False), (False, True, True), (False, True, False)]
)
def test_backward_of_a_packed_list_multiplies_once_for_each_gradient_that_is_wanted(wanted):
    """By the factor that takes one product for each tensor."""
    by_factor, *by_parts = wanted
    factor = torch.tensor(2.0, requires_grad=by_factor)
    parts = [torch.full((1, 3), 5.0, requires_grad=each) for each in by_parts]
    matrix = packing.side_by_side(parts, factor)
    with _Products() as products:
        matrix.backward(torch.ones(1, 6))
    assert products.count == 2 * by_factor + sum(by_parts)
    assert factor.grad is None if not by_factor else factor.grad.item() == 30.0
    assert [None if part.grad is None else part.grad.tolist() for part in parts] == [
        [[2.0] * 3] if each else None for each in by_parts
    ]


@pytest.mark.world(1, 3)
def test_large_tensors_are_reduced_in_messages_of_their_own(world):
    assert world.run(_large) == [[(True, 1), (True, 2), (True, 1)]] * world.size


@pytest.mark.parametrize("take", [lambda y: y.wait(), fc.wait_tensor], ids=["method", "function"])
@pytest.mark.parametrize("part", [lambda y: y, lambda y: y[1:]], ids=["all", "a part"])
@pytest.mark.parametrize(
    "leaf", [lambda y: y.detach().requires_grad_(), torch.nn.Parameter], ids=["tensor", "parameter"]
)
def test_a_result_that_was_made_a_leaf_is_waited_for_with_its_gradient(leaf, part, take):
    def body(group):
        _, piece = fc.all_reduce_coalesced([torch.ones(3, requires_grad=True) for _ in range(2)], "sum", group)
        x = leaf(part(piece))
        take(piece)
        (take(x) * 3).sum().backward()
        return x.grad.tolist() == [3.0] * len(x)

    assert World(2).run(body) == [True, True]


TAKEN = {
    "all": lambda y: y,
    "a part": lambda y: y[1:],
    "detached": lambda y: y.detach(),
    "a detached part": lambda y: y[1:].detach(),
    "a part of it detached": lambda y: y.detach()[1:],
}


@pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("reduce_op", ["sum", "max"])
def test_a_result_goes_into_compiled_code(reduce_op, take):
    def body(group):
        xs = [torch.arange(4.0).requires_grad_() for _ in range(2)]
        taken = take(fc.all_reduce_coalesced(xs, reduce_op, group)[1])
        torch._dynamo.reset()
        y = torch.compile(lambda x: x[1:] * 3, fullgraph=True, backend="aot_eager")(taken)
        if y.requires_grad:
            y.sum().backward()
        return y.tolist() == (take(torch.arange(4.0))[1:] * 3).tolist(), set(
            xs[1].grad.tolist()
        ) if y.requires_grad else 0

    grad = {0.0, 3.0} if take in (TAKEN["all"], TAKEN["a part"]) else 0
    assert World(1).run(body) == [(True, grad)]


@pytest.mark.parametrize("finish", [lambda y: y, fc.wait_tensor], ids=["in flight", "waited for"])
@pytest.mark.parametrize("take", [*TAKEN.values()][2:], ids=[*TAKEN][2:])
def test_a_detached_result_is_written_with_a_gradient(take, finish):
    def written(y):
        y = finish(take(y))
        weights = [torch.full(each.shape, 3.0, requires_grad=True) for each in (y, y[1:])]
        y.mul_(weights[0])
        y[1:].mul_(weights[1])
        (y * torch.arange(y.numel())).sum().backward()
        return [weight.grad.tolist() for weight in weights], y.tolist()

    def body(group):
        xs = [torch.arange(4.0).requires_grad_() for _ in range(2)]
        return written(fc.all_reduce_coalesced(xs, "sum", group)[1])

    assert World(1).run(body) == [written(torch.arange(4.0))]


@pytest.mark.parametrize("finish", [lambda y: y, lambda y: y.wait(), fc.wait_tensor], ids=["use", "method", "function"])
@pytest.mark.parametrize("shape", [(4,), (2, 2), ()])
def test_the_gradient_of_a_result_passes_through_it(shape, finish):
    def body(group):
        _, y = fc.all_reduce_coalesced([torch.ones(shape, requires_grad=True) for _ in range(2)], "sum", group)
        first, part = y.view(-1)[:1], y[1:] if len(shape) == 1 else y.view(-1)
        total = (finish(y) * 3).sum() + (finish(first) * 2).sum()
        (cotangent,) = torch.autograd.grad(total, y, retain_graph=True)
        seen = []
        y.retain_grad()
        y.register_hook(lambda cotangent: seen.append(cotangent.sum().item()))
        total.backward()
        (of_part,) = torch.autograd.grad(finish(part).sum(), part)
        return cotangent.sum().item(), y.grad.sum().item(), seen[-1], of_part.tolist() == [1.0] * len(part)

    expected = 3.0 * torch.Size(shape).numel() + 2.0
    assert World(1).run(body) == [(expected, expected, expected, True)]
