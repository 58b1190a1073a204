"""A rank that ends while a group on several hosts is being made, at each step of it, on whichever host."""

import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import timedelta
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import RankFailedError, RankTimeoutError
from comm_shm import doors, rendezvous, spanning_group
from packages.comm_shm.tests.spans import attempt, joined

pytestmark = pytest.mark.needs_shm

LIMIT = timedelta(seconds=20)  # of the group: who waits for it was not told
CARD_LEFT, PLACING, MAPPING, CONNECTING = "create", "_reachable", "_shared", "gloo_group"
ADDRESS_LEFT, JOINING = "address", "joined"


def end(store, number=signal.SIGKILL):
    store.set("died", repr(time.monotonic()))
    os.kill(os.getpid(), number)


def reaching(moment, act):
    """Replace the function at whose call a rank is to do something; ADDRESS_LEFT is when gloo has left its address."""
    if moment != ADDRESS_LEFT:
        return mock.patch.object(spanning_group, moment, side_effect=lambda *given: act())
    gloo_group = spanning_group.gloo_group

    class Last(dist.Store):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def set(self, key, value):
            self.inner.set(key, value)
            act()

    return mock.patch.object(spanning_group, "gloo_group", lambda inner, *given: gloo_group(Last(inner), *given))


def make(rank, world, store, layout, dying, moment, served=False):
    """Return the error of making the group and when it came, in seconds after the death."""
    meeting = store
    if served:  # by rank 0, and gone with it
        if rank == 0:
            meeting = dist.TCPStore("127.0.0.1", 0, world, is_master=True, wait_for_workers=False)
            store.set("port", str(meeting.port))
        else:
            meeting = dist.TCPStore("127.0.0.1", int(store.get("port")), world)
    with ExitStack() as stack:
        if rank in dying:
            stack.enter_context(reaching(moment, lambda: end(store)))
        said = attempt(lambda: joined(rank, world, meeting, layout, timeout=LIMIT))
    return said, time.monotonic() - float(store.get("died"))


def told(answers, dying):
    """Return what the survivors were told, each within a second."""
    words = set()
    for rank, (how, answer) in enumerate(answers):
        if rank in dying:
            assert (how, answer) == ("died", -signal.SIGKILL)
            continue
        assert how == "returned", answer
        (kind, said), took = answer
        assert kind is RankFailedError, said
        assert took < 1.0, said
        words.add(said)
    return words


def told_the_same(answers, dying):
    """Return what all survivors were told."""
    (words,) = told(answers, dying)
    return words


@pytest.mark.parametrize("moment", [CARD_LEFT, PLACING, MAPPING, CONNECTING, ADDRESS_LEFT, JOINING])
@pytest.mark.parametrize(
    ("layout", "dies"), [("ab", 0), ("ab", 1), ("aabb", 0), ("aabb", 1), ("aabb", 2), ("aabb", 3), ("aaabc", 4)]
)
def test_who_ends_while_the_group_is_made_is_named_on_every_rank_within_a_second(fleet, layout, dies, moment):
    assert f"rank {dies}, " in told_the_same(fleet.run(make, len(layout), layout, [dies], moment), [dies])


@pytest.mark.parametrize("moment", [CARD_LEFT, CONNECTING])
def test_a_host_of_which_all_ranks_end_is_noticed_too(fleet, moment):
    said = told_the_same(fleet.run(make, 5, "aabbb", [2, 3, 4], moment), [2, 3, 4])
    assert "rank 2, on another host, which has ended or cannot be reached" in said


@pytest.mark.parametrize("layout", ["ab", "aab", "abb"])
def test_the_rank_that_serves_the_store_is_named_by_those_who_lose_it(fleet, layout):
    words = told(fleet.run(make, len(layout), layout, [0], CONNECTING, True), [0])
    assert all("rank 0, " in said for said in words), words  # there is no store in which they could agree on one


@pytest.mark.parametrize("layout", ["aaa", "aab"])
def test_a_rank_that_dies_before_it_comes_to_a_further_group_is_named_within_a_second(fleet, layout):
    def body(rank, world, store):
        joined(rank, world, store, layout, timeout=LIMIT)
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 2:
            return None
        began = time.monotonic()
        kind, said = attempt(lambda: dist.new_group([0, 1], backend="shm"))
        return kind, said, time.monotonic() - began

    first, second, _ = fleet.run(body, 3)
    assert second == ("died", -9)
    how, (kind, said, took) = first
    assert how == "returned"
    assert kind is RankFailedError
    assert "got rank 1, which has ended before it came to create the group" in said
    assert took < 1.0


def test_who_gives_up_tells_the_others_why(fleet):
    def body(rank, world, store):
        if rank != 3:
            return make(rank, world, store, "aabb", [], "")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who is started in the background ignores it
        with reaching(CONNECTING, lambda: end(store, signal.SIGINT)):
            try:
                joined(rank, world, store, "aabb", timeout=LIMIT)
            except KeyboardInterrupt:
                return "interrupted"

    answers = fleet.run(body, 4)
    assert answers.pop() == ("returned", "interrupted")
    assert "rank 3, which gave up making the group: KeyboardInterrupt" in told_the_same(answers, [])


@pytest.mark.parametrize("moment", [PLACING, CONNECTING])
def test_a_rank_that_is_stopped_is_late_and_has_not_ended(fleet, moment):
    def body(rank, world, store, moment):
        if rank == 2:
            with reaching(moment, lambda: store.wait(["told 0", "told 1", "told 3"])):
                return attempt(lambda: joined(rank, world, store, "aabb", timeout=timedelta(seconds=1.5)))
        said = attempt(lambda: joined(rank, world, store, "aabb", timeout=timedelta(seconds=1.5)))
        store.set(f"told {rank}", "")
        return said

    answers = fleet.run(body, 4, moment)
    for rank in 0, 1, 3:
        how, (kind, said) = answers[rank]
        assert (how, kind) == ("returned", RankTimeoutError), said
        assert "no sign of rank 2 within 1.5 s, after every rank had begun" in said


def test_a_host_that_ends_before_it_has_a_door_is_named_at_the_timeout(fleet):
    def body(rank, world, store):
        doors.HOST = "NOTHING"  # as where no word says that there are other hosts
        with reaching(CARD_LEFT, lambda: end(store)) if rank == 2 else ExitStack():
            return attempt(lambda: joined(rank, world, store, "aab", timeout=timedelta(seconds=1.5)))

    answers = fleet.run(body, 3)
    assert answers.pop() == ("died", -signal.SIGKILL)
    for how, (kind, said) in answers:
        assert (how, kind) == ("returned", RankTimeoutError), said
        assert "no sign of rank 2 within 1.5 s, after every rank had begun" in said


def test_after_a_death_the_group_can_be_made_under_the_same_name(fleet):
    def body(rank, world, store):
        if rank == 3:  # who comes in place of the dead rank 2
            store.wait(["again 0", "again 1"])
            rank = 2
        else:
            said, _ = make(rank, 3, store, "aab", [2], CONNECTING)
            assert said[0] is RankFailedError
            store.set(f"again {rank}", "")
            dist.distributed_c10d._world.group_count = 0  # the same name, as a process that starts anew would have it
        joined(rank, 3, store, "aab", timeout=LIMIT)
        x = torch.ones(3)
        dist.all_reduce(x)
        return x.tolist()

    answers = fleet.run(body, 4)
    assert answers.pop(2) == ("died", -signal.SIGKILL)
    assert answers == [("returned", [3.0] * 3)] * 3


@pytest.mark.parametrize("interface", ["", "lo"])
def test_ranks_are_connected_at_once_also_where_gloo_is_told_to_wait(fleet, interface):
    def body(rank, world, store):
        os.environ["TORCH_GLOO_LAZY_INIT"] = "1"
        if interface:
            os.environ["GLOO_SOCKET_IFNAME"] = interface
        joined(rank, world, store, "aab", timeout=LIMIT)
        if rank == 2:
            end(store)
        said = attempt(lambda: dist.all_reduce(torch.ones(2)))
        return said, time.monotonic() - float(store.get("died"))

    assert "rank 2, " in told_the_same(fleet.run(body, 3), [2])


LEFT_BEHIND = r"""
import os, sys, threading
from datetime import timedelta
import torch.distributed as dist
from comm_core.errors import RankFailedError
from comm_shm import spanning_group

rank, path = int(sys.argv[1]), sys.argv[2]
store = dist.FileStore(path, 2)
os.environ["COMM_SHM_HOST"] = str(rank)


def gloo_group(given, *rest):  # that waits in C++ and hears of nothing, as for a connection
    store.set(f"connecting {rank}", "")
    dist.FileStore(path + "2", 2).wait(["never"], timedelta(seconds=300))


def ends(*given):
    store.wait(["connecting 0"])
    os.kill(os.getpid(), 9)


spanning_group.gloo_group = ends if rank else gloo_group
try:
    dist.init_process_group("shm", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=300))
except RankFailedError as error:
    print(error, [one.name for one in threading.enumerate()])
"""


def test_a_program_ends_with_a_thread_that_gloo_still_holds(tmp_path):
    command = [sys.executable, "-c", LEFT_BEHIND]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for rank in range(2)
    ]
    try:
        printed = started[0].communicate(timeout=60)[0].decode()
        died = started[1].wait(60)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert (started[0].returncode, died) == (0, -signal.SIGKILL), printed
    assert "rank 1, on another host, which has ended" in printed
    assert "comm_shm connections" in printed
    assert len(printed.splitlines()) == 1


def test_what_was_left_in_the_store_is_taken_back(fleet):
    def body(rank, world, store):
        kept = []
        for step in range(3):
            joined(rank, world, store, "aab")
            dist.barrier()
            dist.destroy_process_group()
            dist.distributed_c10d._world.group_count = 0
            store.set(f"step {step} {rank}", "")
            if rank == 0:
                store.wait([f"step {step} {peer}" for peer in range(world)])
                kept.append(store.num_keys())
                store.set(f"counted {step}", "")
            store.wait([f"counted {step}"])
        return kept

    (_, kept), *_ = fleet.run(body, 3)
    own, farewells = 4, 3
    assert [after - before for before, after in itertools.pairwise(kept)] == [own + farewells] * 2


def test_a_door_tells_of_its_end_and_of_nothing_else(monkeypatch):
    monkeypatch.delenv(rendezvous.HOST, raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with doors.Door(2) as door:
        assert door.address == ""  # until a rank elsewhere is known
        door.open()
        address = door.address
        peer = doors.knock(address)
        assert not doors.ended(peer)
        assert doors.ended(doors.knock(address)) is False
    assert doors.ended(peer)
    refused = doors.knock(address)
    assert doors.ended(refused)
    assert doors.knock("nowhere 1") is None
    with doors.Door(3) as door:
        assert door.address


@pytest.mark.parametrize(("name", "want"), [("lo", "127.0.0.1"), ("no such one", "")])
def test_a_door_is_where_gloo_is_told_to_be(monkeypatch, name, want):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", name)
    with doors.Door(1) as door:
        door.open()
        assert door.address.partition(" ")[0] == want


def test_a_door_that_cannot_be_opened_stays_shut(monkeypatch):
    def refused(*given):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(doors.socket, "socket", refused)
    with doors.Door(1) as door:
        door.open()
        assert door.address == ""
