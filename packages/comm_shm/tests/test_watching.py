"""A profiler and a dispatch mode see the calls of a group over shared memory, as they see those over gloo."""

import pytest
import torch
import torch.distributed as dist

from comm_core.testing import run_ranks

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, backend="shm")]


def everything(n):
    """One call of each function, by the name under which the profiler shows it."""
    one, many = torch.ones(2), [torch.ones(2) for _ in range(n)]
    return {
        "all_reduce": lambda: dist.all_reduce(one),
        "broadcast": lambda: dist.broadcast(one, 0),
        "reduce": lambda: dist.reduce(one, 0),
        "all_gather": lambda: dist.all_gather(many, one),
        "all_gather_single": lambda: dist.all_gather_into_tensor(torch.ones(2 * n), one),
        "reduce_scatter": lambda: dist.reduce_scatter(one, many),
        "reduce_scatter_single": lambda: dist.reduce_scatter_tensor(one, torch.ones(2 * n)),
        "all_to_all": lambda: dist.all_to_all([torch.ones(2) for _ in range(n)], many),
        "all_to_all_single": lambda: dist.all_to_all_single(torch.ones(n), torch.ones(n)),
        "gather": lambda: dist.gather(one, many if dist.get_rank() == 0 else None, 0),
        "scatter": lambda: dist.scatter(one, many if dist.get_rank() == 0 else None, 0),
        "barrier": dist.barrier,
    }


@pytest.mark.filterwarnings("ignore")
def test_a_profiler_has_a_row_for_each_call(world):
    def body(group):
        from torch.profiler import ProfilerActivity, profile

        calls = everything(group.world)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for call in calls.values():
                call()
            dist.all_reduce(torch.ones(2), async_op=True).wait()
            if group.world > 1:
                dist.send(torch.ones(2), 1) if group.rank == 0 else dist.recv(torch.ones(2), 0)
        before = len(seen.key_averages())
        dist.all_reduce(torch.ones(2))
        counts = {event.key: event.count for event in seen.key_averages() if event.key.startswith("shm:")}
        return counts, list(calls), len(seen.key_averages()) == before

    for rank, (counts, names, still) in enumerate(world.run(body)):
        message = {"shm:send" if rank == 0 else "shm:recv": 1} if world.size > 1 else {}
        assert counts == {f"shm:{name}": 1 for name in names} | {"shm:all_reduce": 2} | message
        assert still


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.filterwarnings("ignore")
def test_comm_debug_mode_counts_as_over_gloo(world):
    def body(group):
        from torch.distributed.tensor.debug import CommDebugMode

        counted = {}
        for name, call in everything(group.world).items():
            with CommDebugMode() as mode:
                call()
            counted[name] = {str(op): count for op, count in mode.get_comm_counts().items()}, mode.get_total_counts()
        x = torch.full((2,), group.rank + 1.0)
        with CommDebugMode() as mode, CommDebugMode() as inner:
            dist.all_reduce(x, async_op=True).wait()
            torch.distributed._functional_collectives.all_reduce(x, "sum", dist.group.WORLD) + 0
        return counted, [mode.get_total_counts(), inner.get_total_counts()], x.tolist()

    gloo, shm = (run_ranks(body, world, backend) for backend in ("gloo", "shm"))
    assert shm == gloo
    assert all(count == (name != "barrier") for counts in shm for name, (_, count) in counts[0].items())


def test_a_mode_of_ones_own_sees_the_op_and_its_tensors(world):
    def body(group):
        from torch.utils._python_dispatch import TorchDispatchMode

        class Log(TorchDispatchMode):
            def __init__(self):
                super().__init__()
                self.seen = []

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                self.seen.append((str(func), func.namespace, len(args)))
                return func(*args, **(kwargs or {}))

        x = torch.ones(2)
        with Log() as log:
            dist.all_reduce(x)
        return log.seen, x.tolist()

    assert world.run(body) == [([("c10d.allreduce_.default", "c10d", 1)], [float(world.size)] * 2)] * world.size
