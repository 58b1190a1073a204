"""A handle of symmetric memory whose tensor was given another shape in place, which torch does without a word."""

import pytest
import torch

from comm_core.errors import CommError, TransportError

pytestmark = pytest.mark.needs_shm


def resize(x):
    try:
        x.resize_(400)  # torch refuses, and leaves the tensor with 400 elements that it has no memory for
    except RuntimeError:
        return
    raise AssertionError("the memory has been resized")


CHANGES = {
    "transposed": lambda x: x.t_(),
    "under a new dim": lambda x: x.unsqueeze_(0),
    "larger than its memory": resize,
    "smaller": lambda x: x.resize_(2),
}


def refusal(call):
    try:
        call()
    except TransportError as error:
        return "changed in place" in str(error)
    return False


@pytest.mark.world(1, 2, 3, backend="shm")
@pytest.mark.parametrize("name", list(CHANGES))
def test_its_collectives_refuse_the_tensor_and_its_views_stay_those_of_the_memory(world, name):
    change = CHANGES[name]

    def body(group):
        from comm_shm import symmetric

        memory = symmetric.memory_of(group)
        x, after = memory.empty((2, 3)), memory.empty((2,)).fill_(1.0)
        buffer = memory.rendezvous(x)
        x.copy_(torch.arange(6.0).view(2, 3))
        change(x)
        calls = [buffer.one_shot_all_reduce, buffer.two_shot_all_reduce, buffer.reduce_scatter, buffer.all_gather]
        calls += [buffer.barrier, lambda: buffer.all_gather(torch.empty(group.world, 2, 3))]
        refused = [refusal(call) for call in calls]
        views = buffer.peer(group.world - 1).tolist(), buffer.everyone()[0].tolist()
        return refused, views, memory.rendezvous(after).one_shot_all_reduce().tolist()

    rows = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    for refused, views, total in world.run(body):
        assert refused == [True] * 6
        assert views == (rows, rows)
        assert total == [float(world.size)] * 2


@pytest.mark.world(2, backend="shm")
def test_the_tensor_of_one_rank_is_refused_on_all(world):
    def body(group):
        from comm_shm import symmetric

        memory = symmetric.memory_of(group)
        x = memory.empty((2, 3)).fill_(1.0)
        buffer = memory.rendezvous(x)
        if group.rank == 1:
            x.t_()
        with pytest.raises(CommError) as caught:
            buffer.two_shot_all_reduce()
        return str(caught.value), x.sum().item()

    for said, total in world.run(body):
        assert "rank 1: two_shot_all_reduce" in said
        assert "refused: not such a call" in said
        assert total == 6.0
