"""Messages that there is no memory for: an error with the numbers on the rank that lacks it, and nothing is lost."""

import shutil
import subprocess

import pytest
import torch
import torch.distributed as dist

from packages.comm_shm.tests import core

pytestmark = pytest.mark.needs_shm

BIG = 64 << 20


def test_a_receiver_without_room_to_put_a_message_aside_says_so_and_gets_both_later(fleet):
    def body(rank, world, store, big):
        import os
        import resource
        from pathlib import Path

        from comm_core.errors import TransportError

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        dist.all_reduce(torch.ones(3))
        first = torch.arange(big, dtype=torch.uint8) if rank == 0 else torch.zeros(big, dtype=torch.uint8)
        second = torch.arange(5.0) if rank == 0 else torch.zeros(5)
        if rank == 0:
            works = [dist.isend(first, 1, tag=1), dist.isend(second, 1, tag=2)]
            for work in works:
                work.wait()
            return None
        limits = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGESIZE") + big // 2, limits[1]))
        try:
            dist.recv(second, 0, tag=2)
        except TransportError as error:
            said = str(error)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        empty = second.tolist()
        dist.recv(second, 0, tag=2)
        dist.recv(first, 0, tag=1)
        return said, empty, second.tolist(), torch.equal(first, torch.arange(big, dtype=torch.uint8))

    (_, nothing), (how, answer) = fleet.run(body, 2, BIG)
    assert (nothing, how) == (None, "returned"), answer
    said, empty, second, whole = answer
    assert f"no memory for a message of 5 float32 with tag 2; rank 0 sent {BIG} uint8 with tag 1" in said
    assert "raise the memory limit" in said
    assert empty == [0.0] * 5
    assert second == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert whole


def test_a_sender_without_room_for_its_ring_says_so_and_the_next_message_arrives(fleet):
    """The file of the segment loses the pages of the rings, as far as a sender can tell."""

    def body(rank, world, store):
        import os
        from types import SimpleNamespace

        from comm_core.errors import TransportError
        from comm_shm import _native, segment

        kept, create = [], segment.create
        segment.fcntl = SimpleNamespace(
            fcntl=lambda *_: 0, F_ADD_SEALS=0, F_SEAL_SHRINK=0, F_SEAL_GROW=0, F_SEAL_SEAL=0
        )

        def keep(world):
            memfd, name = create(world)
            kept.append(os.dup(memfd))
            return memfd, name

        segment.create = keep
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        said = []
        if rank == 0:
            size = _native.segment_bytes(world, segment.slot_bytes(world))
            os.ftruncate(kept[0], size - world * world * 256 * 1024)
            for numel in (3, 300_000):
                try:
                    dist.send(torch.ones(numel), 1, tag=numel)
                except TransportError as error:
                    said.append(str(error))
            os.ftruncate(kept[0], size)
        dist.barrier()
        x = torch.arange(4.0) if rank == 0 else torch.zeros(4)
        (dist.send if rank == 0 else dist.recv)(x, 1 - rank, tag=3)
        dist.all_reduce(x)
        return said, x.tolist()

    (how, (said, sent)), (other, (_, got)) = fleet.run(body, 2)
    assert how == other == "returned"
    assert [one.split(";")[0].split("got ")[1] for one in said] == [
        "no memory for a message of 3 float32 with tag 3",
        "no memory for a message of 300000 float32 with tag 300000",
    ]
    assert sent == got == [0.0, 2.0, 4.0, 6.0]


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
@pytest.mark.parametrize("advice", ["23", "9999"], ids=["a kernel that knows the advice", "one that does not"])
def test_pages_that_are_not_there_are_an_error_and_no_fault(tmp_path, advice):
    program = tmp_path / "pages"
    sources = [core.CSRC / name for name in core.PLAIN] + [core.TESTS / "csrc" / "pages.c"]
    words = ["cc", "-std=c11", "-pthread", f"-DPOPULATE_WRITE={advice}", f"-I{core.CSRC}", *sources, "-o", program]
    subprocess.run(list(map(str, words)), check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0 1\n")
