"""Aborting a group ends what waits in it: in all threads of the rank that aborts, and on the other ranks."""

import threading

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, RankFailedError, TransportError

pytestmark = pytest.mark.needs_shm

WAITS = {
    "all_reduce": lambda: dist.all_reduce(torch.ones(1)),
    "broadcast": lambda: dist.broadcast(torch.ones(100_000), 0),
    "a work": lambda: dist.all_reduce(torch.ones(1), async_op=True).wait(),
    "a large work": lambda: dist.all_reduce(torch.ones(100_000), async_op=True).wait(),
    "a future": lambda: dist.barrier(async_op=True).get_future().wait(),
    "recv": lambda: dist.recv(torch.ones(1), 2),
}


def attempt(call):
    try:
        call()
    except CommError as error:
        return type(error), str(error)
    return None, ""


@pytest.mark.parametrize("hosts", [("one",) * 3, ("one", "other", "one")], ids=["one host", "two hosts"])
@pytest.mark.parametrize("what", list(WAITS))
def test_abort_ends_what_waits_in_every_thread_and_on_every_rank(fleet, what, hosts):
    def body(rank, world, store):
        import os
        from datetime import timedelta

        os.environ["COMM_SHM_HOST"] = hosts[rank]
        try:
            dist.init_process_group("shm", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=100))
        finally:
            del os.environ["COMM_SHM_HOST"]
        store.set(f"joined {rank}", "")
        store.wait([f"joined {peer}" for peer in range(world)])  # else joining may be what fails
        if rank == 2:  # which does not come before it is over
            store.wait(["aborted"])
            told = attempt(dist.barrier)
            store.wait(["told"])  # else it may be this rank's end that the other one hears of
            return told
        if rank == 1:
            told = attempt(WAITS[what])
            store.set("told", "")
            return told
        group, mine = dist.group.WORLD, []
        before = group._get_sequence_number_for_group()
        waiter = threading.Thread(target=lambda: mine.append(attempt(WAITS[what])))
        waiter.start()
        tells = what in ("all_reduce", "broadcast") and len(set(hosts)) == 1  # as soon as it waits
        while tells and group._get_sequence_number_for_group() == before:
            pass
        group.abort()
        waiter.join(50)
        store.set("aborted", "")
        return mine[0] if mine else (None, "it waits still")

    (_, mine), *others = fleet.run(body, 3)
    assert mine[0] in (RankFailedError, TransportError), mine
    for how, (kind, said) in others:
        assert how == "returned"
        assert kind is RankFailedError
        assert "rank 0" in said


def test_aborting_twice_and_asking_afterwards(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        group = dist.group.WORLD
        store.set(str(rank), "")
        store.wait(list(map(str, range(world))))
        group.abort()
        group.abort()
        group.shutdown()
        return attempt(dist.barrier), group._get_sequence_number_for_group()

    for how, ((kind, said), number) in fleet.run(body, 2):
        assert how == "returned"
        assert kind is TransportError
        assert "destroyed" in said
        assert number == 0
