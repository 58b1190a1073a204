"""Symmetric memory in the simulator: what every memory has to do, and what its errors say."""

import pytest
import torch

from comm_core import World, symmetric_memory
from comm_core.errors import (
    ArgumentError,
    CommError,
    DeadlockError,
    DtypeError,
    MismatchError,
    RankError,
    ReduceOpError,
    ShapeError,
    TransportError,
)

WORLDS = (1, 2, 3)


def ring(group):
    """A program for any symmetric memory: its results on every rank are `rings(world)`."""
    memory = symmetric_memory(group)
    rank, world = memory.rank, memory.world
    x = memory.empty((2 * world, 3), torch.float32)
    x.fill_(rank + 1.0)
    buffer = memory.rendezvous(x)
    small = buffer.one_shot_all_reduce("max").unique().tolist()
    gathered = buffer.all_gather().mean(dim=(1, 2)).tolist()
    block = buffer.reduce_scatter("sum")
    buffer.barrier()
    to, source = (rank + 1) % world, (rank - 1) % world
    for lap in range(3):
        buffer.peer(to)[0, 0] = 10.0 * lap + rank
        buffer.signal(to, channel=1)
        buffer.wait(source, channel=1)
        seen = x[0, 0].item()
        buffer.signal(source, channel=2)
        buffer.wait(to, channel=2)
    buffer.barrier()
    x.fill_(2.0)
    part = memory.rendezvous(x[1:2]).two_shot_all_reduce("product").tolist()
    return small, gathered, list(block.shape), block.unique().tolist(), seen, part, x[0].tolist()


def rings(world):
    total = [float(world * (world + 1) / 2)]
    means = [rank + 1.0 for rank in range(world)]
    return [
        ([float(world)], means, [2, 3], total, 20.0 + (rank - 1) % world, [[2.0**world] * 3], [2.0] * 3)
        for rank in range(world)
    ]


@pytest.mark.parametrize("world", WORLDS)
def test_a_program_of_every_part_runs_in_the_simulator(world):
    assert World(world).run(ring) == rings(world)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_the_collectives_reduce_in_rank_order(world, dtype):
    def body(group):
        memory = symmetric_memory(group)
        x = memory.empty((world * 2, 5), dtype)
        inputs = [
            torch.rand(x.shape, generator=torch.Generator().manual_seed(r)).mul(9).to(dtype) for r in range(world)
        ]
        total = inputs[0].float()
        for one in inputs[1:]:
            total = total + one.float()
        want = total.bool() if dtype is torch.bool else total.to(dtype)
        buffer = memory.rendezvous(x.copy_(inputs[group.rank]))
        out = torch.empty_like(x)
        assert buffer.one_shot_all_reduce("sum", out) is out
        assert torch.equal(out, want)
        assert torch.equal(buffer.reduce_scatter("sum"), want.chunk(world)[group.rank])
        assert torch.equal(buffer.all_gather(), torch.stack(inputs))
        assert buffer.two_shot_all_reduce("sum") is x
        return torch.equal(x, want)

    assert World(world).run(body) == [True] * world


def test_signals_count_and_a_wait_that_cannot_end_is_told_at_once():
    def counted(group):
        buffer = symmetric_memory(group).rendezvous(symmetric_memory(group).empty((1,)))
        if group.rank == 0:
            buffer.signal(1)
            buffer.signal(1)
            return None
        return [buffer.wait(0), buffer.wait(0)]

    assert World(2).run(counted) == [None, [None, None]]

    def one_too_many(group):
        buffer = symmetric_memory(group).rendezvous(symmetric_memory(group).empty((1,)))
        if group.rank == 0:
            buffer.signal(1)
        else:
            buffer.wait(0)
            buffer.wait(0)

    with pytest.raises(DeadlockError, match=r"rank 1 waits in wait\(rank 0, channel 0\)"):
        World(2).run(one_too_many)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_that_want_different_buffers_are_told_on_every_rank(world):
    def body(group):
        memory = symmetric_memory(group)
        with pytest.raises(MismatchError, match=r"rank 0: \[2, 3\] torch.float32; rank 1: \[3, 2\] torch.float32"):
            memory.empty((2, 3) if group.rank != 1 else (3, 2))
        with pytest.raises(ArgumentError if group.rank else MismatchError):
            memory.empty((-1,) if group.rank else (1,))
        x = memory.empty((4,))
        return memory.rendezvous(x.fill_(1.0)).two_shot_all_reduce().tolist()

    assert World(world).run(body) == [[float(world)] * 4] * world


def refused(call):
    try:
        call()
    except CommError as error:
        return type(error)
    return None


def test_what_does_not_fit_is_refused():
    def body(group):
        memory = symmetric_memory(group)
        x = memory.empty((4, 2))
        buffer = memory.rendezvous(x)
        return [
            refused(lambda: memory.rendezvous(torch.empty(2))),
            refused(lambda: memory.rendezvous(x.t())),
            refused(lambda: buffer.peer(group.world)),
            refused(lambda: buffer.signal(0, channel=16)),
            refused(lambda: buffer.two_shot_all_reduce("band")),
            refused(lambda: buffer.one_shot_all_reduce(out=torch.empty(8))),
            refused(lambda: buffer.all_gather(out=torch.empty(2, 4, 2, dtype=torch.int32))),
            refused(lambda: memory.rendezvous(x[:3]).reduce_scatter()),
        ]

    want = [ArgumentError, ArgumentError, RankError, ArgumentError, ReduceOpError, ShapeError, DtypeError, ShapeError]
    assert World(2).run(body) == [want] * 2


@pytest.mark.world(2, backend="gloo")
def test_a_backend_without_symmetric_memory_says_which_has_it(world):
    def body(group):
        return refused(lambda: symmetric_memory(group))

    assert world.run(body) == [TransportError] * 2


@pytest.mark.gpu
@pytest.mark.world(2, backend="nccl")
def test_the_same_program_runs_on_cuda(world):  # never run so far: it needs two devices
    def body(group):
        torch.cuda.set_device(group.rank)
        memory = symmetric_memory(group, f"cuda:{group.rank}")
        x = memory.empty((4,), torch.float32).fill_(group.rank + 1.0)
        buffer = memory.rendezvous(x)
        gathered = buffer.all_gather().tolist()
        buffer.signal((group.rank + 1) % 2)
        buffer.wait((group.rank + 1) % 2)
        return gathered, buffer.two_shot_all_reduce().tolist()

    assert world.run(body) == [([[1.0] * 4, [2.0] * 4], [3.0] * 4)] * 2
