"""Every method that takes lists of tensors: which element of which list belongs to which rank is as over gloo."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import ArgumentError, ShapeError, TransportError
from comm_core.testing import run_ranks

pytestmark = pytest.mark.needs_shm

# Of these gloo has no future, or one that holds pieces of the outputs in place of the outputs.
NO_FUTURE = ("reduce_scatter", "allgather_into_tensor_coalesced", "all_gather_single_coalesced")


def filled(value, *shape):
    return torch.full(shape, float(value))


def room(*shape):
    return filled(-1, *shape)


def calls(me, n, pg):
    """By name: what is written, and the call that writes it and returns its work."""
    from torch._C import _distributed_c10d as c10d

    at_last = {"gather": c10d.GatherOptions(), "scatter": c10d.ScatterOptions()}
    for options in at_last.values():
        options.rootRank = n - 1
    last, found = me == n - 1, {}

    def note(name, outs, call):
        found[name] = outs, call

    for count in (1, 2, 3, 5):
        lists = [[room(i + 1, 2) for i in range(count)] for _ in range(n)]
        given = [filled(10 * me + i, i + 1, 2) for i in range(count)]
        note(f"allgather_coalesced of {count}", lists, lambda o=lists, x=given: pg.allgather_coalesced(o, x))
    one_size = [[room(3) for _ in range(2)] for _ in range(n)]
    same = [filled(10 * me + i, 3) for i in range(2)]
    note("allgather_coalesced of one size", one_size, lambda: pg.allgather_coalesced(one_size, same))
    strided = [[room(4, 3)[:, 0], room(2, 2).t()] for _ in range(n)]
    pair = [filled(me, 4, 2)[:, 0], torch.arange(4.0).view(2, 2).t() + me]
    note("allgather_coalesced of strides", strided, lambda: pg.allgather_coalesced(strided, pair))
    loose, nested = [room(3) for _ in range(n)], [[room(3) for _ in range(n)]]
    note("allgather", nested, lambda: pg.allgather(nested, [filled(me, 3)]))
    note("allgather, loose", loose, lambda: pg.allgather(loose, filled(me, 3)))
    mine, also = [room(3)], room(3)
    parts = [filled(10 * rank + me, 3) for rank in range(n)]
    note("reduce_scatter", mine, lambda: pg.reduce_scatter(mine, [parts]))
    note("reduce_scatter, loose", also, lambda: pg.reduce_scatter(also, parts))
    gathered = [[room(3) for _ in range(n)]] if last else []
    note("gather", gathered, lambda: pg.gather(gathered, [filled(me, 3)], at_last["gather"]))
    got, pieces = [room(3)], [[filled(rank, 3) for rank in range(n)]] if last else []
    note("scatter", got, lambda: pg.scatter(got, pieces, at_last["scatter"]))
    came, sent = [room(3) for _ in range(n)], [filled(10 * me + rank, 3) for rank in range(n)]
    note("alltoall", came, lambda: pg.alltoall(came, sent))
    reduced = [filled(me, 2), filled(me + 1, 3)]
    note("allreduce_coalesced", reduced, lambda: pg.allreduce_coalesced(reduced))
    for name in ("allgather_into_tensor_coalesced", "all_gather_single_coalesced"):
        wholes = [room(2 * n), room(3 * n)]
        given = [filled(me, 2), filled(me + 5, 3)]
        if hasattr(pg, name):
            note(name, wholes, lambda m=name, o=wholes, x=given: getattr(pg, m)(o, x))
    for name in ("reduce_scatter_tensor_coalesced", "reduce_scatter_single_coalesced"):
        rows = [torch.arange(2.0 * n) + me, torch.arange(3.0 * n) * me]
        outs = [room(2), room(3)]
        if hasattr(pg, name):
            note(name, outs, lambda m=name, o=outs, x=rows: getattr(pg, m)(o, x))
    return found


def plain(value):
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value.tolist()


def of_methods(group, span=None):
    seen = {}
    for name, (outs, call) in calls(dist.get_rank(), dist.get_world_size(), span or dist.group.WORLD).items():
        work = call()
        work.wait()
        future = None if name.startswith(NO_FUTURE) else plain(work.get_future().wait())
        seen[name] = plain(outs), future
    return seen


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_method_that_takes_lists(world):
    assert run_ranks(of_methods, world, "shm") == run_ranks(of_methods, world, "gloo")


def test_every_method_that_takes_lists_over_several_hosts():
    def over_hosts(group):
        import os

        os.environ["COMM_SHM_HOST"] = "aba"[group.rank]
        try:
            span = dist.new_group(backend="shm")
        finally:
            del os.environ["COMM_SHM_HOST"]
        try:
            return type(span).__name__, of_methods(group, span)
        finally:
            dist.destroy_process_group(span)

    want = [("SpanningGroup", seen) for seen in run_ranks(of_methods, 3, "gloo")]
    assert run_ranks(over_hosts, 3, "gloo") == want


@pytest.mark.filterwarnings("ignore:.*will be deprecated:FutureWarning")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_all_gather_coalesced_of_torch(world):
    def body(group):
        me, n, seen = group.rank, group.world, []
        for dtype in (torch.float32, torch.complex64, torch.int64):
            for later in (False, True):
                lists = [[torch.zeros(2, dtype=dtype), torch.zeros(3, 1, dtype=dtype)] for _ in range(n)]
                given = [torch.full((2,), 10 * me, dtype=dtype), torch.full((3, 1), 10 * me + 1, dtype=dtype)]
                future = dist.all_gather_coalesced(lists, given, async_op=later)
                seen.append((plain(future.wait()) if later else None, plain(lists)))
        return seen

    assert run_ranks(body, world, "shm") == run_ranks(body, world, "gloo")


WRONG = {
    "a list too many": (
        lambda n, pg: pg.allgather_coalesced([[room(1)]] * (n + 1), [room(1)]),
        ArgumentError,
    ),
    "a list too few": (lambda n, pg: pg.allgather_coalesced([[room(1)]] * (n - 1), [room(1)]), ArgumentError),
    "an output too many": (lambda n, pg: pg.allgather_coalesced([[room(1)] * 2] * n, [room(1)]), ArgumentError),
    "lists of several lengths": (
        lambda n, pg: pg.allgather_coalesced([[room(1)] * (rank + 1) for rank in range(n)], [room(1)]),
        ArgumentError,
    ),
    "an output of another size": (lambda n, pg: pg.allgather_coalesced([[room(2)]] * n, [room(1)]), ShapeError),
    "no tensors to gather": (lambda n, pg: pg.allgather_coalesced([[]] * n, []), ArgumentError),
    "no tensors to reduce": (lambda n, pg: pg.allreduce_coalesced([]), ArgumentError),
    "no tensors to gather into": (lambda n, pg: pg.allgather_into_tensor_coalesced([], []), ArgumentError),
    "no tensors to scatter": (lambda n, pg: pg.reduce_scatter_tensor_coalesced([], []), ArgumentError),
    "two lists of outputs": (lambda n, pg: pg.allgather([[room(1)] * n] * 2, [room(1)]), TransportError),
    "two lists of inputs": (lambda n, pg: pg.reduce_scatter([room(1)], [[room(1)] * n] * 2), TransportError),
    "no list": (lambda n, pg: pg.allgather([], [room(1)]), ShapeError),
    "an empty list": (lambda n, pg: pg.allgather([[]], [room(1)]), ShapeError),
    "a list too short": (lambda n, pg: pg.reduce_scatter([room(1)], [[room(1)] * (n - 1)]), ShapeError),
}


@pytest.mark.parametrize("world", [2, 3])
def test_what_gloo_refuses_is_refused_and_the_group_goes_on(world):
    def body(group):
        kinds = {}
        for name, (call, _) in WRONG.items():
            try:
                call(group.world, dist.group.WORLD).wait()
            except Exception as error:
                kinds[name] = type(error)
        dist.barrier()
        return kinds

    for kinds in run_ranks(body, world, "shm"):
        assert kinds == {name: kind for name, (_, kind) in WRONG.items()}
    for kinds in run_ranks(body, world, "gloo"):
        assert kinds.keys() == WRONG.keys()


@pytest.mark.parametrize("world", [2])
def test_a_root_refuses_several_lists_and_the_others_are_told(world):
    def body(group):
        from torch._C import _distributed_c10d as c10d

        me, pg, told = group.rank, dist.group.WORLD, []
        lists = [[room(1), room(1)]] * 2 if me == 0 else []
        options = [c10d.GatherOptions(), c10d.ScatterOptions()]
        for one in options:
            one.asyncOp = False
        for call in (
            lambda: pg.gather(lists, [room(1)], options[0]),
            lambda: pg.scatter([room(1)], lists, options[1]),
        ):
            try:
                call()
            except Exception as error:
                told.append("not such a call" in str(error))
        dist.barrier()
        return told

    assert run_ranks(body, world, "shm") == [[True, True]] * world
