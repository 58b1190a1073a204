"""What groups take of a machine and give back: descriptors, mappings, threads, memory, names; and where there is none.

COMM_SHM_CYCLES=10000 is the long form of the cycles.
"""

import ctypes
import os
import re
import resource
import signal
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, RankFailedError, TransportError
from comm_core.testing import run_ranks

pytestmark = pytest.mark.needs_shm

CYCLES = int(os.environ.get("COMM_SHM_CYCLES") or 300)
NOBODY = 65534


def taken():
    """Descriptors, mappings and threads of this process."""
    maps = Path("/proc/self/maps").read_text().count("comm_shm-")
    return len(os.listdir("/proc/self/fd")), maps, len(os.listdir("/proc/self/task"))


def memory_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))


def fill_interned():
    """Intern so many strings that Python's table of them, of 1 MiB and more, has no reason to double in this test.

    It doubles when two thirds are taken, at any moment. So with 800,000 and those of the program it has 2 ** 21 places,
    and is full at 1,398,101.
    """
    return [sys.intern(f"interned by a test {n}") for n in range(800_000)]


def test_creating_and_destroying_leaves_nothing():
    def body(group, cycles):
        import gc

        def once():
            made = dist.new_group(backend="shm")
            x = torch.ones(1000)
            dist.all_reduce(x, group=made)
            dist.destroy_process_group(made)
            return x[0].item()

        store = dist.distributed_c10d._get_default_store()

        def state():
            dist.barrier()  # the other rank has taken back what it left in the store
            gc.collect()
            kept = store.num_keys()
            dist.barrier()
            return taken(), kept

        interned = fill_interned()
        for _ in range(50):
            once()
        before, memory = state(), memory_kib()
        right = all(once() == group.world for _ in range(cycles))
        return right, state(), before, memory_kib() - memory, len(interned)

    for right, after, before, grown, _ in run_ranks(body, 2, "shm", 600.0, (CYCLES,)):
        assert right
        kept = zip((*after[0], after[1]), (*before[0], before[1]), strict=True)
        assert all(now <= then for now, then in kept), (after, before)
        print(f"{CYCLES} cycles, {grown} KiB more")
        assert grown < 256 + CYCLES // 4  # torch keeps a tag of some 200 bytes for each name (`_world.tags_to_pg`)


def test_a_group_of_the_same_name_can_be_made_again_and_again_over_one_store(fleet):
    def body(rank, world, store):
        sums = []
        for step in range(20):
            dist.init_process_group("shm", store=store, rank=rank, world_size=world)
            x = torch.full((3,), float(step + rank))
            dist.all_reduce(x)
            sums.append(x[0].item())
            dist.destroy_process_group()
            dist.distributed_c10d._world.group_count = 0  # the same name, as a process that starts anew would have it
        return sums

    want = [("returned", [3.0 * step + 3.0 for step in range(20)])] * 3
    assert fleet.run(body, 3) == want


def test_two_hundred_groups_at_once(fleet):
    """In processes of their own: in one that has served other runs, a thread or a connection of theirs may end now."""

    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        dist.barrier()
        before = taken()
        parts = [sorted({n % 4, (n // 4) % 4, (n // 16) % 4}) for n in range(200)]
        made = [dist.new_group(part, backend="shm") for part in parts]
        sums = []
        for part, one in zip(parts, made, strict=True):
            if rank in part:
                x = torch.tensor([2.0**rank])
                dist.all_reduce(x, group=one)
                sums.append(x.item() == sum(2.0**other for other in part))
        between = taken()
        for part, one in zip(parts, made, strict=True):
            if rank in part:
                dist.destroy_process_group(one)
        after = taken()
        dist.barrier()
        dist.destroy_process_group()
        return (
            all(sums),
            len(sums),
            between[1] - before[1],
            [now - then for now, then in zip(after, before, strict=True)],
        )

    for rank, outcome in enumerate(fleet.run(body, 4)):
        mine = sum(rank in (n % 4, (n // 4) % 4, (n // 16) % 4) for n in range(200))
        assert outcome == ("returned", (True, mine, mine, [0, 0, 0]))


def test_two_jobs_on_one_machine_do_not_meet(fleet):
    def body(rank, world, store):
        job, me = divmod(rank, 2)
        mine = dist.PrefixStore(f"job {job}", store)
        dist.init_process_group("shm", store=mine, rank=me, world_size=2)
        store.set(f"{rank} is there", "")
        store.wait([f"{other} is there" for other in range(world)])
        seen = set()
        for step in range(300):
            x = torch.full((2000,), 100.0 * job + step)
            dist.all_reduce(x)
            seen.add(bool((x == 2 * (100.0 * job + step)).all()))
        return seen

    assert fleet.run(body, 4) == [("returned", {True})] * 4


def test_nothing_is_left_when_every_rank_is_killed(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        dist.all_reduce(torch.ones(100_000))
        os.kill(os.getpid(), signal.SIGKILL)

    def names():
        sockets = Path("/proc/net/unix").read_text()
        return set(os.listdir("/dev/shm")), "comm_shm" in sockets

    before = names()
    assert fleet.run(body, 3) == [("died", -signal.SIGKILL)] * 3
    shared, sockets = names()
    assert not {name for name in shared - before[0] if "comm_shm" in name or "torch" in name}
    assert not sockets


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused():
    from comm_shm import rendezvous, segment

    memfd, name = segment.create(2)
    card = rendezvous.own_card(None, memfd, name)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "let in"
        try:
            os.close(memfd)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            segment.fetch(card)
        except CommError as error:
            said = str(error)
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.waitpid(child, 0)
    said = os.read(reader, 4096).decode()
    for descriptor in (memfd, reader, writer):
        os.close(descriptor)
    assert "no access to rank 0's segment" in said
    assert "Permission denied" in said


@pytest.fixture
def store_at():
    """A store that takes no descriptor for each question; where it is."""
    server = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    yield server.port
    del server


def joined(rank, world, port, prepare):
    """What joining says, with each rank prepared before; nobody is found by its end, as all catch it and go on."""
    by_tcp = dist.TCPStore("127.0.0.1", port, None, False)
    dist.init_process_group("shm", store=dist.PrefixStore("first", by_tcp), rank=rank, world_size=world)
    dist.destroy_process_group()  # what it needs is loaded
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    prepare()
    said = ""
    try:
        dist.init_process_group("shm", store=by_tcp, rank=rank, world_size=world)
    except CommError as error:
        said = str(error)
    resource.setrlimit(resource.RLIMIT_NOFILE, most)
    by_tcp.set(f"{rank} is through", "")
    by_tcp.wait([f"{other} is through" for other in range(world)])
    return said


@pytest.mark.parametrize("free", [0, 1, 2, 3])
@pytest.mark.parametrize("poor", [0, 1])
def test_a_rank_without_descriptors_is_an_error_on_every_rank(fleet, store_at, poor, free):
    def body(rank, world, _store, port, poor, free):
        def prepare():
            if rank == poor:
                lowest = os.dup(0)
                os.close(lowest)
                resource.setrlimit(
                    resource.RLIMIT_NOFILE, (lowest + free, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
                )

        return joined(rank, world, port, prepare)

    for rank, (how, said) in enumerate(fleet.run(body, 3, store_at, poor, free)):
        assert how == "returned", said
        given_up = "rank 0 has given the group up" in said  # what a late one finds, and rank 0 says why
        assert f"rank {poor}" in said or rank == poor or given_up
        assert "Too many open files" in said or "had no room" in said or given_up


@pytest.mark.parametrize("protected", [0, 1])
def test_a_rank_0_that_nobody_may_look_into_is_an_error_on_every_rank(fleet, store_at, protected):
    def body(rank, world, _store, port, protected):
        def prepare():
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)  # from then on the process is protected
            if rank != protected:
                ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE

        return joined(rank, world, port, prepare)

    for how, said in fleet.run(body, 3, store_at, protected):
        assert how == "returned", said
        assert ("rank 0, where" in said and "protected from its own user" in said) == (protected == 0)
        assert (said == "") == (protected != 0)  # the segment is rank 0's


@pytest.mark.parametrize("poor", [0, 1, 2])
def test_a_rank_without_room_is_an_error_on_every_rank_with_the_numbers(fleet, poor):
    def body(rank, world, store, poor):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)  # loads what it needs
        dist.all_reduce(torch.ones(1000))
        dist.destroy_process_group()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        if rank == poor:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGESIZE") + 300_000, limits[1]))
        try:
            dist.init_process_group("shm", store=dist.PrefixStore("poor", store), rank=rank, world_size=world)
        except CommError as error:
            said = type(error), str(error)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        dist.distributed_c10d._world.group_count = 0
        dist.init_process_group("shm", store=dist.PrefixStore("rich", store), rank=rank, world_size=world)
        x = torch.ones(3)
        dist.all_reduce(x)
        return *said, x.tolist()

    answers = fleet.run(body, 3, poor)
    assert [how for how, _ in answers] == ["returned"] * 3, answers
    for rank, (_, (kind, said, after)) in enumerate(answers):
        assert ("no room for" in said and "cannot map" in said) == (rank == poor), said
        assert issubclass(kind, TransportError if rank == poor else (TransportError, RankFailedError))
        assert after == [3.0] * 3
    # The first of the others is told why; for the last one, that one may have left already.
    others = str([answer[1] for _, answer in answers])
    assert poor == 0 or f"a group for which rank {poor} had no room" in others


def test_a_limit_on_the_size_of_files_is_an_error_on_every_rank_with_the_numbers(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if rank == 0:  # who makes the segment
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            dist.new_group(backend="shm")
        except CommError as error:
            said = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        made, x = dist.new_group(backend="shm"), torch.ones(3)
        dist.all_reduce(x, group=made)
        dist.all_reduce(x)
        return said, x.tolist()

    answers = fleet.run(body, 3)
    assert [how for how, _ in answers] == ["returned"] * 3, answers
    for _, (said, after) in answers:
        assert re.search(r"no room for \d{7} bytes of shared memory .*File too large", said), said
        assert after == [9.0] * 3
