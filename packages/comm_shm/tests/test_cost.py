"""What comm_shm costs beside its collectives. `tools/bench/shm_cost.py` measures it; here is what makes it little."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

pytestmark = pytest.mark.needs_shm

IMPORT = """
import sys
import torch, torch.distributed
before = set(sys.modules)
import comm_shm, comm_shm.group, comm_shm._native
comm_shm.registration.register()
print(*(name for name in set(sys.modules) - before if name.split(".")[0] != "comm_shm"))
"""


def test_of_others_it_imports_torch_and_three_small_modules_of_the_core():
    words = [sys.executable, "-c", IMPORT]
    settings = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "PYTHONPATH": ":".join(sys.path)}
    said = subprocess.run(words, env=settings, capture_output=True, check=True, text=True, timeout=120).stdout
    assert set(said.split()) == {
        "comm_core",
        *(f"comm_core.{name}" for name in ("compat", "errors", "reduce_ops")),
    }


def test_a_rank_that_waits_or_does_nothing_uses_no_processor_time(fleet):
    """Rank 0 does nothing until rank 1 has waited half a second for it: counted is how often their threads woke up."""

    def body(rank, world, store):
        import os
        import time
        from datetime import timedelta
        from pathlib import Path

        from comm_core.errors import RankTimeoutError

        def wakings():
            files = Path("/proc/self/task").glob("*/status")
            return sum(int(file.read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0]) for file in files)

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        pipe = store.path + ".pipe"
        if rank == 0:
            os.mkfifo(pipe)
        dist.all_reduce(torch.ones(1000), async_op=True).wait()  # whatever runs beside the caller runs now
        dist.barrier()
        woken, used = wakings(), time.process_time()
        if rank == 0:
            with open(pipe, "rb"):  # until the other rank opens it too
                pass
        else:
            with pytest.raises(RankTimeoutError):
                dist.group.WORLD.barrier(timeout=timedelta(seconds=0.5)).wait()
        used, woken = time.process_time() - used, wakings() - woken
        if rank == 1:
            with open(pipe, "wb"):
                pass
        return woken, used

    answers = fleet.run(body, 2)
    assert [how for how, _ in answers] == ["returned"] * 2, answers
    (idle, used), (waiting, spent) = (answer for _, answer in answers)
    assert idle <= 12  # the open, and what ends of the work before
    assert waiting <= 30  # a slice of 50 ms each
    assert used < 0.005
    assert spent < 0.01
