"""The weak spots that a reading of torch 2.13's functional collectives listed, by number; each is right here."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import functional_collectives as fc
from comm_core import World, errors


def _refusal(call):
    """The error of a call that must be refused, as what it is and what it says."""
    try:
        call()
    except errors.CommError as error:
        return error
    return None


def in_world(size, body, *args):
    return World(size).run(body, *args)


def test_1_a_size_that_does_not_divide_is_told_with_its_own_dim():
    def body(group):
        error = _refusal(lambda: fc.reduce_scatter_tensor(torch.ones(3, 4), "sum", 1, group))
        return type(error), error.got, error.hint

    for answer in in_world(3, body):
        assert answer == (errors.ShapeError, "size 4 in dim 1", "pad dim 1 to 6")


def test_2_lists_and_tensors_that_are_passed_in_stay_as_they_are():
    def body(group):
        inputs = [torch.arange(4.0).view(2, 2), torch.arange(8.0).view(2, 4)]
        before, same = [x.clone() for x in inputs], list(inputs)
        fc.wait_tensor(fc.reduce_scatter_tensor_coalesced(inputs, "sum", [1, 1], group)[0])
        kept = [one is other for one, other in zip(inputs, same, strict=True)]
        return kept, [torch.equal(one, other) for one, other in zip(inputs, before, strict=True)]

    assert in_world(2, body) == [([True, True], [True, True])] * 2


def test_3_rows_that_do_not_divide_are_refused_in_eager_code_and_under_fake_tensors(fake_world):
    group = fake_world(2)
    with pytest.raises(errors.ShapeError, match="size 5 in dim 0; need a multiple of the group size 2"):
        fc.all_to_all_single(torch.ones(5), None, None, group)
    with FakeTensorMode(), pytest.raises(errors.ShapeError, match="size 5 in dim 0"):
        fc.all_to_all_single(torch.ones(5), None, None, group)
    with FakeTensorMode(), pytest.raises(errors.ShapeError, match="sum to 4; need a sum of 5"):
        fc.all_to_all_single(torch.ones(5), [2, 2], [2, 2], group)


def _permuted(group):
    n = group.world
    shift = [(i + 1) % n for i in range(n)]
    x = torch.full((2, 3, 1), float(group.rank))
    moved = fc.permute_tensor(x, shift, group)
    one = fc.permute_tensor(x + 1, [n - 1] + [-1] * (n - 1), group)
    refused = [
        type(_refusal(lambda wrong=wrong: fc.permute_tensor(x, wrong, group))).__name__
        for wrong in ([0] * (n + 1), [n, *shift[1:]], [*shift[:-1], "0"], [-2] * n)
    ]
    return moved.shape == x.shape, moved.unique().tolist(), one.unique().tolist(), refused


@pytest.mark.world(1, 2, 3)
def test_4_permutations_of_any_tensor_are_checked_and_who_gets_nothing_gets_zeros(world):
    n = world.size
    for rank, answer in enumerate(world.run(_permuted)):
        got = [1.0] if rank == n - 1 else [0.0]
        assert answer == (True, [float((rank - 1) % n)], got, ["RankError"] * 4)


@pytest.mark.parametrize("size", [2, 3])
def test_4_a_rank_may_not_receive_twice(size):
    def body(group):
        error = _refusal(lambda: fc.permute_tensor(torch.ones(1), [0] * group.world, group))
        return type(error), "a different rank" in error.need

    assert in_world(size, body) == [(errors.RankError, True)] * size


def _gathered_rows_of_one(group):
    x = torch.full((1, 3), float(group.rank))
    return [fc.all_gather_tensor(x, dim, group).tolist() for dim in (-1, 1, -2)]


@pytest.mark.world(1, 2, 3)
def test_5_a_negative_dim_holds_where_the_first_size_is_one(world):
    flat = [[float(rank) for rank in range(world.size) for _ in range(3)]]
    stacked = [[float(rank)] * 3 for rank in range(world.size)]
    assert world.run(_gathered_rows_of_one) == [[flat, flat, stacked]] * world.size


def test_6_what_cannot_be_scattered_is_refused_not_cut():
    def body(group):
        calls = (
            lambda: fc.reduce_scatter_tensor(torch.ones(5, 2), "sum", 0, group),
            lambda: fc.reduce_scatter_tensor(torch.tensor(1.0), "sum", 0, group),
            lambda: fc.reduce_scatter_tensor_coalesced([torch.ones(4), torch.ones(5)], "sum", [0, 0], group),
        )
        return [type(_refusal(call)) for call in calls]

    assert in_world(2, body) == [[errors.ShapeError] * 3] * 2


def test_7_shapes_and_strides_under_fake_tensors_are_those_of_eager_calls(fake_world):
    group = fake_world(2)
    shift = [1, 0]
    calls = {
        "all_reduce": lambda x: fc.all_reduce(x, "sum", group),
        "broadcast": lambda x: fc.broadcast(x, 0, group),
        "all_gather": lambda x: fc.all_gather_tensor(x, 1, group),
        "reduce_scatter": lambda x: fc.reduce_scatter_tensor(x, "sum", 1, group),
        "all_to_all": lambda x: fc.all_to_all_single(x, None, None, group),
        "permute": lambda x: fc.permute_tensor(x, shift, group),
        "all_reduce_coalesced": lambda x: fc.all_reduce_coalesced([x, x], "sum", group)[1],
    }
    for layout in (
        lambda: torch.ones(4, 6).t(),
        lambda: torch.ones(6, 8)[:, ::2],
        lambda: torch.ones(1, 4).expand(6, 4),
    ):
        for name, call in calls.items():
            real = call(layout())
            with FakeTensorMode():
                fake = call(layout())
            assert (tuple(fake.shape), fake.stride()) == (tuple(real.shape), real.stride()), name
            real + 0


def _peers_in_a_subgroup(group):
    """Places in a group are not ranks of the world; both are spelled by the caller and none is mixed up."""
    import torch.distributed as dist

    pair = dist.new_group([1, 2])
    if group.rank == 0:
        return None
    x = torch.tensor([float(group.rank)])
    return [fc.broadcast(x, 1, pair).item(), fc.permute_tensor(x, [1, 0], pair).item()]


@pytest.mark.world(3)
def test_8_a_peer_in_a_subgroup_is_a_place_in_it(world):
    assert world.run(_peers_in_a_subgroup) == [None, [2.0, 2.0], [2.0, 1.0]]


def test_9_what_is_written_into_a_given_tensor_is_ordered_behind_the_wait(fake_world):
    """In a graph every later read of the output uses what the copy into it gave."""
    from torch.fx.experimental.proxy_tensor import make_fx

    group = fake_world(2)

    def body(out, x):
        fc.all_gather_tensor_inplace(out, x, group)
        return out + 1

    graph = make_fx(body)(torch.zeros(4), torch.ones(2))
    by_target = {str(node.target): node for node in graph.graph.nodes if node.op == "call_function"}
    copied = by_target["aten.copy_.default"]
    assert by_target["aten.add.Tensor"].args[0] is copied
    assert copied.args[1] is by_target["_c10d_functional.wait_tensor.default"]


def test_9_a_message_is_read_behind_its_wait_from_the_tensor_that_it_came_into(fake_world):
    """A later read of the tensor that was handed to the receive uses what arrived, in the code of a compiler, too."""
    from torch._dynamo.backends.common import aot_autograd

    group = fake_world(2)
    graphs = []

    def body(x):
        fc.irecv_inplace(x, 1, 0, group)
        return x + 1

    compiled = torch.compile(
        body, fullgraph=True, backend=aot_autograd(fw_compiler=lambda graph, _: graphs.append(graph) or graph)
    )
    compiled(torch.zeros(2))
    (read,) = (node for node in graphs[0].graph.nodes if str(node.target) == "aten.add.Tensor")
    above, seen = [read], set()
    while above:
        node = above.pop()
        seen.update(map(str, (node.target, *node.args)))
        above += node.all_input_nodes
    assert "comm_core.batch_p2p.default" in seen


def _registry(group):
    """How many works torch's registry holds after a hundred collectives that were all waited for."""
    size = torch._C._distributed_c10d._get_work_registry_size
    before = size()
    for _ in range(100):
        fc.permute_tensor(fc.all_reduce(torch.ones(1), "sum", group), list(range(group.world)), group).item()
    return size() - before


def _registry_of_messages(group):
    """The same of a send and a receive, of which torch's leaves the input of the send there."""
    size = torch._C._distributed_c10d._get_work_registry_size
    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
    before = size()
    for _ in range(20):
        for send, receive in ((fc.isend, fc.irecv), (fc.isend_inplace, fc.irecv_inplace)):
            sent = send(torch.ones(1), right, group=group)
            received = receive(torch.zeros(1), left, group=group)
            assert received.item() == 1
            sent.wait()
    return size() - before


@pytest.mark.world(1, 3)
def test_10_nothing_stays_registered_once_it_has_been_waited_for(world):
    assert world.run(_registry) == [0] * world.size
    if world.size > 1:  # who sends to oneself does it in a batch
        assert world.run(_registry_of_messages) == [0] * world.size


def test_11_every_refusal_says_something_and_lists_of_other_lengths_are_refused():
    def body(group):
        calls = (
            lambda: fc.reduce_scatter_tensor_coalesced([torch.ones(2)], "sum", [0, 0], group),
            lambda: fc.all_gather_inplace([torch.ones(2)], torch.ones(2), group),
            lambda: fc.all_to_all_single(torch.ones(2), [1], [1, 1], group),
            lambda: fc.permute_tensor(torch.ones(2), [0], group),
            lambda: fc.all_reduce_coalesced(torch.ones(2), "sum", group),
        )
        return [(bool(error.got), bool(error.need)) for error in map(_refusal, calls)]

    assert in_world(2, body) == [[(True, True)] * 5] * 2
    assert in_world(2, lambda group: fc.all_reduce_coalesced([], "sum", group)) == [[], []]


MISTAKES = {
    "op": (lambda group: fc.all_reduce(torch.ones(2), "summ", group), ValueError),
    "dim": (lambda group: fc.all_gather_tensor(torch.ones(2), 5, group), ValueError),
    "group": (lambda group: fc.all_reduce(torch.ones(2), "sum", 3.5), ValueError),
    "rank": (lambda group: fc.broadcast(torch.ones(2), 9, group), ValueError),
    "type": (lambda group: fc.all_reduce([1.0], "sum", group), TypeError),
    "wait for a number": (lambda group: fc.wait_tensor(3), TypeError),
    "wait for a list": (lambda group: fc.wait_tensor([torch.ones(2)]), TypeError),
    "wait for a sparse tensor": (lambda group: fc.wait_tensor(torch.eye(2).to_sparse()), TypeError),
    "wait for a nested tensor": (
        lambda group: fc.wait_tensor(torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])),
        TypeError,
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_12_mistakes_of_the_caller_are_value_and_type_errors_on_every_rank(what):
    call, kind = MISTAKES[what]

    def body(group):
        error = _refusal(lambda: call(group))
        return isinstance(error, kind), isinstance(error, errors.CommError)

    assert in_world(3, body) == [(True, True)] * 3


def test_13_broadcast_is_differentiable():
    def body(group):
        x = torch.ones(2, requires_grad=True)
        (fc.broadcast(x, 1, group) * (group.rank + 1)).sum().backward()
        return x.grad.tolist()

    assert in_world(3, body) == [[0.0, 0.0], [6.0, 6.0], [0.0, 0.0]]


def test_14_every_argument_has_the_type_that_it_is_annotated_with():
    """The signatures and the checks agree: a tag is an empty word, of a message a number; a source is an int."""
    import inspect

    def body(group):
        return [
            type(_refusal(lambda tag=tag: fc.all_reduce(torch.ones(1), "sum", group, tag))) for tag in ("x", 7)
        ], type(_refusal(lambda: fc.broadcast(torch.ones(1), True, group)))

    assert in_world(2, body) == [([errors.ArgumentError] * 2, errors.RankError)] * 2
    for name in fc.__all__:
        parameters = inspect.signature(getattr(fc, name)).parameters if inspect.isfunction(getattr(fc, name)) else {}
        if "tag" in parameters:
            assert parameters["tag"].annotation == ("int" if name.startswith(("isend", "irecv")) else "str"), name
