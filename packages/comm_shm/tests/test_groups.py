"""Several groups at once, sub-groups, meshes, and groups that come and go."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from comm_core.testing import run_ranks

pytestmark = pytest.mark.needs_shm


@pytest.mark.world(1, 2, 3, 4, backend="shm")
def test_two_groups_interleave(world):
    def body(group):
        other = dist.new_group(backend="shm")
        seen = []
        for step in range(50):
            a, b = torch.full((step + 1,), 1.0), torch.full((40_000,), float(group.rank))
            dist.all_reduce(a)
            dist.all_reduce(b, op=dist.ReduceOp.MAX, group=other)
            seen.append((a == group.world).all().item() and (b == group.world - 1).all().item())
        return all(seen) and other.group_name != dist.group.WORLD.group_name

    assert world.run(body) == [True] * world.size


@pytest.mark.world(3, 4, backend="shm")
def test_sub_groups_reduce_among_themselves(world):
    def body(group):
        pairs = [dist.new_group([first, last], backend="shm") for first, last in ((0, 1), (1, 2))]
        seen = []
        for pair in pairs:
            x = torch.full((3,), group.rank + 1.0)
            if dist.get_rank(pair) >= 0:
                dist.all_reduce(x, group=pair)
            seen.append(x[0].item())
        return seen

    want = [[3.0, 1.0], [3.0, 5.0], [3.0, 5.0], [4.0, 4.0]]
    want[2][0] = 3.0
    assert world.run(body) == want[: world.size]


def test_shm_beside_gloo():
    def body(group):
        fast = dist.new_group(backend="shm")
        x, y = torch.ones(3), torch.ones(3)
        dist.all_reduce(x)
        dist.all_reduce(y, group=fast)
        return torch.equal(x, y), dist.get_backend(fast), dist.get_backend()

    assert run_ranks(body, 2, "gloo") == [(True, "shm", "gloo")] * 2


@pytest.mark.world(1, 2, 3, backend="shm")
def test_device_mesh_and_torchs_own_functions(world):
    def body(group):
        import torch.distributed._functional_collectives as funcol
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh("cpu", (group.world,), mesh_dim_names=("dp",))
        y = funcol.all_reduce(torch.full((2,), group.rank + 1.0), "max", mesh["dp"])
        return mesh.get_local_rank(), (y + 0).tolist()

    assert world.run(body) == [(rank, [float(world.size)] * 2) for rank in range(world.size)]


def test_a_mesh_of_two_axes_makes_groups_of_shm():
    def body(group):
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
        seen = []
        for axis in ("outer", "inner"):
            x = torch.tensor([2.0**group.rank])
            dist.all_reduce(x, group=mesh.get_group(axis))
            seen.append(x.item())
        return seen, dist.get_backend(mesh.get_group("inner"))

    want = [[5.0, 3.0], [10.0, 3.0], [5.0, 12.0], [10.0, 12.0]]
    assert run_ranks(body, 4, "shm") == [(sums, "shm") for sums in want]


def test_initialising_again_on_the_same_store_starts_afresh(fleet):
    def body(rank, world, store):
        import os

        seen = []
        for _ in range(3):
            dist.init_process_group("shm", store=store, rank=rank, world_size=world)
            x = torch.ones(2)
            dist.all_reduce(x)
            dist.destroy_process_group()
            seen.append(x[0].item())
        mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "comm_shm-" in line]
        kept = [fd for fd in os.listdir("/proc/self/fd") if "comm_shm" in os.path.realpath(f"/proc/self/fd/{fd}")]
        return seen, mapped, kept

    assert fleet.run(body, 3) == [("returned", ([3.0] * 3, [], []))] * 3


def test_many_groups_leave_no_descriptor_and_no_memory():
    def body(group):
        import gc
        import os

        def shared():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("RssShmem"))

        def once():
            made = dist.new_group(backend="shm")
            x = torch.ones(70_000)
            dist.all_reduce(x, group=made)
            dist.destroy_process_group(made)

        def descriptors():
            of = {fd: Path("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")}
            return {(fd, os.readlink(path)) for fd, path in of.items() if path.is_symlink()}

        once()
        gc.collect()
        before, memory = descriptors(), shared()
        for _ in range(200):
            once()
        gc.collect()
        mapped = Path("/proc/self/maps").read_text().count("comm_shm-")
        return sorted(descriptors() - before), shared() - memory, mapped

    assert run_ranks(body, 2, "shm") == [([], 0, 1)] * 2  # the default group is the one that stays


def test_a_group_that_is_only_forgotten_gives_its_memory_back():
    def body(group):
        import gc
        import os

        def mapped():
            return Path("/proc/self/maps").read_text().count("comm_shm-")

        from comm_shm import _native

        before = mapped(), len(os.listdir("/proc/self/fd"))
        memfd = os.memfd_create("comm_shm-test")
        os.truncate(memfd, _native.segment_bytes(1, 4096))
        handle = _native.open_group(memfd, 0, 1, 4096, [-1])
        os.close(memfd)
        during = mapped()
        del handle
        gc.collect()
        return during - before[0], (mapped(), len(os.listdir("/proc/self/fd"))) == before

    assert run_ranks(body, 1, "shm") == [(1, True)]
