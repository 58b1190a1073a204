"""Collectives that are started and waited for later: order, errors, futures, and what happens to those nobody wants."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, MismatchError, RankFailedError, RankTimeoutError, TransportError

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, backend="shm")]


def attempt(call):
    try:
        call()
    except CommError as error:
        return type(error), str(error)
    return None, ""


def test_a_started_collective_does_not_wait_for_the_peers(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        x = torch.full((4,), rank + 1.0)
        if rank == 0:
            work = dist.all_reduce(x, async_op=True)
            before = work.is_completed(), work.is_success(), work.exception(), x.tolist()
            store.set("started", "")
            return before, work.wait(), work.is_completed(), work.is_success(), x.tolist(), work.result()[0] is x
        store.wait(["started"])
        dist.all_reduce(x)
        return x.tolist()

    mine, theirs = fleet.run(body, 2)
    assert mine == ("returned", ((False, False, None, [1.0] * 4), True, True, True, [3.0] * 4, True))
    assert theirs == ("returned", [3.0] * 4)


def test_two_groups_may_be_used_in_different_orders(world):
    def body(group):
        groups = [dist.new_group(backend="shm") for _ in range(3)]
        order = groups[group.rank :] + groups[: group.rank]
        x = {id(one): torch.ones(300_000) for one in groups}
        works = [dist.all_reduce(x[id(one)], group=one, async_op=True) for one in order]
        for work in works:
            work.wait()
        return [one.unique().tolist() for one in x.values()]

    assert world.run(body) == [[[float(world.size)]] * 3] * world.size


def test_what_is_called_later_runs_later(world):
    def body(group):
        n, x = float(group.world), torch.ones(5)
        works = [dist.all_reduce(x, async_op=True) for _ in range(20)]
        dist.all_reduce(x)  # waits, and so comes behind them
        done = [work.is_completed() for work in works]
        return all(done), (x == n**21).all().item()

    assert world.run(body) == [(True, True)] * world.size


def test_every_collective_can_be_started(world):
    def body(group):
        n, me, pg = group.world, group.rank, dist.group.WORLD
        x = torch.full((2, 3), me + 1.0)
        whole, parts = torch.zeros(2 * n, 3), [torch.zeros(2, 3) for _ in range(n)]
        strided, kept = torch.zeros(n, 2, 6)[:, :, ::2], torch.zeros(2, 3)
        swapped, given = torch.zeros(n, 2), torch.arange(2.0 * n).view(n, 2)
        listed = [torch.zeros(2) for _ in range(n)]
        root = torch.full((3,), float(me))
        gathered = [torch.zeros(2, 3) for _ in range(n)] if me == 0 else None
        scattered = torch.zeros(2)
        pieces = [torch.full((2,), float(rank)) for rank in range(n)] if me == n - 1 else None
        total = x.clone()
        works = [
            dist.all_gather_into_tensor(whole, x, async_op=True),
            dist.all_gather(parts, x, async_op=True),
            dist.all_gather_into_tensor(strided, x, async_op=True),
            dist.reduce_scatter_tensor(kept, x.repeat(n, 1), async_op=True),
            dist.all_to_all_single(swapped, given, async_op=True),
            dist.all_to_all(listed, [torch.full((2,), float(me))] * n, async_op=True),
            dist.broadcast(root, n - 1, async_op=True),
            dist.gather(x, gathered, async_op=True),
            dist.scatter(scattered, pieces, n - 1, async_op=True),
            dist.reduce(total, 0, async_op=True),
            dist.barrier(async_op=True),
        ]
        lists = [[torch.zeros(1), torch.zeros(2)] for _ in range(n)]
        works.append(pg.allgather_coalesced(lists, [torch.full((1,), float(me)), torch.full((2,), float(me))]))
        del x, given, pieces  # the memory stays until it has been read
        for work in reversed(works):
            work.wait()
        ranks = [float(rank) for rank in range(n)]
        sum_of = n * (n + 1) / 2
        assert [part.unique().tolist() for part in whole.chunk(n)] == [[rank + 1] for rank in ranks]
        assert [part.unique().tolist() for part in parts] == [[rank + 1] for rank in ranks]
        assert [part.unique().tolist() for part in strided] == [[rank + 1] for rank in ranks]
        assert kept.unique().tolist() == [sum_of]
        assert swapped[:, 0].tolist() == [2.0 * me] * n
        assert [part[0].item() for part in listed] == ranks
        assert root.tolist() == [n - 1.0] * 3
        assert me != 0 or [part[0, 0].item() for part in gathered] == [rank + 1 for rank in ranks]
        assert scattered.tolist() == [float(me)] * 2
        assert total[0, 0].item() == (sum_of if me == 0 else me + 1.0)
        assert [[part.sum().item() for part in outs] for outs in lists] == [[rank, 2 * rank] for rank in ranks]
        return True

    assert world.run(body) == [True] * world.size


def test_a_future_is_filled_by_itself_and_callbacks_run(world):
    def body(group):
        x, seen = torch.ones(4), []
        future = dist.all_reduce(x, async_op=True).get_future()
        doubled = future.then(lambda one: one.value()[0] * 2)
        future.add_done_callback(lambda one: seen.append(one.value()[0].sum().item()))
        both = torch.futures.wait_all([future, doubled])
        return both[0][0].tolist(), both[1].tolist(), seen

    n = float(world.size)
    assert world.run(body) == [([n] * 4, [2 * n] * 4, [4 * n])] * world.size


@pytest.mark.world(2, 3, backend="shm")
def test_errors_come_with_wait_on_every_rank_and_the_group_goes_on(world):
    def body(group):
        odd = group.rank == group.world - 1
        x = torch.ones(3 if odd else 4)
        work = dist.all_reduce(x, async_op=True)
        after = torch.ones(2)
        later = dist.all_reduce(after, async_op=True)
        said, again = attempt(work.wait), attempt(work.wait)
        later.wait()
        future = dist.all_reduce(x, async_op=True).get_future()
        through = attempt(future.wait)
        told = str(work.exception())
        return said, again, told, through[0], work.is_completed(), work.is_success(), x.sum().item(), after.tolist()

    for rank, (said, again, told, through, done, good, total, after) in enumerate(world.run(body)):
        assert said[0] is through is MismatchError
        assert said == again
        assert told == said[1]
        assert f"rank {world.size - 1}: all_reduce(sum) of 3 float32" in said[1]
        assert (done, good) == (True, False)
        assert total == (3.0 if rank == world.size - 1 else 4.0)
        assert after == [float(world.size)] * 2


def test_wait_with_a_time_of_its_own_ends_only_the_waiting(fleet):
    def body(rank, world, store):
        from datetime import timedelta

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        x = torch.ones(2)
        if rank == 1:
            store.wait(["waited"])
            dist.all_reduce(x)
            return None
        work = dist.all_reduce(x, async_op=True)
        said = attempt(lambda: work.wait(timedelta(milliseconds=50)))
        between = work.is_completed()
        store.set("waited", "")
        work.wait()
        return said, between, x.tolist()

    (kind, words), between, x = fleet.run(body, 2)[0][1]
    assert kind is RankTimeoutError
    assert "within 0.05 s" in words
    assert "rank 1" in words
    assert not between
    assert x == [2.0] * 2


def test_a_time_limit_in_the_options_is_that_of_the_call(fleet):
    def body(rank, world, store, later):
        from datetime import timedelta

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        if rank == 1:
            store.wait(["given up"])
            return attempt(dist.barrier)
        options = dist.AllreduceOptions()
        options.timeout = timedelta(milliseconds=100)
        options.asyncOp = later
        said = attempt(lambda: dist.group.WORLD.allreduce([torch.ones(2)], options).wait())
        store.set("given up", "")
        return said

    for later in (False, True):
        answers = fleet.run(body, 2, later)
        assert answers[0][1][0] is RankTimeoutError
        assert "no arrival within 0.1 s of rank 1" in answers[0][1][1]
        assert answers[1][1][0] is RankTimeoutError


def test_a_dead_rank_fails_what_was_started(fleet):
    def body(rank, world, store):
        import os
        import signal
        import time

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        x = torch.ones(2)
        work = dist.all_reduce(x, async_op=True)
        work.wait()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        began = time.monotonic()
        work = dist.all_reduce(x, async_op=True)
        future = work.get_future()
        said = attempt(future.wait)
        return said, attempt(work.wait), time.monotonic() - began

    answers = fleet.run(body, 3)
    for how, (said, again, took) in (answers[0], answers[2]):
        assert how == "returned"
        assert said[0] is again[0] is RankFailedError
        assert took < 1.0


def test_destroying_a_group_first_runs_what_was_started(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        x = torch.full((4,), rank + 1.0)
        work = dist.all_reduce(x, async_op=True)
        dist.destroy_process_group()
        return work.wait(), x.tolist()

    assert fleet.run(body, 3) == [("returned", (True, [6.0] * 4))] * 3


def test_abort_fails_what_was_started(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        if rank == 1:
            store.set("joined", "")
            store.wait(["aborted"])
            return attempt(dist.barrier)
        store.wait(["joined"])  # else the other rank's joining may be what fails
        works = [dist.all_reduce(torch.ones(1), async_op=True) for _ in range(2)]
        works.append(dist.irecv(torch.ones(1), 1))
        dist.group.WORLD.abort()
        store.set("aborted", "")
        return [attempt(work.wait)[0] for work in works]

    mine, theirs = fleet.run(body, 2)
    assert mine[0] == "returned"
    assert set(mine[1]) <= {TransportError, RankFailedError}
    assert len(mine[1]) == 3
    assert theirs[1][0] is RankFailedError


def test_works_that_nobody_keeps_are_finished_all_the_same(world):
    def body(group):
        wide = torch.zeros(100, 2 * group.world)[:, ::2]  # has to be copied back when it is there
        for _ in range(100):
            dist.all_gather_into_tensor(wide.t(), torch.ones(100), async_op=True)
        dist.barrier()
        return wide.sum().item(), len(dist.group.WORLD._open)

    assert world.run(body) == [(100.0 * world.size, 0)] * world.size


def test_a_failure_that_nobody_waited_for_is_told_at_the_end(fleet):
    def body(rank, world, store):
        import warnings

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        dist.all_reduce(torch.ones(2 + rank), async_op=True)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            dist.destroy_process_group()
        return [str(one.message) for one in told]

    for how, told in fleet.run(body, 2):
        assert how == "returned"
        assert len(told) == 1
        assert "nobody waited for this" in told[0]
        assert "rank 1: all_reduce(sum) of 3 float32" in told[0]


def test_a_started_collective_of_several_tensors_stops_at_the_first_failure(world):
    def body(group):
        count = 3 if group.rank == group.world - 1 else 2
        work = dist.group.WORLD.allreduce_coalesced([torch.ones(2)] * count)
        said = attempt(work.wait)
        x = torch.ones(2)
        dist.all_reduce(x)
        return said[0], x.tolist()

    want = MismatchError if world.size > 1 else None
    assert world.run(body) == [(want, [float(world.size)] * 2)] * world.size


@pytest.mark.world(2, 3, backend="shm")
def test_what_is_left_over_goes_on_after_a_long_wait_for_something_else(world):
    def body(group):
        from datetime import timedelta

        x, out, words = torch.ones(3), torch.zeros(400_000), torch.zeros(1)
        if group.rank == 1:  # comes late, by a wait that runs out
            attempt(lambda: dist.irecv(torch.zeros(1), 0, tag=9).wait(timedelta(milliseconds=60)))
        if group.rank == 0:
            first, second = dist.all_reduce(x, async_op=True), dist.all_reduce(x, async_op=True)
            first.wait()
            dist.recv(words, 1)  # sent after the second: something else than this thread has to run it
            later = dist.irecv(out, 1, tag=1)
            dist.recv(words, 1, tag=2)
            dist.barrier()  # reached by rank 1 only when its long message has been taken
            later.wait()
            second.wait()
        else:
            dist.all_reduce(x)
            dist.all_reduce(x)
            if group.rank == 1:
                dist.send(words, 0)
                attempt(lambda: dist.irecv(torch.zeros(1), 0, tag=9).wait(timedelta(milliseconds=60)))
                dist.send(words, 0, tag=2)
                dist.send(torch.ones(400_000), 0, tag=1)
            dist.barrier()
        return x.tolist(), out.sum().item()

    n = float(world.size) ** 2
    assert world.run(body) == [([n] * 3, 400_000.0)] + [([n] * 3, 0.0)] * (world.size - 1)
