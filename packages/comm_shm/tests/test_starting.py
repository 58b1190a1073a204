"""Every way in: backend strings, start methods, torchrun, groups made from groups, and starting over."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, TransportError
from comm_core.testing import run_ranks

pytestmark = pytest.mark.needs_shm

PROGRAM = """
import os, sys
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def work(rank, world, path):
    if path is None:
        dist.init_process_group("shm")
    else:
        dist.init_process_group("shm", init_method="file://" + path, rank=rank, world_size=world)
    seen = []
    for turn in range(2):
        x = torch.full((3,), dist.get_rank() + 1.0)
        dist.all_reduce(x)
        half = dist.new_group(list(range(dist.get_world_size())), backend="shm")
        dist.all_reduce(x, group=half)
        seen.append(x[0].item())
    assert seen == [6.0, 6.0], seen
    dist.destroy_process_group()
    if path is not None:
        os.open(path + f".done{rank}", os.O_CREAT)


if __name__ == "__main__":
    if sys.argv[1] == "torchrun":
        work(None, None, None)
    else:
        mp.start_processes(work, (2, sys.argv[2]), nprocs=2, start_method=sys.argv[1])
"""


@pytest.mark.parametrize("way", ["spawn", "fork", "torchrun"])
def test_ranks_may_be_started_in_any_way(way, tmp_path):
    script, store = tmp_path / "program.py", tmp_path / "store"
    script.write_text(PROGRAM)
    command = [sys.executable, "-W", "ignore", str(script), way, str(store)]
    if way == "torchrun":
        options = ["--standalone", "--nproc-per-node", "2", "--local-addr", "127.0.0.1"]
        command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", *options, str(script), way]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert way == "torchrun" or {path.name for path in tmp_path.glob("*.done*")} == {"store.done0", "store.done1"}


@pytest.mark.parametrize("backend", ["shm", "cpu:shm", "cpu:shm,cuda:nccl", "cuda:nccl,cpu:shm"])
def test_every_backend_string_that_names_shm(fleet, backend):
    def body(rank, world, store):
        nccl = dist.is_nccl_available() and torch.cuda.is_available()
        if backend.startswith("cuda") and not nccl:  # torch makes that half first, and says so
            try:
                dist.init_process_group(backend, store=store, rank=rank, world_size=world)
            except (RuntimeError, ValueError) as error:
                return "NCCL" in str(error)
            return False
        dist.init_process_group(backend, store=store, rank=rank, world_size=world)
        x, name = torch.ones(2), dist.group.WORLD.group_name
        dist.all_reduce(x)
        other = dist.new_group(list(range(world)))  # of the same backends
        dist.all_reduce(x, group=other)
        known = dist.get_backend() == ("shm" if ":" not in backend else backend)
        return known and x.tolist() == [world**2] * 2 and name != other.group_name

    assert fleet.run(body, 2) == [("returned", True)] * 2


def test_tensors_of_another_device_go_to_the_backend_that_was_named_for_it(fleet):
    def body(rank, world, store):
        from torch.testing._internal.distributed import fake_pg  # noqa: F401  # registers the backend "fake"

        dist.init_process_group("cpu:shm,meta:fake", store=store, rank=rank, world_size=world)
        there, here, pg = torch.ones(3, device="meta"), torch.ones(3), dist.group.WORLD
        works = [dist.all_reduce(there, async_op=True), pg.allreduce([there]), pg.send([there], 1, 0)]
        dist.broadcast(there, 1)
        dist.all_gather_into_tensor(torch.ones(6, device="meta"), there)
        dist.all_gather([torch.ones(3, device="meta") for _ in range(2)], there)
        dist.all_reduce(here)
        for work in works:
            work.wait()
        names = pg._get_backend(torch.device("cpu")) is pg, type(pg._get_backend(torch.device("meta"))).__name__
        try:
            pg._get_backend(torch.device("xpu"))
        except RuntimeError as error:
            return here.tolist(), names, str(error)

    for how, (here, names, refused) in fleet.run(body, 2):
        assert how == "returned"
        assert here == [2.0] * 3
        assert names == (True, "FakeProcessGroup")
        assert "no backend for xpu" in refused


@pytest.mark.skipif(dist.is_nccl_available(), reason="what a torch without NCCL says")
def test_the_nccl_half_on_a_torch_without_it(fleet):
    def body(rank, world, store):
        dist.init_process_group("cpu:shm,cuda:nccl", store=store, rank=rank, world_size=world)
        try:
            dist.group.WORLD._get_backend(torch.device("cuda"))
        except CommError as error:
            return type(error), str(error)

    kind, said = fleet.run(body, 1)[0][1]
    assert kind is TransportError
    assert said.startswith('backend "cuda:nccl": got no group of it: this torch was built without NCCL')


@pytest.mark.world(1, 2, 3, backend="shm")
def test_groups_made_from_groups(world):
    def body(group):
        me, n, pg, seen = group.rank, group.world, dist.group.WORLD, []
        alone, _ = dist.new_subgroups(1)
        listed, _ = dist.new_subgroups_by_enumeration([list(range(n))])
        last = pg.split_group([n - 1, 0] if n > 1 else [0], group_name="ends")
        store = dist.PrefixStore("meeting", pg.get_group_store())
        merged = pg.merge_remote_group(store, n, group_desc="all again")
        for one in (alone, listed, last, merged):
            x = torch.full((2,), me + 1.0)
            if one is not None:
                one.allreduce([x]).wait()
            seen.append(x[0].item())
        names = last.group_name if last is not None else None, merged.group_desc, merged.size()
        assert me not in (0, n - 1) or last.rank() == (0 if me == n - 1 else 1)
        try:
            pg.split_group([0, 0])
        except CommError as error:
            refused = str(error)
        for one in (last, merged):
            if one is not None:
                one.shutdown()
        return seen, names, "different ranks" in refused

    n = world.size
    total = n * (n + 1) / 2
    for rank, (seen, names, refused) in enumerate(world.run(body)):
        inside = rank in (0, n - 1)
        assert seen == [rank + 1.0, total, (n + 1.0 if n > 1 else 1.0) if inside else rank + 1.0, total]
        assert names == ("ends" if inside else None, "all again", n)
        assert refused


def test_groups_of_shm_in_a_job_of_gloo_and_the_other_way_round():
    def body(group):
        kinds = [dist.new_group(backend=name) for name in ("shm", "gloo", "cpu:shm")]
        seen = []
        for one in kinds:
            x = torch.full((2,), group.rank + 1.0)
            dist.all_reduce(x, group=one)
            seen.append(x[0].item())
        return seen, [dist.get_backend(one) for one in kinds]

    want = [([3.0] * 3, ["shm", "gloo", "cpu:shm"])] * 2
    assert run_ranks(body, 2, "gloo") == run_ranks(body, 2, "shm") == want


def test_monitored_barrier_names_everyone_who_is_missing(fleet):
    def body(rank, world, store):
        from datetime import timedelta

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        dist.monitored_barrier()
        if rank in (1, 3):
            store.wait(["told"])
            return None
        try:
            dist.monitored_barrier(timeout=timedelta(milliseconds=200), wait_all_ranks=True)
        except CommError as error:
            said = type(error).__name__, str(error)
        if rank == 2:
            store.set("told", "")
        return said

    answers = [answer for _, answer in fleet.run(body, 4)]
    assert {answers[0][0], answers[2][0]} == {"RankTimeoutError"}
    assert any(
        "monitored_barrier: got no arrival within 0.2 s of rank 1 (" in answers[rank][1]
        and "; rank 3 (" in answers[rank][1]
        for rank in (0, 2)
    )


def test_unregistering_gives_torch_its_monitored_barrier_and_its_hooks_back():
    program = """
import torch.distributed as dist, comm_shm
from torch.nn.parallel import DistributedDataParallel as DDP
torchs, hooks = dist.monitored_barrier, DDP._register_builtin_comm_hook
dist.init_process_group("shm", store=dist.HashStore(), rank=0, world_size=1)
dist.monitored_barrier()
between = dist.monitored_barrier is torchs or DDP._register_builtin_comm_hook is hooks
gloo = dist.new_group(backend="gloo")
dist.monitored_barrier(gloo)
comm_shm.unregister()
print(between, dist.monitored_barrier is torchs and DDP._register_builtin_comm_hook is hooks)
"""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.stdout.split() == ["False", "True"], ended.stderr
