"""Groups on several hosts in trouble: ranks that disagree, die, leave or come late, on whichever host."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import MismatchError, RankFailedError, RankTimeoutError, ShapeError
from comm_shm import across
from comm_shm.faults import Scene
from packages.comm_shm.tests.spans import attempt, joined, on_hosts

pytestmark = pytest.mark.needs_shm


DISAGREEMENTS = {
    "size": (lambda x: dist.all_reduce(x[:3]), "all_reduce(sum) of 3 float32"),
    "much": (lambda x: dist.all_reduce(torch.ones(100_000)), "all_reduce(sum) of 100000 float32"),
    "dtype": (lambda x: dist.all_reduce(x.double()), "all_reduce(sum) of 4 float64"),
    "reduce op": (lambda x: dist.all_reduce(x, op=dist.ReduceOp.MAX), "all_reduce(max) of 4 float32"),
    "collective": (lambda x: dist.barrier(), "barrier"),
    "root": (lambda x: dist.broadcast(x, 1), "broadcast(src=1) of 4 float32"),
    "refused": (lambda x: dist.all_reduce(x[:1].expand(4)), "all_reduce of 4 float32 (refused: not a dense layout)"),
}


@pytest.mark.parametrize("layout", ["ab", "aab", "abb", "abac"])
def test_a_disagreement_raises_on_every_rank_of_every_host(fleet, layout):
    def body(rank, world, store, layout):
        joined(rank, world, store, layout)
        x, said = torch.ones(4), []
        for odd_call, _ in DISAGREEMENTS.values():
            said.append(attempt(lambda call=odd_call: call(x) if rank == world - 1 else dist.all_reduce(x)))
        root = int(rank == world - 1)
        parts = [x[:0] for _ in range(world)] if rank == root else None
        said.append(attempt(lambda: dist.gather(x[:0], parts, root)))
        rows = torch.ones(world + (rank == 1))
        splits = [1] * world
        splits[-1] += rank == 1
        said.append(attempt(lambda: dist.all_to_all_single(torch.empty(world), rows, [1] * world, splits)))
        untouched = x.tolist()
        dist.all_reduce(x)
        return said, untouched, x.tolist()

    world = len(layout)
    others = ", ".join(f"rank {rank}" for rank in range(world - 1))
    for how, answer in fleet.run(body, world, layout):
        assert how == "returned", answer
        said, untouched, after = answer
        assert untouched == [1.0] * 4
        assert after == [float(world)] * 4
        assert [kind for kind, _ in said] == [MismatchError] * len(said)
        for (_, words), (_, odd) in zip(said, DISAGREEMENTS.values(), strict=False):
            assert f"got {others}: all_reduce(sum) of 4 float32; rank {world - 1}: {odd};" in words
        assert f"rank {world - 1}: gather(dst=1) of 0 float32;" in said[-2][1]
        assert f"rank 1, which sends 2 elements to rank {world - 1}, which expects 1" in said[-1][1]


@pytest.mark.parametrize(("layout", "dies"), [("ab", 0), ("ab", 1), ("aab", 1), ("aabb", 2), ("aabb", 3), ("abc", 2)])
def test_a_killed_rank_is_named_on_every_host_within_a_second(fleet, layout, dies):
    def body(rank, world, store, layout, dies):
        import os
        import signal
        import time

        joined(rank, world, store, layout)
        dist.all_reduce(torch.ones(4))
        if rank == dies:
            os.kill(os.getpid(), signal.SIGKILL)
        began = time.monotonic()
        said = attempt(lambda: dist.all_reduce(torch.ones(4)))
        took = time.monotonic() - began
        again = attempt(lambda: dist.barrier())
        return said, took, again

    answers = fleet.run(body, len(layout), layout, dies)
    assert answers.pop(dies) == ("died", -9)
    for how, answer in answers:
        assert how == "returned", answer
        said, took, again = answer
        assert said[0] is again[0] is RankFailedError
        assert f"rank {dies}, " in said[1], said
        assert took < 1.0


@pytest.mark.parametrize(("layout", "late"), [("ab", 1), ("aabb", 3), ("aabb", 2), ("abb", 0)])
def test_a_late_rank_is_named_on_every_host(fleet, layout, late):
    def body(rank, world, store, layout, late):
        from datetime import timedelta

        joined(rank, world, store, layout, timeout=timedelta(seconds=30))
        dist.all_reduce(torch.ones(7))
        if rank == late:
            store.wait([f"given up {peer}" for peer in range(world) if peer != late])
        dist.group.WORLD.set_timeout(timedelta(seconds=0.5))
        said = attempt(lambda: dist.all_reduce(torch.ones(4)))
        store.set(f"given up {rank}", "")
        return said

    for rank, (how, said) in enumerate(fleet.run(body, len(layout), layout, late)):
        assert how == "returned", said
        assert said[0] in ((RankTimeoutError,) if rank != late else (RankTimeoutError, RankFailedError))
        assert (
            f"no arrival within 0.5 s of rank {late} (its last: all_reduce(sum) of 7 float32, its number 3)" in said[1]
        )


def test_a_rank_that_is_late_in_the_middle_of_a_call_is_named_with_that_call(fleet):
    """Its announcement has come; what it was to send after it has not."""

    def body(rank, world, store, layout):
        from datetime import timedelta

        joined(rank, world, store, layout, timeout=timedelta(seconds=30))
        dist.all_reduce(torch.ones(7))
        spanning = dist.group.WORLD._spanning
        if rank == 1:
            spanning._bodies["all_gather"] = lambda call: store.wait(["given up"]) or 0
        dist.group.WORLD.set_timeout(timedelta(seconds=0.5))
        big = torch.ones(100_000)
        said = attempt(lambda: dist.all_gather_into_tensor(big.new_empty(200_000), big))
        store.set("given up", "")
        return said

    (how, (kind, said)), _ = fleet.run(body, 2, "ab")
    assert how == "returned"
    assert kind is RankTimeoutError
    assert "s of rank 1 (its last: all_gather of 100000 float32, its number 4), on another host" in said


def test_a_rank_is_late_also_where_gloo_gives_up_with_the_last_millisecond(monkeypatch):
    clock = [1.0]

    class Gloo:
        def recv(self, tensors, peer, tag):
            return self

        send = recv

        def wait(self, limit):
            clock[0] += limit // timedelta(milliseconds=1) / 1e3  # gloo counts whole ones
            raise RuntimeError("Timed out waiting for recv operation to complete")

    monkeypatch.setattr(across.time, "monotonic", lambda: clock[0])
    wire = across.Wire(Gloo(), 0, [0, 1], Scene("all_reduce", 0, (), 0.0305, (), (0, 0)))
    with pytest.raises(RankTimeoutError, match=r"no arrival within 0\.0305 s of rank 1"):
        wire.exchange({}, {1: torch.empty(1)}, 0.0305)()


def test_what_was_started_fails_with_the_same_error(fleet):
    def body(rank, world, store, layout):
        joined(rank, world, store, layout)
        x = torch.ones(3)
        good = dist.all_reduce(x, async_op=True)
        bad = dist.all_reduce(torch.ones(3 + rank), async_op=True)
        good.wait()
        return x.tolist(), attempt(bad.wait)

    for _, (good, (kind, said)) in fleet.run(body, 3, "aab"):
        assert good == [3.0] * 3
        assert kind is MismatchError
        assert "rank 2: all_reduce(sum) of 5 float32" in said


def test_messages_that_do_not_fit_raise_at_both_ends(fleet):
    def body(rank, world, store, layout):
        from datetime import timedelta

        joined(rank, world, store, layout)
        if rank == 0:
            said = attempt(lambda: dist.send(torch.ones(3), 1))
        else:
            said = attempt(lambda: dist.recv(torch.ones(4), 0))
        late = dist.irecv(torch.ones(4), 1 - rank, tag=5)
        told = attempt(lambda: late.wait(timedelta(seconds=0.2)))
        store.set(f"{rank} was told", "")
        store.wait([f"{1 - rank} was told"])  # a rank that ends would be another error
        return said, told

    for how, answer in fleet.run(body, 2, "ab"):
        assert how == "returned", answer
        said, late = answer
        assert said[0] is MismatchError
        assert "3 float32 of tag 0, sent by rank 0, where rank 1 asked for 4 float32" in said[1]
        assert late[0] is RankTimeoutError
        assert "within 0.2 s" in late[1]


def test_a_rank_that_gives_up_in_the_middle_of_a_call_tells_the_others_why():
    def body(span):
        def give_up(*_given):
            raise RuntimeError("of its own")

        if span.rank() == 1:
            span._spanning._at_once.bodies["all_reduce_one_of"] = give_up
            with pytest.raises(RuntimeError, match="of its own"):
                dist.all_reduce(torch.ones(2), group=span)
        else:
            attempt(lambda: dist.all_reduce(torch.ones(2), group=span))  # which rank 1 may end before
        return attempt(lambda: dist.all_reduce(torch.ones(2), group=span))

    for kind, said in on_hosts("aab", body):
        assert kind is RankFailedError
        assert "got rank 1, which gave up: of its own" in said


def test_wrong_arguments_are_refused_on_every_rank(fleet):
    def body(rank, world, store, layout):
        joined(rank, world, store, layout)
        return attempt(lambda: dist.all_gather_into_tensor(torch.empty(7), torch.ones(2)))

    for _, (kind, said) in fleet.run(body, 3, "aba"):
        assert kind is ShapeError
        assert "need an output of 6 elements" in said


def test_a_forked_child_cannot_touch_it(fleet):
    def body(rank, world, store, layout):
        import os

        joined(rank, world, store, layout)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            kind, _ = attempt(lambda: dist.all_reduce(torch.ones(4)))
            os.write(writer, kind.__name__.encode())
            os._exit(0)
        os.waitpid(child, 0)
        x = torch.ones(2)
        dist.all_reduce(x)
        return os.read(reader, 100).decode(), x.tolist()

    assert fleet.run(body, 2, "ab") == [("returned", ("TransportError", [2.0, 2.0]))] * 2
