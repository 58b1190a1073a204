"""`torch.distributed.distributed_c10d._set_pg_timeout` on groups over shared memory."""

import pytest
import torch
import torch.distributed as dist

from comm_core.testing import run_ranks

pytestmark = pytest.mark.needs_shm


def test_it_sets_the_time_of_a_group(fleet):
    def body(rank, world, store):
        import warnings
        from datetime import timedelta

        from torch.distributed.distributed_c10d import _set_pg_timeout as taken_before

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        group = dist.new_group(backend="shm")
        dist.barrier(group)
        if rank == 1:
            store.wait(["over"])
            return None
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            dist.distributed_c10d._set_pg_timeout(timedelta(milliseconds=200), group)
        said = ""
        try:
            dist.all_reduce(torch.ones(1), group=group)
        except Exception as error:
            said = str(error)
        whole = dist.group.WORLD._timeout_s
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=7))
        store.set("over", "")
        different = taken_before is not dist.distributed_c10d._set_pg_timeout
        return [str(one.message) for one in told], said, whole, dist.group.WORLD._timeout_s, different

    (how, (told, said, before, after, replaced)), _ = fleet.run(body, 2)
    assert how == "returned"
    assert told == []
    assert "no arrival within 0.2 s of rank 1" in said
    assert before == 1800.0
    assert after == 7.0
    assert replaced


def test_groups_of_other_backends_are_torchs_own_affair():
    def body(group):
        from datetime import timedelta

        shm, gloo = dist.new_group(backend="shm"), dist.new_group(backend="gloo")
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=9), gloo)
        return gloo._get_backend(torch.device("cpu")).options._timeout.total_seconds(), shm._timeout_s

    for theirs, ours in run_ranks(body, 2, "shm"):
        assert theirs == 9.0
        assert ours != 9.0


def test_a_delegate_of_another_device_gets_it_too():
    def body(group):
        from datetime import timedelta

        both = dist.new_group(backend="cpu:shm,meta:gloo")
        early = both._get_backend(torch.device("meta"))
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=9), both)
        return early.options._timeout.total_seconds()

    assert run_ranks(body, 2, "shm") == [9.0] * 2


def test_unregister_puts_torchs_function_back():
    import subprocess
    import sys

    program = (
        "import torch.distributed as dist, tempfile, comm_shm\n"
        "from torch.distributed import distributed_c10d as c10d\n"
        "torchs = c10d._set_pg_timeout\n"
        "dist.init_process_group('shm', store=dist.HashStore(), rank=0, world_size=1)\n"
        "assert c10d._set_pg_timeout is not torchs\n"
        "dist.destroy_process_group()\n"
        "comm_shm.unregister()\n"
        "assert c10d._set_pg_timeout is torchs\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=100).returncode == 0
