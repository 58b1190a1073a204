"""Messages in groups on several hosts: through memory inside a host, and from any source of any host."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import MismatchError, RankFailedError, RankTimeoutError
from packages.comm_shm.tests.spans import attempt, joined, on_hosts

pytestmark = pytest.mark.needs_shm

TAGS, TURNS = (3, 8), 25
RING = 256 * 1024


def check_taken(taken, world, turns=TURNS):
    """Each message of every other rank once, and those of one source and tag in the order in which they were sent."""
    for tag, messages in taken.items():
        assert all(source == said and tag == of for source, said, of, _ in messages)
        for rank in range(1, world):
            assert [turn for source, _, _, turn in messages if source == rank] == list(range(turns))


def test_messages_inside_a_host_use_no_connection():
    def body(span):
        class Silent:
            def __getattr__(self, name):
                raise AssertionError(f"{name} of a connection between hosts")

        rank, group = dist.get_rank(), dist.group.WORLD
        near = {0: 2, 1: 3, 2: 0, 3: 1}[rank]
        across = span._native._spanning.across
        real, across.everyone = across.everyone, Silent()
        try:
            good = []
            for numel in (0, 1, RING - 64, 5 * RING + 7):
                x, out = torch.full((numel,), rank, dtype=torch.uint8), torch.empty(numel, dtype=torch.uint8)
                ops = [dist.P2POp(dist.isend, x, near, span, 4), dist.P2POp(dist.irecv, out, near, span, 4)]
                for work in dist.batch_isend_irecv(ops):
                    work.wait()
                good.append(bool((out == near).all()))
            works = [
                dist.isend(torch.full((2,), 10.0 * tag + turn), near, span, tag) for turn in (0, 1) for tag in TAGS
            ]
            got = torch.empty(2)
            for tag in (8, 3):
                for turn in (0, 1):
                    dist.recv(got, near, span, tag)
                    good.append(got.tolist() == [10.0 * tag + turn] * 2)
            own = torch.empty(3)
            works += [span.send([torch.ones(3)], rank, 1), span.recv([own], rank, 1)]
            for work in works:
                work.wait()
            return all(good), own.tolist(), group.size()
        finally:
            across.everyone = real

    assert on_hosts("abab", body) == [(True, [1.0] * 3, 4)] * 4


@pytest.mark.parametrize("layout", ["ab", "aab", "aba", "abcab"])
@pytest.mark.parametrize("posted_before", [False, True])
def test_any_source_takes_every_message_once_and_each_source_in_order(layout, posted_before):
    def body(span):
        rank, world = dist.get_rank(), dist.get_world_size()
        taken = {tag: [] for tag in TAGS}
        if rank > 0:
            dist.barrier(span)
            rows = [torch.tensor([rank, tag, turn]) for turn in range(TURNS) for tag in TAGS]
            for work in [dist.isend(row, 0, span, int(row[1])) for row in rows]:
                work.wait()
            return taken
        count = TURNS * (world - 1)
        rows = {tag: torch.empty((count, 3), dtype=torch.int64) for tag in TAGS}
        if not posted_before:
            dist.barrier(span)
            for place in range(count):
                for tag in TAGS:
                    source = dist.recv(rows[tag][place], None, span, tag)
                    taken[tag].append((source, *rows[tag][place].tolist()))
            return taken
        works = [(tag, row, dist.irecv(row, None, span, tag)) for tag in TAGS for row in rows[tag]]
        dist.barrier(span)
        for tag, row, work in works:
            work.wait()
            taken[tag].append((work._source_rank(), *row.tolist()))
        return taken

    check_taken(on_hosts(layout, body)[0], len(layout))


def test_receives_of_any_and_of_one_source_are_served_in_their_order():
    def body(span):
        rank = dist.get_rank()
        if rank > 0:
            dist.barrier(span)
            for turn in range(2):
                dist.send(torch.tensor([rank, turn]), 0, span, 5)
            return []
        rows = [torch.empty(2, dtype=torch.int64) for _ in range(4)]
        works = [dist.irecv(row, source, span, 5) for row, source in zip(rows, (None, 2, 1, None), strict=True)]
        dist.barrier(span)
        futures = [work.get_future() for work in works]
        torch.futures.wait_all(futures)
        return [(work._source_rank(), *row.tolist()) for work, row in zip(works, rows, strict=True)]

    seen = on_hosts("aab", body)[0]
    assert [source for source, _, _ in seen[1:3]] == [2, 1]
    assert all(source == said for source, said, _ in seen)
    for rank in (1, 2):
        assert [turn for source, _, turn in seen if source == rank] == [0, 1]


def test_threads_that_receive_from_any_source_share_what_comes():
    def body(span):
        from concurrent.futures import ThreadPoolExecutor

        rank, world = dist.get_rank(), dist.get_world_size()
        if rank > 0:
            for turn in range(40):
                dist.send(torch.tensor([rank, turn]), 0, span, 1)
            return []

        def one(_):
            row = torch.empty(2, dtype=torch.int64)
            source = dist.recv(row, None, span, 1)
            return source, *row.tolist()

        with ThreadPoolExecutor(4) as threads:
            return sorted(threads.map(one, range(40 * (world - 1))))

    assert on_hosts("aabb", body)[0] == [(rank, rank, turn) for rank in (1, 2, 3) for turn in range(40)]


@pytest.mark.parametrize("case", ["size", "dtype", "late"])
def test_a_misfit_inside_a_host_names_both_by_their_ranks_in_the_group(case):
    def body(span):
        rank, said = dist.get_rank(), None
        x = torch.ones(4, dtype=torch.float64 if case == "dtype" else torch.float32)
        out = torch.zeros(3 if case != "dtype" else 4)
        if rank == 1:
            said = attempt(lambda: dist.send(x, 2, span, 2))
            if case == "late":
                dist.send(x, 2, span, 3)
                dist.recv(torch.zeros(1), 2, span)
                said = attempt(lambda: dist.send(x, 2, span, 5))
            dist.send(torch.ones(4), 2, span)
        if rank == 2:
            if case == "late":
                dist.recv(torch.zeros(4), 1, span, 3)
            said = attempt(lambda: dist.recv(out, 1, span, 2))
            if case == "late":
                dist.send(torch.zeros(1), 1, span)
            good = torch.zeros(4)
            dist.recv(good, 1, span)
            assert good.tolist() == [1.0] * 4
        assert out.sum() == 0
        return said

    sent, asked = ("4 float64", "4 float32") if case == "dtype" else ("4 float32", "3 float32")
    for kind, words in on_hosts("baa", body)[1:]:
        assert kind is MismatchError
        assert f"{sent} of tag 2, sent by rank 1, where rank 2 asked for {asked}" in words


@pytest.mark.parametrize("layout", ["aab", "bbac"])
def test_any_source_times_out_with_what_came_instead_and_takes_nothing_with_it(layout):
    def body(span):
        from datetime import timedelta

        rank, world = dist.get_rank(), dist.get_world_size()
        if rank > 0:
            early = dist.isend(torch.ones(5), 0, span, 8)
            dist.send(torch.ones(1), 0, span, 7)
            dist.barrier(span)
            dist.send(torch.full((2,), float(rank)), 0, span, 9)
            early.wait()
            return None
        for peer in range(1, world):
            dist.recv(torch.ones(1), peer, span, 7)
        work = dist.irecv(torch.zeros(2), None, span, 9)
        said = attempt(lambda: work.wait(timedelta(seconds=0.2))), attempt(work.wait)
        dist.barrier(span)
        got = []
        for _ in range(1, world):
            x = torch.zeros(2)
            got.append((dist.recv(x, None, span, 9), x[0].item()))
            dist.recv(torch.zeros(5), None, span, 8)
        return said, sorted(got)

    ((kind, words), again), got = on_hosts(layout, body)[0]
    assert kind is RankTimeoutError
    assert "no send of 2 float32 with tag 9 by any rank within 0.2 s" in words
    assert again == (kind, words)
    for rank in range(1, len(layout)):
        assert f"; rank {rank} sent 5 float32 with tag 8" in words
    assert got == [(rank, float(rank)) for rank in range(1, len(layout))]


@pytest.mark.parametrize(("layout", "dies"), [("aab", 1), ("aab", 2), ("ab", 1), ("abb", 2)])
@pytest.mark.parametrize("what", ["recv", "send", "anyone", "anyone later"])
def test_a_rank_that_dies_while_another_waits_for_a_message_is_named_within_a_second(fleet, layout, dies, what):
    def body(rank, world, store, layout, dies, what):
        import contextlib
        import os
        import select
        import signal
        import time

        joined(rank, world, store, layout)
        dist.barrier()
        x = torch.ones(500_000)
        if rank == dies:
            store.set("process", str(os.getpid()))
            store.wait(["waits"])
            store.set("died", str(time.monotonic()))
            os.kill(os.getpid(), signal.SIGKILL)
        if rank > 0:
            store.wait(["seen"])
            return None
        calls = {"recv": lambda: dist.irecv(x, dies), "send": lambda: dist.isend(x, dies)}
        if what == "anyone later":
            store.wait(["process"])
            gone = os.pidfd_open(int(store.get("process")))
            store.set("waits", "")
            with contextlib.suppress(ProcessLookupError):
                select.select([gone], [], [])
            began = time.monotonic()
            said = attempt(lambda: dist.recv(x, None))
        else:
            work = calls.get(what, lambda: dist.irecv(x, None))()
            store.set("waits", "")
            said = attempt(work.wait)
            began = float(store.get("died"))
        took = time.monotonic() - began
        store.set("seen", "")
        return said, took

    answers = fleet.run(body, len(layout), layout, dies, what)
    assert answers[dies] == ("died", -9)
    how, ((kind, words), took) = answers[0]
    assert how == "returned"
    assert kind is RankFailedError
    did = "took" if what == "send" else "sent"
    assert f"rank {dies}, which has ended before it {did} the message of 500000 float32 with tag 0" in words
    assert took < 1.0


@pytest.mark.parametrize("layout", ["aab", "abc", "aabc"])
def test_any_source_goes_on_without_ranks_that_have_left_until_all_have(fleet, layout):
    def body(rank, world, store, layout):
        joined(rank, world, store, layout)
        dist.barrier()
        if rank > 0:
            if rank > 1:  # the first of the others is the last to leave
                dist.isend(torch.full((2,), float(rank)), 0, tag=6)
            else:
                store.wait([f"{peer} left" for peer in range(2, world)])
                dist.send(torch.full((2,), 1.0), 0, tag=6)
            dist.destroy_process_group()
            store.set(f"{rank} left", "")
            store.wait(["told"])
            return None
        taken, x = [], torch.zeros(2)
        store.wait([f"{peer} left" for peer in range(2, world)])
        for _ in range(1, world):
            taken.append((dist.recv(x, None, tag=6), x[0].item()))
        said = attempt(lambda: dist.recv(x, None, tag=6))
        store.set("told", "")
        return sorted(taken), said

    taken, (kind, words) = fleet.run(body, len(layout), layout)[0][1]
    assert taken == [(rank, float(rank)) for rank in range(1, len(layout))]
    assert kind is RankFailedError
    assert "any rank, which has destroyed this process group or is ending before it sent the message" in words


@pytest.mark.parametrize(("layout", "source"), [("aab", 1), ("aba", 1), ("aab", None)])
def test_a_message_that_waits_when_a_collective_fails_raises_what_that_raised(fleet, layout, source):
    def body(rank, world, store, layout, source):
        from datetime import timedelta

        joined(rank, world, store, layout, timeout=timedelta(seconds=20))
        dist.barrier()
        if rank > 0:
            store.wait(["waits"])
            dist.group.WORLD.set_timeout(timedelta(seconds=0.3))
            said = attempt(dist.barrier)
            store.wait(["seen"])
            return said
        work = dist.irecv(torch.ones(2), source)
        store.set("waits", "")
        later = [lambda: dist.recv(torch.ones(2), 1), lambda: dist.recv(torch.ones(2))]
        said = [attempt(call) for call in (work.wait, *later)]
        store.set("seen", "")
        return said

    (_, received), *raised = fleet.run(body, 3, layout, source)
    for kind, words in (*received, *(said for _, said in raised)):
        assert kind is RankTimeoutError
        assert "barrier: got no arrival within 0.3 s of rank 0" in words


PROGRAM = """
import os, sys
import torch, torch.distributed as dist
rank = int(sys.argv[1])
os.environ["COMM_SHM_HOST"] = "aab"[rank]
store = dist.FileStore(sys.argv[2], 3)
dist.init_process_group("shm", store=store, rank=rank, world_size=3)
x = torch.zeros(1)
if rank == 0:
    for _ in range(2):
        dist.recv(x, None)
else:
    dist.send(torch.ones(1), 0)
open_to_the_end = [dist.irecv(torch.zeros(1), None, tag=5), dist.irecv(torch.zeros(1), (rank + 1) % 3, tag=6)]
store.set(f"open/{rank}", "")  # whoever ends earlier ends what others receive from anybody
store.wait([f"open/{each}" for each in range(3)])
print("through", x.item(), flush=True)
"""


def test_a_program_that_ends_with_receives_under_way_ends_well(tmp_path):
    command = [sys.executable, "-c", PROGRAM]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for rank in range(3)
    ]
    try:
        said = [process.communicate(timeout=60)[0].decode() for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0, 0], said
    assert ["through 1.0" in said[0], "through" in said[1], "through" in said[2]] == [True] * 3
