"""A rank without memory for the copy that a call needs: an error on every rank, and nothing is lost."""

from functools import partial

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import MismatchError, TransportError
from packages.comm_shm.tests.spans import attempt, on_hosts

pytestmark = pytest.mark.needs_shm

BIG = 64 << 20
REFUSED = "(refused: no room for a copy of its tensors)"


def apart(*shape):
    """Zeros that lie in memory in another order."""
    return torch.zeros(*shape[::-1]).t() if len(shape) == 2 else torch.zeros(2 * shape[0])[::2]


def rows(n):
    return [apart(4) for _ in range(n)]


# Each with the collective and the bytes that rank 1 of three has no room for.
CALLS = {
    "all_reduce": ("all_reduce", 24, lambda n, later: dist.all_reduce(apart(2, 3), async_op=later)),
    "premul_sum": (
        "all_reduce",
        16,
        lambda n, later: dist.all_reduce(torch.ones(4), op=dist._make_nccl_premul_sum(2.0), async_op=later),
    ),
    "sparse": (
        "all_reduce",
        60,
        lambda n, later: dist.all_reduce(torch.eye(3).to_sparse(), async_op=later),
    ),
    "broadcast": ("broadcast", 24, lambda n, later: dist.broadcast(apart(2, 3), 0, async_op=later)),
    "of the root": ("broadcast", 24, lambda n, later: dist.broadcast(apart(2, 3), min(1, n - 1), async_op=later)),
    "reduce": ("reduce", 16, lambda n, later: dist.reduce(torch.ones(4), 0, async_op=later)),
    "gather": (
        "gather",
        16,
        lambda n, later: dist.gather(apart(4), rows(n) if dist.get_rank() == 0 else None, async_op=later),
    ),
    "scatter": (
        "scatter",
        16,
        lambda n, later: dist.scatter(apart(4), rows(n) if dist.get_rank() == 0 else None, async_op=later),
    ),
    "all_gather": (
        "all_gather",
        24,
        lambda n, later: dist.all_gather_into_tensor(torch.zeros(n * 6), apart(2, 3), async_op=later),
    ),
    "its output": (
        "all_gather",
        72,
        lambda n, later: dist.all_gather_into_tensor(apart(n * 6), torch.ones(6), async_op=later),
    ),
    "a list": ("all_gather", 48, lambda n, later: dist.all_gather(rows(n), torch.ones(4), async_op=later)),
    "reduce_scatter": (
        "reduce_scatter",
        72,
        lambda n, later: dist.reduce_scatter_tensor(torch.zeros(6), apart(n * 6), async_op=later),
    ),
    "of a list": (
        "reduce_scatter",
        48,
        lambda n, later: dist.reduce_scatter(torch.zeros(4), [torch.ones(4)] * n, async_op=later),
    ),
    "all_to_all": (
        "all_to_all",
        24,
        lambda n, later: dist.all_to_all_single(torch.zeros(n * 2), apart(n * 2), async_op=later),
    ),
    "of lists": ("all_to_all", 48, lambda n, later: dist.all_to_all(rows(n), [torch.ones(4)] * n, async_op=later)),
}


def without_memory(call):
    """Make a call whose copies torch finds no memory for; return how it ended."""
    from comm_shm import layout, room, sparse

    def full():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes. Error code 12")

    real = room.copied
    layout.copied = sparse.copied = lambda _make, *tensors: real(full, *tensors)
    try:
        return attempt(call)
    finally:
        layout.copied = sparse.copied = real


def waited(call, *args):
    work = call(*args)
    if work is not None:
        work.wait()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.world(1, 2, 3, backend="shm")
@pytest.mark.parametrize("later", [False, True])
def test_every_collective_tells_it_on_every_rank(world, later):
    def body(group):
        told, poor = {}, min(1, group.world - 1)
        for name, (_, _, call) in CALLS.items():

            def one(call=call):
                waited(call, group.world, later)

            told[name] = without_memory(one) if group.rank == poor else attempt(one)
        x = torch.ones(2)
        dist.all_reduce(x)
        return told, x.tolist()

    for rank, (told, after) in enumerate(world.run(body)):
        assert after == [world.size] * 2
        for name, (where, need, _) in CALLS.items():
            kind, said = told[name]
            if rank == min(1, world.size - 1):
                assert kind is TransportError, (name, said)
                assert said.startswith(f"{where}: got no memory for "), said
                assert f"no memory for {need} bytes" in said or world.size != 3, (name, said)
            else:
                assert kind is MismatchError, (name, said)
                assert f"rank 1: {where} {REFUSED}" in said, (name, said)


def test_a_rank_that_has_reached_its_memory_limit_names_the_bytes_and_the_others_name_the_rank(fleet):
    def body(rank, world, store, big):
        import os
        import resource
        from pathlib import Path

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        dist.all_reduce(torch.ones(3))
        x = (torch.arange(big // 4, dtype=torch.int32) % 7).view(2, -1).t()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        if rank == 1:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGESIZE") + big // 2, limits[1]))
        told = [attempt(partial(waited, partial(dist.all_reduce, x, async_op=later))) for later in (False, True)]
        untouched = bool((x.t().reshape(-1) == torch.arange(big // 4) % 7).all()) if rank != 1 else None
        resource.setrlimit(resource.RLIMIT_AS, limits)
        dist.all_reduce(x)
        whole = bool((x.t().reshape(-1) == torch.arange(big // 4) % 7 * world).all())
        return told, untouched, whole

    for rank, (how, answer) in enumerate(fleet.run(body, 3, BIG)):
        assert how == "returned", answer
        told, untouched, whole = answer
        assert untouched is (None if rank == 1 else True)
        assert whole
        for kind, said in told:
            assert kind is (TransportError if rank == 1 else MismatchError), said
            assert (
                f"all_reduce: got no memory for {BIG} bytes" if rank == 1 else f"rank 1: all_reduce {REFUSED}"
            ) in said


@pytest.mark.world(2, backend="shm")
def test_a_message_without_room_is_refused_by_its_rank_alone_and_the_next_one_arrives(world):
    def body(group):
        told = []
        if group.rank == 0:
            told.append(without_memory(lambda: dist.send(apart(2, 3), 1)))
        else:
            told.append(without_memory(lambda: dist.recv(apart(2, 3), 0)))
        x = apart(2, 3) + 1 if group.rank == 0 else apart(2, 3)
        dist.send(x, 1) if group.rank == 0 else dist.recv(x, 0)
        return told, x.tolist()

    for rank, (((kind, said),), x) in enumerate(world.run(body)):
        assert kind is TransportError
        assert f"{('send', 'recv')[rank]}: got no memory for 24 bytes" in said
        assert x == [[1.0] * 3] * 2


def test_ranks_of_several_hosts_are_told_too():
    def body(span):
        def call():
            dist.all_reduce(apart(2, 3), group=span)

        told = without_memory(call) if span.rank() == 1 else attempt(call)
        x = torch.ones(2)
        dist.all_reduce(x, group=span)
        return told, x.tolist()

    answers = on_hosts("aab", body)
    assert [kind for (kind, _), _ in answers] == [MismatchError, TransportError, MismatchError]
    assert [f"rank 1: all_reduce {REFUSED}" in said for (_, said), _ in answers] == [True, False, True]
    assert "got no memory for 24 bytes" in answers[1][0][1]
    assert [after for _, after in answers] == [[3.0] * 2] * 3
