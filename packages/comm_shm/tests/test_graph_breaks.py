"""Compiled programs that break their graph at a call of c10d: Dynamo leaves the backend's own frames alone."""

import types

import pytest
import torch
import torch.distributed as dist

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, backend="shm")]


def step(x, name):
    """Calls that torch cannot trace, started and waited for amid what it can."""
    y = x * 2
    calls = {
        "all_reduce": lambda: dist.all_reduce(y, async_op=True),
        "broadcast": lambda: dist.broadcast(y, 0, async_op=True),
        "all_gather": lambda: dist.all_gather([torch.empty_like(y) for _ in range(dist.get_world_size())], y),
        "coalesced": lambda: dist.all_reduce_coalesced([y, x * 1], async_op=True),
        "gather": lambda: dist.gather(
            y, [torch.empty_like(y)] * dist.get_world_size() if dist.get_rank() == 0 else None
        ),
        "barrier": lambda: dist.barrier(),
        "message": lambda: dist.isend(y, dist.get_rank()) and dist.irecv(y, dist.get_rank()),
    }
    work = calls[name]()
    if work is not None:
        work.wait()
    return y + 1


def codes_of(*classes):
    for cls in classes:
        for base in cls.__mro__:
            for member in vars(base).values():
                fn = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if base.__module__.startswith("comm_shm") and isinstance(fn, types.FunctionType):
                    yield fn.__code__


@pytest.mark.parametrize("name", ["all_reduce", "broadcast", "all_gather", "coalesced", "gather", "barrier", "message"])
def test_a_broken_graph_gives_what_eager_code_gives_and_holds_no_frame_of_ours(world, name):
    def body(group):
        from torch._dynamo.eval_frame import _debug_get_cache_entry_list

        from comm_shm.group import SharedMemoryGroup
        from comm_shm.work import FinishedWork, ManyWorks, StartedWork

        torch.compiler.reset()
        x = torch.arange(3.0) + group.rank
        eager = step(x, name)
        compiled = torch.compile(step, backend="eager")
        got = [compiled(x, name).tolist() for _ in range(2)]
        ours = set(codes_of(SharedMemoryGroup, FinishedWork, ManyWorks, StartedWork))
        assert len(ours) > 50
        return got == [eager.tolist()] * 2, [code.co_name for code in ours if _debug_get_cache_entry_list(code)]

    assert world.run(body) == [(True, [])] * world.size
