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


def test_of_others_it_imports_torch_and_four_small_modules_of_the_core():
    words = [sys.executable, "-c", IMPORT]
    settings = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "PYTHONPATH": ":".join(sys.path)}
    said = subprocess.run(words, env=settings, capture_output=True, check=True, text=True, timeout=120).stdout
    assert set(said.split()) == {
        "comm_core",
        *(f"comm_core.{name}" for name in ("compat", "errors", "reduce_ops", "tracing")),
    }


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
