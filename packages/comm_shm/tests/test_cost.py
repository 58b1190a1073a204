"""What comm_shm costs beside its collectives: an import, a group, a wait. In processor time, not by the clock."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

pytestmark = pytest.mark.needs_shm

IMPORT = """
import time
import torch, torch.distributed
before = time.process_time()
import comm_shm, comm_shm.group, comm_shm._native
comm_shm.registration.register()
print(time.process_time() - before)
"""


def test_importing_takes_less_than_50_ms_after_torch():
    words = [sys.executable, "-c", IMPORT]
    settings = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "PYTHONPATH": ":".join(sys.path)}
    times = [float(subprocess.run(words, env=settings, capture_output=True, check=True).stdout) for _ in range(2)]
    assert min(times) < 0.05


@pytest.mark.world(1, 2, 3, backend="shm")
def test_creating_a_group_takes_less_than_50_ms(world):
    def body(group):
        import time

        times = []
        for _ in range(5):
            before = time.process_time()
            members = dist.new_group(backend="shm")
            times.append(time.process_time() - before)
            dist.destroy_process_group(members)
        return min(times)

    assert max(world.run(body)) < 0.05


def test_a_rank_that_waits_or_does_nothing_uses_no_processor_time(fleet):
    def body(rank, world, store):
        import time
        from datetime import timedelta

        from comm_core.errors import RankTimeoutError

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        x = torch.ones(1000)
        dist.all_reduce(x, async_op=True).wait()  # whatever runs beside the caller runs now
        dist.barrier()
        before, nothing, waiting = time.process_time(), 0.0, 0.0
        if rank == 0:
            with pytest.raises(RuntimeError):
                store.wait(["never"], timedelta(seconds=0.5))
            nothing = time.process_time() - before
            before = time.process_time()
            with pytest.raises(RankTimeoutError):
                dist.group.WORLD.barrier(timeout=timedelta(seconds=0.5)).wait()
            waiting = time.process_time() - before
            store.set("over", "")
        store.wait(["over"])
        return nothing, waiting

    answers = fleet.run(body, 2)
    assert [how for how, _ in answers] == ["returned"] * 2, answers
    nothing, waiting = answers[0][1]
    assert nothing < 0.05
    assert waiting < 0.05
