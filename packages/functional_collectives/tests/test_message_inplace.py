"""Torch's names for messages: written where they are told, in flight, ranks of the world, refused, compiled."""

import pytest
import torch
import torch.distributed as dist

import functional_collectives as fc
from comm_core import World
from comm_core.errors import CommError


def _ring(group):
    """Everybody to the right, each of the three ways; what was received, and whether it is the tensor itself."""
    import functional_collectives as fc

    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
    x = torch.arange(6.0).view(2, 3).add_(10 * group.rank).requires_grad_()
    found = []
    for strided in (False, True) if group.world > 1 else ():  # who sends to oneself does it in a batch
        for _ in range(2):
            into = torch.zeros(3, 2).t() if strided else torch.zeros(2, 3)
            sent = fc.isend_inplace(x, right, 3, group)
            got = fc.irecv_inplace(into, left, 3, group)
            same = (got * 1).data_ptr() != into.data_ptr() and got.data_ptr() == into.data_ptr()
            found.append((into.tolist(), same, sent.tolist() == x.tolist(), got.requires_grad, sent.requires_grad))
    numbers, into = torch.full((3,), group.rank), (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    words, peers = ["irecv", "isend", "isend", "irecv"], [left, right, right, left]
    results = fc.batch_p2p_ops_inplace(words, peers, [0, 0, 7, 7], [into[0], x, numbers, into[1]], group)
    dropped = [result.wait() for result in results]
    return found, [v.tolist() for v in into], dropped[0].data_ptr() == into[0].data_ptr(), dropped[1].tolist()


def _held(n, answers):
    rows = [torch.arange(6.0).view(2, 3).add(10 * rank).tolist() for rank in range(n)]
    for rank, (found, into, same, sent) in enumerate(answers):
        left = (rank - 1) % n
        assert found == [(rows[left], True, True, False, False)] * (4 if n > 1 else 0)
        assert into == [rows[left], [left] * 3]
        assert same
        assert sent == rows[rank]


@pytest.mark.world(1, 2, 3)
def test_a_message_is_in_its_tensor_when_the_result_was_waited_for(world):
    _held(world.size, world.run(_ring))


@pytest.mark.parametrize("size", [1, 3])
def test_simulated_ranks_have_the_same_messages(size):
    _held(size, World(size).run(_ring))


def _in_a_pair(group):
    """Ranks 1 and 2 of three have a group; a rank counts in the world, and in the group where it is called so."""
    import torch.distributed as dist

    import functional_collectives as fc

    pair = dist.new_group([1, 2])
    if group.rank == 0:
        return None
    other, x, y, z = 3 - group.rank, torch.tensor([group.rank]), torch.zeros(1).long(), torch.zeros(1).long()
    work = [fc.isend_inplace(x, other, 0, pair), fc.irecv_inplace(y, other, 0, pair)]
    work += [fc.isend_inplace(x, None, 1, pair, other - 1), fc.irecv_inplace(z, None, 1, pair, other - 1)]
    for one in work:
        one.wait()
    return y.item(), z.item(), fc.inflight()


@pytest.mark.world(3)
def test_in_a_subgroup_ranks_count_in_the_world(world):
    assert world.run(_in_a_pair) == [None, (2, 2, []), (1, 1, [])]


@pytest.mark.parametrize("strided", [False, True])
def test_what_arrives_in_a_part_is_written_with_a_gradient(strided):
    def body(group):
        room = torch.zeros(5, 4)
        into = room.t()[1:3] if strided else room[2:4]
        sent = fc.isend_inplace(torch.ones(into.shape), 1 - group.rank, group=group)
        got = fc.irecv_inplace(into, 1 - group.rank, group=group)
        assert (got.storage_offset(), got.stride()) == (into.storage_offset(), into.stride())
        weight = torch.full(into[1].shape, 3.0, requires_grad=True)
        plain = got.wait()
        plain[1].mul_(weight)
        (plain * torch.tensor([[2.0], [5.0]])).sum().backward()
        sent.wait()
        return set(weight.grad.tolist()), room.sum().item(), into[1].sum().item(), plain.data_ptr() == into.data_ptr()

    width = 5 if strided else 4
    assert World(2).run(body) == [({5.0}, 4.0 * width, 3.0 * width, True)] * 2


def test_it_is_in_flight_and_writes_once():
    def body(group):
        x, into = torch.ones(2), torch.zeros(2)
        sent = fc.isend_inplace(x, 1 - group.rank, group=group)
        got = fc.irecv_inplace(into, 1 - group.rank, group=group)
        before = into.tolist(), sent.completed, got.completed
        view = got[1:]
        got.wait().add_(1)
        sent.wait()
        return before, view.tolist(), got.tolist(), into.tolist()

    assert World(2).run(body) == [(([0.0, 0.0], False, False), [2.0], [2.0, 2.0], [2.0, 2.0])] * 2
    assert not fc.inflight()


MISTAKES = {
    "no such rank": lambda group: fc.isend_inplace(torch.ones(1), 5, group=group),
    "two ranks": lambda group: fc.irecv_inplace(torch.ones(1), 0, group=group, group_src=0),
    "no rank": lambda group: fc.isend_inplace(torch.ones(1), None, group=group),
    "a word": lambda group: fc.batch_p2p_ops_inplace(["send"], [0], [0], [torch.ones(1)], group),
    "lengths": lambda group: fc.batch_p2p_ops_inplace(["isend"], [0, 0], [0], [torch.ones(1)], group),
    "no ops": lambda group: fc.batch_p2p_ops_inplace(None, [0], [0], [torch.ones(1)], group),
    "no peers": lambda group: fc.batch_p2p_ops_inplace(["isend"], 0, [0], [torch.ones(1)], group),
    "no tags": lambda group: fc.batch_p2p_ops_inplace(["isend"], [0], (tag for tag in [0]), [torch.ones(1)], group),
    "no list": lambda group: fc.batch_p2p_ops_inplace(["isend"], [0], [0], torch.ones(1, 1), group),
    "a tensor of ranks": lambda group: fc.isend_inplace(torch.ones(1), torch.tensor([0, 0]), group=group),
    "no whole number": lambda group: fc.irecv_inplace(torch.ones(1), 0.0, group=group),
    "no tensor": lambda group: fc.irecv_inplace(3, 0, group=group),
    "a bad tag": lambda group: fc.isend_inplace(torch.ones(1), 0, -1, group),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_an_error_at_the_call(what):
    def body(group):
        try:
            MISTAKES[what](group)
        except CommError as error:
            return error.where.split(",")[0]
        return None

    for where in World(2).run(body):
        assert where in ("isend_inplace", "irecv_inplace", "batch_p2p_ops_inplace", "batch_p2p")


def test_compiled_code_has_them_without_a_break(fake_world):
    group = fake_world(3)

    def body(x, into):
        fc.wait_tensor(fc.batch_p2p_ops_inplace(["isend", "irecv"], [1, 2], [0, 0], [x * 2, into], group)[1])
        fc.wait_tensor(fc.isend_inplace(x, 1, 4, group))
        return fc.irecv_inplace(into, None, 4, group, 2) + 1

    compiled = torch.compile(body, fullgraph=True, backend="aot_eager")
    assert compiled(torch.ones(2), torch.ones(2)).shape == body(torch.ones(2), torch.ones(2)).shape


def _compiled(group):
    import functional_collectives as fc

    def body(x, into):
        right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
        return fc.batch_p2p_ops_inplace(["isend", "irecv"], [right, left], [0, 0], [x * 2, into], group)[1] + 1

    into = torch.zeros(2)
    y = torch.compile(body, fullgraph=True, backend="aot_eager")(torch.full((2,), float(group.rank)), into)
    return y.tolist(), into.tolist()


@pytest.mark.world(1, 3)
def test_compiled_messages_arrive_where_they_should(world):
    left = [2.0 * ((rank - 1) % world.size) for rank in range(world.size)]
    assert world.run(_compiled) == [([value + 1] * 2, [value] * 2) for value in left]


def test_the_default_group_is_taken_for_an_empty_group_name(fake_world):
    fake_world(2)
    assert dist.get_rank() == 0
    assert fc.isend_inplace(torch.ones(2), 1).tolist() == [1.0, 1.0]
