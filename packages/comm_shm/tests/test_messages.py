"""Messages from rank to rank, on real ranks: order, tags, sizes, both directions at once, and what can go wrong."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, MismatchError, RankFailedError, RankTimeoutError, TransportError

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(2, 3, backend="shm")]

RING = 256 * 1024
SIZES = [0, 1, 63, 64, 65, RING - 64, RING, RING + 1, 5 * RING + 7]
DTYPES = [torch.float32, torch.bool, torch.bfloat16, torch.complex128, torch.uint16, torch.float8_e4m3fn]


def attempt(call):
    try:
        call()
    except CommError as error:
        return type(error), str(error)
    return None, ""


def drawn(seed, numel, dtype=torch.uint8):
    return torch.randint(0, 255, (numel,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8).to(dtype)


def around(group):
    return (group.rank + 1) % group.world, (group.rank - 1) % group.world


@pytest.mark.world(1, 2, 3, backend="shm")
def test_every_rank_sends_to_the_next_and_to_itself_at_once(world):
    def body(group):
        after, before = around(group)
        good = []
        for numel in SIZES:
            works, pairs = [], []
            for there, here in ((after, before), (group.rank, group.rank)):
                out = torch.zeros(numel, dtype=torch.uint8)
                works.append(dist.isend(drawn(group.rank, numel), there, tag=numel))
                works.append(dist.irecv(out, here, tag=numel))
                pairs.append((out, drawn(here, numel)))
            for work in works:
                work.wait()
            good += [torch.equal(*pair) for pair in pairs]
        return all(good)

    assert world.run(body) == [True] * world.size


def test_every_dtype_and_any_strides(world):
    def body(group):
        good = []
        for dtype in DTYPES:
            x = drawn(7, 12, torch.uint8).to(dtype)
            if group.rank == 0:
                dist.send(x.view(3, 4).t(), 1)
            if group.rank == 1:
                wide = torch.zeros(4, 6).to(dtype)
                dist.recv(wide[:, ::2], 0)
                got, want = wide[:, ::2].contiguous(), x.view(3, 4).t().contiguous()
                good.append(torch.equal(got.view(torch.uint8), want.view(torch.uint8)))
        return all(good)

    assert world.run(body) == [True] * world.size


def test_tags_may_be_taken_in_any_order_and_one_tag_keeps_its_order(world):
    def body(group):
        if group.rank == 0:
            for turn in range(3):
                for tag in (5, 6, 7):
                    dist.send(torch.tensor([10.0 * tag + turn]).expand(1 + turn * 100_000).contiguous(), 1, tag=tag)
        seen = []
        if group.rank == 1:
            for tag in (7, 5, 6):
                for turn in range(3):
                    x = torch.zeros(1 + turn * 100_000)
                    dist.recv(x, 0, tag=tag)
                    seen += x.unique().tolist()
        return seen

    want = [10.0 * tag + turn for tag in (7, 5, 6) for turn in range(3)]
    assert world.run(body) == [[], want, []][: world.size]


def test_a_message_from_anyone_says_whom_it_is_from(world):
    def body(group):
        if group.rank > 0:
            dist.send(torch.full((3,), float(group.rank)), 0, tag=4)
            return None
        seen = []
        for _ in range(group.world - 1):
            x = torch.zeros(3)
            work = dist.irecv(x, tag=4)
            work.wait()
            seen.append((work._source_rank(), x[0].item()))
        return sorted(seen)

    assert world.run(body)[0] == [(rank, float(rank)) for rank in range(1, world.size)]


def test_a_batch_and_the_old_way_of_coalescing(world):
    def body(group):
        after, before = around(group)
        pg, out, again = dist.group.WORLD, torch.zeros(100_000), torch.zeros(3)
        x = torch.full((100_000,), group.rank + 1.0)
        ops = [dist.P2POp(dist.irecv, out, before), dist.P2POp(dist.isend, x, after)]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        pg._start_coalescing(torch.device("cpu"))
        pg.recv([again], before, 1)
        pg.send([x[:3]], after, 1)
        work = pg._end_coalescing(torch.device("cpu"))
        future = work.get_future()
        work.wait()
        return out.unique().tolist(), again.tolist(), work.is_completed(), work.is_success(), len(future.wait())

    for rank, got in enumerate(world.run(body)):
        value = (rank - 1) % world.size + 1.0
        assert got == ([value], [value] * 3, True, True, 2)


def test_ranks_that_all_send_first_do_not_wait_for_each_other_for_ever(world):
    def body(group):
        after, before = around(group)
        x, out = torch.full((200_000,), group.rank + 1.0), torch.zeros(200_000)
        dist.send(x, after)
        dist.recv(out, before)
        return out.unique().tolist()

    assert world.run(body) == [[(rank - 1) % world.size + 1.0] for rank in range(world.size)]


def test_a_receive_posted_before_other_work_is_served_meanwhile(world):
    def body(group):
        x, out = torch.full((300_000,), 3.0), torch.zeros(300_000)
        work = dist.irecv(out, 1) if group.rank == 0 else None
        if group.rank == 1:
            dist.send(x, 0)  # far more than a ring: it ends only when rank 0 takes it
        dist.barrier()
        if work is not None:
            work.wait()
        return out.unique().tolist()

    assert world.run(body)[0] == [3.0]


def test_a_long_message_that_does_not_fit_holds_nobody_up(world):
    def body(group):
        x, said = torch.ones(400_000), None
        if group.rank == 0:
            said = attempt(lambda: dist.send(x, 1))
        if group.rank == 1:
            said = attempt(lambda: dist.recv(torch.zeros(3), 0))
        dist.barrier()  # the rest of the message is taken while rank 1 waits here
        return said and said[0]

    assert world.run(body) == [MismatchError, MismatchError, None][: world.size]


@pytest.mark.parametrize("case", ["size", "dtype", "late"])
def test_a_misfit_is_an_error_on_both_sides_that_names_both(world, case):
    def body(group):
        x = torch.ones(4, dtype=torch.float64 if case == "dtype" else torch.float32)
        out = torch.zeros(3 if case != "dtype" else 4)
        said = None
        if group.rank == 0:
            said = attempt(lambda: dist.send(x, 1, tag=2))
            if case == "late":
                dist.send(x, 1, tag=3)
                dist.recv(torch.zeros(1), 1)
                said = attempt(lambda: dist.send(x, 1, tag=5))
        if group.rank == 1:
            if case == "late":
                dist.recv(torch.zeros(4), 0, tag=3)
            said = attempt(lambda: dist.recv(out, 0, tag=2))
            if case == "late":
                dist.send(torch.zeros(1), 0)
        good = torch.zeros(4)
        if group.rank == 0:
            dist.send(torch.ones(4), 1)
        if group.rank == 1:
            dist.recv(good, 0)
        return said, out.sum().item(), good.sum().item()

    answers = world.run(body)
    sent = "4 float64" if case == "dtype" else "4 float32"
    asked = "4 float32" if case == "dtype" else "3 float32"
    for (kind, words), untouched, _ in answers[:2]:
        assert kind is MismatchError
        assert f"{sent} of tag 2, sent by rank 0" in words
        assert f"rank 1 asked for {asked}" in words
        assert untouched == 0.0
    assert answers[1][2] == 4.0


def test_what_nobody_sends_times_out_with_what_came_instead(world):
    def body(group):
        from datetime import timedelta

        brief, said = timedelta(milliseconds=200), None
        if group.rank == 1:
            dist.send(torch.ones(5), 0, tag=8)
        if group.rank == 0:
            work = dist.irecv(torch.zeros(2), 1, tag=9)
            said = attempt(lambda: work.wait(brief)), attempt(work.wait), work.is_success(), str(work.exception())
        if group.rank == 0:
            dist.recv(torch.zeros(5), 1, tag=8)
        dist.barrier()
        return said

    (kind, words), again, good, told = world.run(body)[0]
    assert kind is RankTimeoutError
    assert "no send of 2 float32 with tag 9 by rank 1 within 0.2 s" in words
    assert "rank 1 sent 5 float32 with tag 8" in words
    assert again == (kind, words)
    assert not good
    assert told == words


@pytest.mark.parametrize("what", ["recv", "send", "anyone"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_a_peer_that_dies_is_named_within_a_second(fleet, what, world_size):
    def body(rank, world, store):
        import contextlib
        import os
        import select
        import signal
        import time

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        x = torch.ones(500_000)
        if rank == 1:
            store.set("process", str(os.getpid()))
            dist.isend(torch.ones(2), 0, tag=1)
            if what != "anyone":  # in the middle of a message
                (dist.isend if what == "recv" else dist.irecv)(x, 0)
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 2:
            store.wait(["seen"])
            return None
        if what != "anyone":
            with contextlib.suppress(ProcessLookupError):  # it has ended, and its parent knows
                select.select([os.pidfd_open(int(store.get("process")))], [], [])
        began = time.monotonic()
        call = {"recv": lambda: dist.recv(x, 1), "send": lambda: dist.send(x, 1), "anyone": lambda: dist.recv(x)}[what]
        first = torch.zeros(2)
        dist.recv(first, 1, tag=1)  # what it sent before it died is there
        said = attempt(call)
        store.set("seen", "")
        return said, time.monotonic() - began, first.tolist()

    answers = fleet.run(body, world_size)
    how, ((kind, words), took, first) = answers[0]
    assert how == "returned"
    assert answers[1] == ("died", -9)
    assert kind is RankFailedError
    assert "rank 1, which has ended before" in words
    assert took < 1.0
    assert first == [1.0, 1.0]


def test_a_peer_that_left_is_named_and_what_it_sent_arrives(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        if rank == 1:
            dist.isend(torch.ones(4), 0, tag=1)
            dist.destroy_process_group()
            store.set("left", "")
            store.wait(["told"])
            return None
        store.wait(["left"])
        out = torch.zeros(4)
        dist.recv(out, 1, tag=1)
        said = attempt(lambda: dist.recv(out, 1, tag=2)), attempt(lambda: dist.send(out, 1))
        store.set("told", "")
        return out.tolist(), said

    out, said = fleet.run(body, 2)[0][1]
    assert out == [1.0] * 4
    for kind, words in said:
        assert kind is RankFailedError
        assert "rank 1, which has destroyed this process group or is ending" in words


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_leave_with_messages_for_each_other_make_room_for_them(fleet, size):
    """Each larger than what lies in shared memory; they waited for each other until the group's timeout."""

    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        works = [dist.isend(torch.ones(1 << 20), (rank + step) % world, tag=step) for step in range(1, world)]
        dist.destroy_process_group()
        return len(works)

    assert fleet.run(body, size) == [("returned", size - 1)] * size


def test_self_sends_and_wrong_ranks_are_answered_as_c10d_does(world):
    def body(group):
        try:
            dist.send(torch.ones(1), group.rank)
        except ValueError as error:
            refused = str(error)
        wrong = attempt(lambda: dist.group.WORLD.send([torch.ones(1)], 77, 0))
        many = attempt(lambda: dist.group.WORLD.recv([torch.ones(1)] * 2, 0, 0))
        elsewhere = attempt(lambda: dist.group.WORLD.recv([torch.ones(1, device="meta")], 0, 0))
        return "destination" in refused, wrong[0].__name__, many[0].__name__, elsewhere[0] is TransportError

    assert world.run(body) == [(True, "ArgumentError", "ArgumentError", True)] * world.size


def test_threads_and_hundreds_of_messages(world):
    def body(group):
        from concurrent.futures import ThreadPoolExecutor

        after, before = around(group)

        def one(tag):
            x, out = torch.full((100 * tag,), float(tag)), torch.zeros(100 * tag)
            works = [dist.isend(x, after, tag=tag), dist.irecv(out, before, tag=tag)]
            return all(work.wait() for work in works) and bool((out == tag).all())

        with ThreadPoolExecutor(4) as threads:
            return all(threads.map(one, range(1, 200)))

    assert world.run(body) == [True] * world.size


def test_a_negative_tag_is_refused_as_over_gloo(world):
    def body(group):
        told, peer = [], (group.rank + 1) % group.world
        for call in (dist.group.WORLD.send, dist.group.WORLD.recv):
            try:
                call([torch.ones(1)], peer, -1)
            except Exception as error:
                told.append(str(error))
        try:
            dist.group.WORLD.recv_anysource([torch.ones(1)], -7)
        except Exception as error:
            told.append(str(error))
        return told

    for told in world.run(body):
        assert [" ".join(one.split()[:4]) for one in told] == [
            "send: got tag -1;",
            "recv: got tag -1;",
            "recv: got tag -7;",
        ]
