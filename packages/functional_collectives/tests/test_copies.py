"""How much memory a call takes: its result, and at most one more copy of what it is given."""

from comm_core.testing import run_ranks


def _allocated(call):
    """The bytes that torch's allocator gives out on this thread while `call` runs, freed ones counted too."""
    import torch

    call()  # what is only made once is made here
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        result = call()
    given = sum(one.nbytes for one in result) if isinstance(result, list) else result.nbytes
    events = seen.profiler.kineto_results.events()
    return sum(one.nbytes() for one in events if one.name() == "[memory]" and one.nbytes() > 0), given


def _copies(group):
    """Copies of the payload, beside the result, that each call makes on a group that moves nothing."""
    import torch

    import functional_collectives as fc

    x, wait, root, peer = torch.ones(256, 256), fc.wait_tensor, group.rank == 0, 1 - group.rank
    calls = {
        "all_reduce": lambda: wait(fc.all_reduce(x, "sum", group)),
        "all_reduce of a view": lambda: wait(fc.all_reduce(x.t(), "sum", group)),
        "all_gather": lambda: wait(fc.all_gather_tensor(x, 0, group)),
        "reduce_scatter": lambda: wait(fc.reduce_scatter_tensor(x, "sum", 0, group)),
        "reduce_scatter, dim 1": lambda: wait(fc.reduce_scatter_tensor(x, "sum", 1, group)),
        "all_to_all": lambda: wait(fc.all_to_all_single(x, None, None, group)),
        "broadcast": lambda: wait(fc.broadcast(x, 0, group)),
        "permute": lambda: wait(fc.permute_tensor(x, [1, 0], group)),
        "all_reduce_coalesced": lambda: [wait(y) for y in fc.all_reduce_coalesced([x, x], "sum", group)],
        "all_gather_coalesced": lambda: [wait(y) for y in fc.all_gather_into_tensor_coalesced([x, x], group)],
        "reduce_scatter_coalesced": lambda: [
            wait(y) for y in fc.reduce_scatter_tensor_coalesced([x, x], "sum", [0, 1], group)
        ],
        "all_gather, dim 1": lambda: wait(fc.all_gather_tensor(x, 1, group)),
        "gather": lambda: wait(fc.gather(x, 0, 0, group)),
        "gather, dim 1": lambda: wait(fc.gather(x, 0, 1, group)),
        "scatter": lambda: wait(fc.scatter(x if root else x[:0], 0, 0, group)),
        "scatter, dim 1": lambda: wait(fc.scatter(x if root else x[:, :0], 0, 1, group)),
        "reduce": lambda: wait(fc.reduce(x, "sum", 0, group)),
        "scan": lambda: wait(fc.scan(x, "sum", group)),
        "scan, avg in reverse": lambda: wait(fc.scan(x, "avg", group, reverse=True)),
        "exscan": lambda: wait(fc.exscan(x, "max", group)),
        "batch_p2p": lambda: [wait(y) for y in fc.batch_p2p([fc.Send(x, peer), fc.Receive(x, peer)], group)],
        "all_gather_v": lambda: wait(fc.all_gather_v(x, 0, group, sizes=[256, 256])),
        "all_gather_v, dim 1": lambda: wait(fc.all_gather_v(x, 1, group, sizes=[256, 256])),
        "reduce_scatter_v": lambda: wait(fc.reduce_scatter_v(x, "avg", 0, group, sizes=[96, 160])),
        "reduce_scatter_v, dim 1": lambda: wait(fc.reduce_scatter_v(x, "avg", 1, group, sizes=[160, 96])),
    }
    copies = {}
    for name, call in calls.items():
        allocated, given = _allocated(call)
        payload = max(given, x.nbytes * (2 if "coalesced" in name else 1))
        copies[name] = (allocated - given) / payload
    return copies


def test_a_call_makes_at_most_one_copy_beside_its_result():
    (copies, _) = run_ranks(_copies, 2, "fake", timeout=100.0)
    free = ["all_reduce", "all_reduce of a view", "all_gather", "reduce_scatter", "all_to_all", "broadcast"]
    assert [name for name in free if copies[name] > 0.25] == []  # the profiler's own tensors are small
    assert {name: round(many, 2) for name, many in copies.items() if many > 1.25} == {}
