"""Messages as functions: values, gradients back, tags, sub-groups, batches in any order, compiled, refused."""

import pytest
import torch
import torch.distributed as dist

import functional_collectives as fc
from comm_core import World
from comm_core.errors import CommError, DeadlockError, MismatchError, UnwaitedWarning


def _pipeline(group):
    """Each rank multiplies what the one before sent; the last one has the loss."""
    import functional_collectives as fc

    w = torch.tensor([2.0 + group.rank, 3.0], requires_grad=True)
    x = torch.ones(2)
    if group.rank:
        x = fc.irecv(torch.empty(2, requires_grad=True), group.rank - 1, group)
    y = x * w
    if group.rank + 1 < group.world:
        fc.isend(y, group.rank + 1, group).sum().backward()
    else:
        (y * y).sum().backward()
    return w.grad


def _held(n, results):
    ws = [torch.tensor([2.0 + rank, 3.0], requires_grad=True) for rank in range(n)]
    y = torch.ones(2)
    for w in ws:
        y = y * w
    (y * y).sum().backward()
    for got, w in zip(results, ws, strict=True):
        torch.testing.assert_close(got, w.grad)


@pytest.mark.world(1, 2, 3)
def test_a_pipeline_has_the_gradients_of_one_process(world):
    _held(world.size, world.run(_pipeline))


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_pipeline_of_simulated_ranks(size):
    _held(size, World(size).run(_pipeline))


def _batch(group):
    """Everybody to everybody, two dtypes, two tags, each rank in an order of its own; sends to oneself among them."""
    import functional_collectives as fc

    me, n = group.rank, group.world
    x = torch.arange(4.0).view(2, 2).add_(10 * me).requires_grad_()
    whole = torch.arange(3) + 100 * me
    ops = []
    for peer in range(n):
        ops += [fc.Send(x * (peer + 1), peer), fc.Receive(torch.empty(2, 2, requires_grad=True), peer)]
        ops += [fc.Send(whole, peer, tag=7), fc.Receive(whole, peer, tag=7)]
    order = sorted(range(len(ops)), key=lambda place: (place * (me + 3)) % len(ops))
    results = fc.batch_p2p([ops[place] for place in order], group)
    found = dict(zip(order, results, strict=True))
    floats = [found[4 * peer + 1] for peer in range(n)]
    torch.stack([y.sum() * (peer + 1) for peer, y in enumerate(floats)]).sum().backward()
    return [y.tolist() for y in floats], [found[4 * peer + 3].tolist() for peer in range(n)], x.grad.tolist()


def _left_by_an_error(group):
    """Between two exchanges there is one that nobody waits for, as an error has come in between."""
    import functional_collectives as fc

    other, found = 1 - group.rank, []
    for step in range(4):
        mine = torch.full((8,), 10.0 * step + group.rank)
        with pytest.warns(UnwaitedWarning, match="batch_p2p"):
            fc.batch_p2p([fc.Send(mine, other), fc.Receive(torch.empty(8), other)], group)
        received = fc.batch_p2p([fc.Send(mine + 100, other), fc.Receive(torch.empty(8), other)], group)[1]
        found.append(received[0].item())
    return found


@pytest.mark.world(2)
def test_a_message_that_nobody_waits_for_does_not_take_the_place_of_the_next(world):
    assert world.run(_left_by_an_error) == [[101.0 + 10 * step - rank for step in range(4)] for rank in range(2)]


def _squares_around(group):
    import functional_collectives as fc

    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
    w = torch.tensor([2.0 + group.rank, 3.0], requires_grad=True)
    batched = fc.batch_p2p([fc.Send(w * w, right), fc.Receive(torch.empty(2), left)], group)[1]
    sent = fc.isend(w * w, right, group)
    alone = fc.irecv(torch.empty(2, requires_grad=True), left, group)
    ((batched + alone).sum() + sent.sum()).backward()
    return w.grad.tolist()


def _looked_at_for_nans(body):
    """Memory that torch gives out holds NaNs, and autograd looks for NaNs in what backward functions give."""
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autograd.detect_anomaly():
            return body()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.world(2)
def test_messages_have_gradients_where_autograd_looks_for_nans(world):
    expected = [[8.0, 12.0], [12.0, 12.0]]
    assert world.run(lambda group: _looked_at_for_nans(lambda: _squares_around(group))) == expected
    assert _looked_at_for_nans(lambda: World(2).run(_squares_around)) == expected


@pytest.mark.world(1, 2, 3)
def test_a_batch_in_any_order(world):
    _batch_held(world.size, world.run(_batch))


@pytest.mark.parametrize("size", [1, 4])
def test_a_batch_of_simulated_ranks(size):
    _batch_held(size, World(size).run(_batch))


def _batch_held(n, results):
    for me, (floats, wholes, gradient) in enumerate(results):
        assert floats == [(torch.arange(4.0).view(2, 2).add(10 * peer) * (me + 1)).tolist() for peer in range(n)]
        assert wholes == [[100 * peer, 100 * peer + 1, 100 * peer + 2] for peer in range(n)]
        weight = sum((peer + 1) * (me + 1) for peer in range(n))  # sent times peer + 1, weighed there by me + 1
        assert gradient == [[weight] * 2] * 2


def _tags(group):
    import functional_collectives as fc

    if group.rank == 0:
        receipts = [fc.isend(torch.tensor([value]), 1, group, tag) for value, tag in ((1, 5), (2, 6), (3, 5))]
        return [fc.wait_tensor(receipt).numel() for receipt in receipts]
    return [fc.irecv(torch.empty(1, dtype=torch.int64), 0, group, tag).item() for tag in (6, 5, 5)]


def _two_around(group):
    """Two messages each way: both are written to, then one is not used, and both have a second derivative."""
    import functional_collectives as fc

    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
    k, v = (torch.arange(2.0 * size).add(group.rank).view(2, size).requires_grad_() for size in (3, 2))
    like = [k.detach(), v.detach()]

    def around(k, v):
        sends = [fc.Send(k * k, right), fc.Send(v * v, right)]
        return fc.batch_p2p([*sends, *(fc.Receive(x, left) for x in like)], group)[2:]

    there_k, there_v = around(k, v)
    there_k += 1
    there_k[0] *= 2
    there_v[1] *= 3
    ((there_k * there_k).sum() + there_v.sum()).backward()
    found = [k.grad, v.grad]
    found += torch.autograd.grad(around(k, v)[0].sum(), [k, v])
    slopes = torch.autograd.grad(sum((y * y).sum() for y in around(k, v)), [k, v], create_graph=True)
    return found + list(torch.autograd.grad(sum((slope * slope).sum() for slope in slopes), [k, v]))


def _two_around_held(results):
    for rank, (of_k, of_v, alone, unused, *twice) in enumerate(results):
        k, v = (torch.arange(2.0 * size).add(rank).view(2, size) for size in (3, 2))
        factor = torch.tensor([[4.0], [1.0]])  # the first row is doubled after one was added, and then squared
        assert torch.equal(of_k, 4 * k * factor * (k * k + 1))
        assert torch.equal(of_v, 2 * v * torch.tensor([[1.0], [3.0]]))
        assert torch.equal(alone, 2 * k)
        assert torch.equal(unused, torch.zeros_like(v))
        assert all(torch.equal(one, 96 * x**5) for one, x in zip(twice, (k, v), strict=True))  # of (4 x^3)^2


@pytest.mark.world(1, 2, 3)
def test_parts_of_a_batch_may_be_written_to_or_unused_and_have_second_derivatives(world):
    _two_around_held(world.run(_two_around))
    _two_around_held(world.simulate(_two_around))


def _views(group):
    """Whether a conjugate, a transposed and a repeated view go as their values do, and their leaves' gradients too."""
    found = []
    for resolve in (False, True):
        leaves = [torch.view_as_complex(torch.arange(24.0).view(3, 4, 2) + part).requires_grad_() for part in range(3)]
        views = [leaves[0].conj(), leaves[1].t(), leaves[2][:1].expand(5, 4)]
        sent = [x.resolve_conj().contiguous() for x in views] if resolve else views
        there = 1 - group.rank
        messages = [fc.Send(x, there) for x in sent] + [fc.Receive(x.detach(), there) for x in sent]
        arrived = fc.batch_p2p(messages, group)[3:]
        sum((y.abs() ** 2).sum() * (2 + place) for place, y in enumerate(arrived)).backward()
        found += [*(y.detach() for y in arrived), *(x.grad for x in leaves)]
    return all(torch.equal(x, y) for x, y in zip(found[:6], found[6:], strict=True))


@pytest.mark.world(2)
def test_a_batch_of_views_sends_their_values_and_has_their_gradients(world):
    assert world.run(_views) == [True] * 2
    assert world.simulate(_views) == [True] * 2


@pytest.mark.world(2)
def test_tags_tell_messages_apart_and_those_of_one_keep_their_order(world):
    assert world.run(_tags) == [[0, 0, 0], [2, 1, 3]]
    assert World(2).run(_tags) == [[0, 0, 0], [2, 1, 3]]


def _in_a_subgroup(group):
    import functional_collectives as fc

    pair = dist.new_group([1, 2])
    if group.rank == 0:
        return None
    if group.rank == 2:
        return fc.wait_tensor(fc.isend(torch.tensor([42]), 0, pair)).tolist()
    return fc.irecv(torch.tensor([0]), 1, pair).tolist()


@pytest.mark.world(3)
def test_peers_are_positions_in_the_group(world):
    """Torch's own isend_inplace sends to the wrong rank here (pytorch issue 187924)."""
    assert world.run(_in_a_subgroup) == [None, [42], []]


def _compiled(group, backend):
    import torch._dynamo

    import functional_collectives as fc

    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world

    def program(x):
        sent, y = fc.batch_p2p([fc.Send(x * 2, right), fc.Receive(x, left)], group)
        total = fc.reduce(y * (group.rank + 1), "sum", 0, group)
        return total + y + sent.sum()

    torch._dynamo.reset()
    x = (torch.arange(4.0).view(2, 2) + group.rank).requires_grad_()
    results = []
    for one in (program, torch.compile(program, fullgraph=True, backend=backend)):
        y = one(x)
        results += [y.detach(), torch.autograd.grad((y * y).sum(), x)[0]]
    return torch.equal(results[0], results[2]), torch.equal(results[1], results[3])


@pytest.mark.world(3, timeout=180)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_equals_eager(world, backend):
    assert world.run(_compiled, backend) == [(True, True)] * 3


def _not_used(group):
    """A send whose receipt nobody uses must stay in the graph: the other rank waits for it."""
    import torch._dynamo

    import functional_collectives as fc

    def program(x):
        if group.rank == 0:
            fc.isend(x, 1, group)
            return x + 1
        return fc.irecv(x, 0, group) + 1

    torch._dynamo.reset()
    return torch.compile(program, fullgraph=True, backend="inductor")(torch.full((2,), 5.0 * group.rank)).tolist()


@pytest.mark.world(2, timeout=120)
def test_a_compiled_send_stays_though_nobody_uses_its_receipt(world):
    assert world.run(_not_used) == [[1.0, 1.0], [1.0, 1.0]]


def test_a_message_that_nobody_sends_is_named():
    def body(group):
        if group.rank == 1:
            with pytest.raises(DeadlockError) as caught:
                fc.wait_tensor(fc.irecv(torch.empty(3), 0, group, tag=2))
            return str(caught.value)

    said = World(2).run(body)[1]
    assert "rank 1 waits in batch_p2p(receive 3 rows from rank 0, tag 2)" in said
    assert "rank 0 has returned" in said


def test_two_ranks_that_wait_for_each_other_are_named():
    def body(group):
        with pytest.raises(DeadlockError, match=r"rank 0 waits .* rank 1 waits"):
            fc.wait_tensor(fc.irecv(torch.empty(1), 1 - group.rank, group))

    World(2).run(body)


@pytest.mark.parametrize("like", [torch.empty(2), torch.empty(3, dtype=torch.float64)])
def test_a_message_of_another_size_or_dtype_is_refused(like):
    def body(group):
        if group.rank == 0:
            return fc.wait_tensor(fc.isend(torch.ones(3), 1, group)).numel()
        with pytest.raises(MismatchError, match="which rank 0 sent with tag 0"):
            fc.wait_tensor(fc.irecv(like, 0, group))

    World(2).run(body)


@pytest.mark.parametrize(
    "call",
    [
        lambda group: fc.isend(torch.ones(1), 2, group),
        lambda group: fc.irecv(torch.ones(1), -1, group),
        lambda group: fc.isend(torch.ones(1), 0, group, tag=-1),
        lambda group: fc.isend([1.0], 0, group),
        lambda group: fc.batch_p2p(fc.Send(torch.ones(1), 0), group),
        lambda group: fc.batch_p2p([torch.ones(1)], group),
        lambda group: fc.batch_p2p([fc.Send(None, 0)], group),
        lambda group: fc.batch_p2p([fc.Send(torch.ones(1), group.rank)], group),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(call):
    def body(group):
        with pytest.raises(CommError) as caught:
            call(group)
        return bool(caught.value.need)

    assert World(2).run(body) == [True, True]


def _unanswered(group):
    import datetime

    import functional_collectives as fc

    briefly = dist.new_group(timeout=datetime.timedelta(seconds=1))
    try:
        fc.irecv(torch.empty(3), 1 - group.rank, briefly, tag=7).tolist()
    except CommError as error:
        return str(error)


@pytest.mark.world(2)
def test_a_message_that_does_not_come_is_told_by_its_rank_and_tag(world):
    for words, other in zip(world.run(_unanswered), (1, 0), strict=True):
        if world.backend == "shm":
            assert f"with tag 7 by rank {other}" in words
        else:
            assert words.startswith(f"batch_p2p, receiving from rank {other} with tag 7: ")
