"""Ranks that disagree, die, leave, come late or are interrupted."""

import glob
import re

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, MismatchError, RankFailedError, RankTimeoutError, TransportError

pytestmark = pytest.mark.needs_shm


def attempt(call):
    try:
        call()
    except CommError as error:
        return type(error), str(error)
    return None, ""


def waiting():
    options = dist.AllreduceOptions()
    options.asyncOp = False
    return options


DISAGREEMENTS = {
    "size": (lambda x: dist.all_reduce(x[:3]), "all_reduce(sum) of 3 float32"),
    "dtype": (lambda x: dist.all_reduce(x.double()), "all_reduce(sum) of 4 float64"),
    "reduce op": (lambda x: dist.all_reduce(x, op=dist.ReduceOp.MAX), "all_reduce(max) of 4 float32"),
    "collective": (lambda x: dist.barrier(), "barrier"),
    "refused": (
        lambda x: dist.group.WORLD.allreduce([x, x], waiting()),
        "all_reduce (refused: not such a call)",
    ),
    "strides": (
        lambda x: dist.all_reduce(x[:1].expand(4)),
        "all_reduce of 4 float32 (refused: not a dense layout)",
    ),
}


@pytest.mark.world(2, 3, 4, backend="shm")
@pytest.mark.parametrize("what", list(DISAGREEMENTS))
def test_a_disagreement_raises_on_every_rank_and_touches_nothing(world, what):
    odd_call, odd_words = DISAGREEMENTS[what]

    def body(group):
        x = torch.ones(4)
        odd = group.rank == group.world - 1
        kind, said = attempt(lambda: odd_call(x) if odd else dist.all_reduce(x))
        untouched = x.tolist()
        dist.all_reduce(x)  # the group goes on
        return kind, said, untouched, x.tolist()

    others = ", ".join(f"rank {rank}" for rank in range(world.size - 1))
    for kind, said, untouched, after in world.run(body):
        assert kind is MismatchError
        assert f"got {others}: all_reduce(sum) of 4 float32; rank {world.size - 1}: {odd_words};" in said
        assert untouched == [1.0] * 4
        assert after == [float(world.size)] * 4


def lists(x, root):
    return [x.clone() for _ in range(dist.get_world_size())] if dist.get_rank() == root else None


ROOTED = {
    "broadcast": ("src", lambda x, root: dist.broadcast(x, root)),
    "scatter": ("src", lambda x, root: dist.scatter(x, lists(x, root), root)),
    "gather": ("dst", lambda x, root: dist.gather(x, lists(x, root), root)),
    "reduce": ("sum, dst", lambda x, root: dist.reduce(x, root)),
}


@pytest.mark.world(2, 3, backend="shm")
@pytest.mark.parametrize("numel", [0, 4])
@pytest.mark.parametrize("what", list(ROOTED))
def test_another_root_is_a_disagreement_also_where_no_data_moves(world, what, numel):
    word, call = ROOTED[what]

    def body(group):
        x = torch.ones(numel)
        kind, said = attempt(lambda: call(x, 1 if group.rank == group.world - 1 else 0))
        untouched = x.tolist()
        dist.all_reduce(x)  # the group goes on
        return kind, said, untouched, x.tolist()

    others = ", ".join(f"rank {rank}" for rank in range(world.size - 1))
    for kind, said, untouched, after in world.run(body):
        assert kind is MismatchError
        assert f"got {others}: {what}({word}=0) of {numel} float32; rank {world.size - 1}: {what}({word}=1) of" in said
        assert untouched == [1.0] * numel
        assert after == [float(world.size)] * numel


def test_sub_group_errors_name_global_ranks(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        pair = dist.new_group([0, 2], backend="shm")
        if rank == 1:
            return None
        return attempt(lambda: dist.all_reduce(torch.ones(1 + rank), group=pair))

    answers = fleet.run(body, 3)
    assert answers[1] == ("returned", None)
    for how, answer in (answers[0], answers[2]):
        assert how == "returned"
        assert answer[0] is MismatchError
        assert "rank 1 (global rank 2): all_reduce(sum) of 3 float32" in answer[1]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_a_killed_rank_is_named_by_the_others_within_a_second(fleet, world):
    def body(rank, world, store):
        import os
        import signal
        import time

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        dist.all_reduce(torch.ones(4))
        if rank == world - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        pidfd = os.pidfd_open(os.getppid())  # noqa: F841
        began = time.monotonic()
        said = attempt(lambda: dist.all_reduce(torch.ones(4)))
        took = time.monotonic() - began
        again = attempt(lambda: dist.all_reduce(torch.ones(4)))
        return said, took, again

    before = set(glob.glob("/dev/shm/*"))
    *alive, dead = fleet.run(body, world)
    assert dead == ("died", -9)
    for how, (said, took, again) in alive:
        assert how == "returned"
        assert said[0] is again[0] is RankFailedError
        assert f"rank {world - 1}, which has ended" in said[1] or f"found rank {world - 1} gone" in said[1]
        assert took < 1.0
    assert any(f"rank {world - 1}, which has ended" in said[1] for _, (said, _, _) in alive)
    assert set(glob.glob("/dev/shm/*")) <= before


def test_a_rank_that_dies_while_joining_is_named(fleet):
    def body(rank, world, store):
        import os

        if rank == 1:
            from comm_shm import rendezvous

            whole = rendezvous.exchange

            def die_after(*args):
                whole(*args)
                os._exit(3)

            rendezvous.exchange = die_after
        return attempt(lambda: dist.init_process_group("shm", store=store, rank=rank, world_size=world))

    answers = fleet.run(body, 3)
    assert answers[1] == ("died", 3)
    for how, (kind, said) in (answers[0], answers[2]):
        assert how == "returned"
        assert kind is RankFailedError
        assert re.search("rank 1, (rank [02], )?wh|found rank 1 gone", said)


def test_a_rank_that_never_joins_is_named(fleet):
    def body(rank, world, store):
        from datetime import timedelta

        if rank == 1:
            return None
        limit = timedelta(seconds=1)
        return attempt(lambda: dist.init_process_group("shm", store=store, rank=rank, world_size=world, timeout=limit))

    answers = fleet.run(body, 3)
    for _, (kind, said) in (answers[0], answers[2]):
        assert kind is RankTimeoutError
        assert "no sign of rank 1 within 1 s" in said


def test_a_late_rank_is_named_with_what_it_did_last(fleet):
    def body(rank, world, store):
        from datetime import timedelta

        dist.init_process_group("shm", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=30))
        dist.all_reduce(torch.ones(7))
        dist.group.WORLD.set_timeout(timedelta(seconds=0.5 if rank == 0 else 30))
        if rank == 2:
            store.wait(["given up"])
        said = attempt(lambda: dist.all_reduce(torch.ones(4)))
        if rank == 0:
            store.set("given up", "")
        return said, attempt(lambda: dist.barrier())

    answers = fleet.run(body, 3)
    assert [how for how, _ in answers] == ["returned"] * 3
    kinds = [said[0] for _, (said, _) in answers]
    assert kinds == [RankTimeoutError] * 3
    assert "no arrival within 0.5 s of rank 2 (its last: all_reduce(sum) of 7 float32" in answers[0][1][0][1]
    assert "this rank had timed out" in answers[0][1][1][1]
    for _, (said, after) in answers[1:]:
        assert "a group on which rank 0 had timed out" in said[1]
        assert after[0] is RankTimeoutError


def test_barrier_takes_a_timeout_of_its_own(fleet):
    def body(rank, world, store):
        from datetime import timedelta

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        if rank == 1:
            store.set("joined", "")
            store.wait(["given up"])
            return None
        store.wait(["joined"])  # else the other rank's joining may be what fails
        said = attempt(lambda: dist.group.WORLD.barrier(timeout=timedelta(milliseconds=100)).wait())
        store.set("given up", "")
        return said

    answers = fleet.run(body, 2)
    assert answers[0][1][0] is RankTimeoutError
    assert answers[1] == ("returned", None)


def test_a_rank_that_left_is_named_at_once(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        dist.all_reduce(torch.ones(4))
        if rank == 1:
            dist.destroy_process_group()
            store.wait(["told"])
            return None
        said = attempt(lambda: dist.all_reduce(torch.ones(4)))
        store.set("told", "")
        return said

    answers = fleet.run(body, 2)
    kind, said = answers[0][1]
    assert kind is RankFailedError
    assert "rank 1, which has destroyed this process group or is ending" in said


def test_what_all_ranks_completed_is_no_failure_on_a_rank_that_is_slow_to_see_it(fleet):
    def body(rank, world, store):
        import os
        import signal
        from pathlib import Path

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        x = torch.ones(4)
        if rank == 2:
            store.set("process", str(os.getpid()))
            return attempt(lambda: dist.all_reduce(x)), x.tolist(), attempt(lambda: dist.all_reduce(x))
        slow = int(store.get("process"))
        if rank == 0:
            group = dist.group.WORLD._get_backend(torch.device("cpu"))
            while group._native.states(group._handle)[2][0] != -1:  # steps behind: it is in its all_reduce
                os.sched_yield()
            os.kill(slow, signal.SIGSTOP)
            while Path(f"/proc/{slow}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                os.sched_yield()
            dist.all_reduce(x)
            dist.destroy_process_group()
            store.set("left", "")
            store.wait(["found"])
            return None
        dist.all_reduce(x)
        store.wait(["left"])
        try:
            return attempt(lambda: dist.all_reduce(x))  # which breaks the group
        finally:
            store.set("found", "")
            os.kill(slow, signal.SIGCONT)

    (_, left), (_, found), (_, (slow, reduced, after)) = fleet.run(body, 3)
    assert left is None
    assert found[0] is after[0] is RankFailedError
    assert "rank 0, which has destroyed this process group or is ending" in found[1]
    assert slow == (None, "")
    assert reduced == [3.0] * 4


def test_a_signal_interrupts_the_wait(fleet):
    def body(rank, world, store):
        import signal

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        if rank == 1:
            store.wait(["interrupted"])
            return attempt(lambda: dist.all_reduce(torch.ones(4)))

        def stop(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            dist.all_reduce(torch.ones(4))
        except KeyboardInterrupt:
            store.set("interrupted", "")
            return attempt(lambda: dist.all_reduce(torch.ones(4)))
        return "not interrupted"

    (_, first), (_, second) = fleet.run(body, 2)
    assert first[0] is second[0] is RankFailedError
    assert "this rank was interrupted" in first[1]
    assert "rank 0 was interrupted" in second[1]


def test_other_threads_run_while_a_rank_waits(fleet):
    def body(rank, world, store):
        import threading

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        if rank == 1:
            store.wait(["counted"])
            dist.all_reduce(torch.ones(4))
            return None
        waiter = threading.Thread(target=dist.all_reduce, args=(torch.ones(4),))
        waiter.start()
        counted = sum(1 for _ in range(1_000_000))
        waiting = waiter.is_alive()
        store.set("counted", "")
        waiter.join()
        return counted, waiting

    assert fleet.run(body, 2)[0] == ("returned", (1_000_000, True))


def test_a_forked_child_cannot_touch_its_parents_group(fleet):
    def body(rank, world, store):
        import os

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            kind, said = attempt(lambda: dist.all_reduce(torch.ones(4)))
            os.write(writer, f"{kind.__name__}: {said}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        x = torch.ones(4)
        dist.all_reduce(x)
        return os.read(reader, 4096).decode(), x.tolist()

    for how, (said, reduced) in fleet.run(body, 2):
        assert how == "returned"
        assert said.startswith("TransportError: all_reduce: got a process group that was made before")
        assert reduced == [2.0] * 4


def test_a_destroyed_group_says_so(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        group = dist.group.WORLD
        dist.destroy_process_group()
        group.shutdown()
        return attempt(lambda: group.allreduce([torch.ones(4)])), attempt(group.barrier)

    for _, (reduced, met) in fleet.run(body, 2):
        assert reduced[0] is met[0] is TransportError
        assert "was destroyed" in reduced[1]
