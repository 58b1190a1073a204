"""Groups on several hosts: every collective and message against gloo, for hosts of any size and ranks in any order."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import MismatchError
from comm_core.testing import run_ranks
from comm_shm.codes import DEFINED, PREMUL_SUM, REDUCE_OPS
from packages.comm_shm.tests.spans import on_hosts

pytestmark = pytest.mark.needs_shm

LAYOUTS = ["ab", "aab", "aba", "abc", "abba", "aaabb", "abcab"]
SIZES = [0, 1, 7, 20_000, 70_001]


def drawn(rank, numel, dtype=torch.float32):
    x = torch.randint(-9, 9, (numel,), generator=torch.Generator().manual_seed(1000 * rank + numel))
    return (x % 2 == 0) if dtype is torch.bool else x.abs().to(torch.float32).to(dtype)


def both(span, call):
    """What a call gives over several hosts, and over gloo; `call(group)` gives a tensor."""
    return torch.equal(call(span), call(None))


def collectives(rank, world, numel):
    """Calls of every collective that gloo has, by name; of integers in floats, so that any order gives the same."""
    part, whole = drawn(rank, numel), drawn(rank, numel * world)
    last = world - 1

    def of_list(group):
        outs = [torch.empty_like(part) for _ in range(world)]
        dist.all_gather(outs, part, group=group)
        return torch.cat(outs)

    def into(method, out, x, **options):
        def call(group):
            written = torch.full_like(out, -1)
            method(written, x, group=group, **options)
            return written

        return call

    def in_place(method, *args, **options):
        def call(group):
            x = part.clone()
            method(x, *args, group=group, **options)
            return x

        return call

    def rooted(group):
        outs = [torch.empty_like(part) for _ in range(world)] if rank == last else None
        dist.gather(part, outs, last, group=group)
        back = torch.empty_like(part)
        dist.scatter(back, outs, last, group=group)
        total = part.clone()
        dist.reduce(total, last, op=dist.ReduceOp.MAX, group=group)
        return torch.cat([back, total if rank == last else back, *(outs or [])])

    def uneven(group):
        give = [(rank + peer) % 3 for peer in range(world)]
        out = torch.empty(sum(give), 2)
        rows = torch.arange(2.0 * sum(give)).view(-1, 2) + 100 * rank
        dist.all_to_all_single(out, rows, give, give, group=group)
        return out

    def almost_even(group):
        give = [2] * last + [3 if rank == last else 2]
        out = torch.empty(sum(give), numel)
        dist.all_to_all_single(out, torch.full_like(out, rank), give, give, group=group)
        return out

    return {
        "all_reduce": in_place(dist.all_reduce),
        "all_reduce product": in_place(dist.all_reduce, op=dist.ReduceOp.MIN),
        "broadcast": in_place(dist.broadcast, last),
        "all_gather list": of_list,
        "all_gather": into(dist.all_gather_into_tensor, whole, part),
        "reduce_scatter": into(dist.reduce_scatter_tensor, part, whole, op=dist.ReduceOp.SUM),
        "all_to_all": into(dist.all_to_all_single, whole, whole.clone()),
        "gather, scatter, reduce": rooted,
        "uneven all_to_all": uneven,
        "all_to_all that is even for all but one": almost_even,
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_collective_is_that_of_gloo(layout):
    def body(span):
        rank, world = dist.get_rank(), dist.get_world_size()
        wrong = []
        for numel in SIZES if world < 4 else SIZES[::2]:
            for name, call in collectives(rank, world, numel).items():
                if not both(span, call):
                    wrong.append((name, numel))
        objects = [None] * world
        dist.all_gather_object(objects, {"rank": rank}, group=span)
        dist.barrier(span)
        span.monitored_barrier()
        return wrong, objects == [{"rank": peer} for peer in range(world)], type(span).__name__

    assert on_hosts(layout, body) == [([], True, "SpanningGroup")] * len(layout)


@pytest.mark.parametrize("layout", ["ab", "aba", "aabbc"])
def test_every_reduction_of_every_dtype(layout):
    def body(span):
        rank, world = dist.get_rank(), dist.get_world_size()
        wrong = []
        for dtype, code in sorted(DEFINED, key=str):
            word = REDUCE_OPS[code]
            op = dist._make_nccl_premul_sum(0.5) if code == PREMUL_SUM else getattr(dist.ReduceOp, word.upper())
            inputs = [drawn(peer, 6 * world, dtype) for peer in range(world)]
            x, part = inputs[rank].clone(), torch.empty(6, dtype=dtype)
            dist.reduce_scatter_tensor(part, x, op=op, group=span)
            dist.all_reduce(x, op=op, group=span)
            want = reduction(word, inputs)
            if not torch.equal(x, want) or not torch.equal(part, want.view(world, 6)[rank]):
                wrong.append((str(dtype), word))
        return wrong

    assert on_hosts(layout, body) == [[]] * len(layout)


def reduction(word, inputs):
    from comm_core.reduce_ops import reduce_in_rank_order

    scaled = [x * 0.5 for x in inputs] if word == "premul_sum" else inputs
    kind = inputs[0].dtype
    if kind.is_complex:  # both parts are divided, which complex division does not promise
        return torch.view_as_complex(reduction(word, [torch.view_as_real(x) for x in inputs]))
    wider = torch.float32 if kind in (torch.float16, torch.bfloat16) else kind
    return reduce_in_rank_order("sum" if word == "premul_sum" else word, [x.to(wider) for x in scaled]).to(kind)


@pytest.mark.parametrize("layout", ["ab", "aab", "abc"])
def test_the_bits_are_the_same_on_every_rank(layout):
    def body(span):
        total = torch.randn(70_003, generator=torch.Generator().manual_seed(dist.get_rank()))
        dist.all_reduce(total, group=span)
        return total.view(torch.int32).tolist()

    first, *others = on_hosts(layout, body)
    assert all(other == first for other in others)


@pytest.mark.parametrize("layout", ["ab", "aabb", "abcab"])
def test_little_data_takes_one_exchange_and_gives_the_bits_of_much(layout):
    def body(span):
        rank, world = dist.get_rank(), dist.get_world_size()
        across = span._native._spanning.across
        counted, wrong = {}, []

        def exchanges(name, call, *given):
            before = across._swaps, across._trades
            call(*given)
            counted[name] = across._swaps - before[0], across._trades - before[1]

        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            much = torch.randn(40_000 * world, generator=torch.Generator().manual_seed(rank)).to(dtype)
            for op in (dist.ReduceOp.SUM, dist.ReduceOp.AVG, dist.ReduceOp.MAX):
                few, whole = much[:100].clone(), much.clone()
                exchanges("all_reduce", dist.all_reduce, few, op, span)
                dist.all_reduce(whole, op, span)
                parts = [torch.empty(size, dtype=dtype) for size in (9, 40_000)]
                for part in parts:
                    rows = much.view(world, -1)[:, : part.numel()].reshape(-1)
                    exchanges(f"reduce_scatter of {part.numel()}", dist.reduce_scatter_tensor, part, rows, op, span)
                if not torch.equal(few, whole[:100]) or not torch.equal(parts[0], parts[1][:9]):
                    wrong.append((dtype, op))
        little, lots = torch.ones(2 * world), torch.ones(40_000 * world)
        exchanges("broadcast", dist.broadcast, little, world - 1, span)
        exchanges("all_gather", dist.all_gather_into_tensor, torch.empty(2 * world**2), little, span)
        exchanges("all_to_all", dist.all_to_all_single, torch.empty_like(little), little, None, None, span)
        exchanges("large all_to_all", dist.all_to_all_single, torch.empty_like(lots), lots, None, None, span)
        return wrong, counted, span.hosts.speaks

    for wrong, counted, speaks in on_hosts(layout, body):
        assert wrong == []
        for name in ("all_reduce", "reduce_scatter of 9", "broadcast", "all_gather", "all_to_all"):
            assert counted[name] == (int(speaks), 0)
        assert counted["large all_to_all"] == (int(speaks), 1)


@pytest.mark.parametrize("layout", ["ab", "aab", "abcab"])
def test_messages_with_tags_and_from_any_source(layout):
    def body(span):
        rank, world = dist.get_rank(), dist.get_world_size()
        right, left = (rank + 1) % world, (rank - 1) % world
        sends = [dist.isend(torch.full((5,), 10.0 * rank + tag), right, span, tag) for tag in (1, 2)]
        second, first = torch.empty(5), torch.empty(5)
        receives = [dist.irecv(second, left, span, 2), dist.irecv(first, left, span, 1)]
        for work in (*sends, *receives):
            work.wait()
        everyone = []
        if rank == 0:
            for _ in range(world - 1):
                x = torch.empty(3, dtype=torch.int64)
                source = dist.recv(x, None, span, 7)
                everyone.append((source, x.tolist()))
        else:
            dist.send(torch.full((3,), rank), 0, span, 7)
        ops = [dist.P2POp(dist.isend, torch.full((2,), float(rank)), right, span)]
        got = torch.empty(2)
        ops.append(dist.P2POp(dist.irecv, got, left, span))
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        return first[0].item(), second[0].item(), sorted(everyone), got[0].item()

    world = len(layout)
    for rank, (first, second, everyone, got) in enumerate(on_hosts(layout, body)):
        left = (rank - 1) % world
        assert (first, second, got) == (10.0 * left + 1, 10.0 * left + 2, float(left))
        assert everyone == ([(peer, [peer] * 3) for peer in range(1, world)] if rank == 0 else [])


def test_what_is_started_runs_in_its_order():
    def body(span):
        x, y = torch.ones(4), torch.full((3,), float(dist.get_rank()))
        works = [dist.all_reduce(x, group=span, async_op=True) for _ in range(3)]
        works.append(dist.broadcast(y, 1, group=span, async_op=True))
        give = [1 + (dist.get_rank() + peer) % 2 for peer in range(3)]
        out = torch.empty(sum(give))
        works.append(dist.all_to_all_single(out, torch.ones(sum(give)), list(give), list(give), span, async_op=True))
        del give
        scratch = [torch.randint(9, (6,)) for _ in range(50)]  # where the splits may have been
        z = torch.ones(2)
        dist.all_reduce(z, group=span)
        assert out.unique().tolist() == [1.0]
        assert len(scratch) == 50
        after = [work.is_completed() for work in works]
        futures = [work.get_future() for work in works]
        torch.futures.wait_all(futures)
        return x.tolist(), y.tolist(), z.tolist(), all(after)

    assert on_hosts("aba", body) == [([27.0] * 4, [1.0] * 3, [3.0] * 2, True)] * 3


def test_subgroups_meshes_and_the_functional_ops_run_on_several_hosts():
    def body(group):
        import os

        import torch.distributed._functional_collectives as funcol
        from torch.distributed.device_mesh import init_device_mesh

        os.environ["COMM_SHM_HOST"] = "aabb"[group.rank]
        try:
            mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
        finally:
            del os.environ["COMM_SHM_HOST"]
        kinds = [type(mesh.get_group(axis)).__name__ for axis in ("outer", "inner")]
        y = funcol.all_reduce(torch.full((2,), group.rank + 1.0), "sum", mesh["outer"])
        z = funcol.all_gather_tensor(torch.full((1,), float(group.rank)), 0, mesh["outer"])
        return kinds, (y + 0).tolist(), (z + 0).tolist()

    for rank, answer in enumerate(run_ranks(body, 4, "shm")):
        kinds = ["SpanningGroup", "SharedMemoryGroup"]
        total, column = [4.0, 6.0][rank % 2], float(rank % 2)
        assert answer == (kinds, [total] * 2, [column, column + 2])


@pytest.mark.parametrize("layout", ["ab", "aba"])
def test_symmetric_memory_needs_one_host(layout):
    def body(span):
        from comm_core.errors import TransportError
        from comm_shm import symmetric

        try:
            symmetric.empty((3,), group=span)
        except TransportError as error:
            return "ranks on 2 hosts" in str(error) or str(error)
        return None

    assert on_hosts(layout, body) == [True] * len(layout)


@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_sparse_tensors(layout):
    def body(span):
        rank, world = span.rank(), span.size()

        def summed(group, later):
            rows = torch.arange(rank) % 3  # of none on rank 0
            x = torch.sparse_coo_tensor(rows[None], torch.full((rank, 2), rank + 1.0), (3, 2), check_invariants=True)
            work = dist.all_reduce(x, group=group, async_op=later)
            if later:
                work.wait()
            return x.is_coalesced(), x.to_dense().tolist()

        def without_room():
            from comm_shm.sparse import SparseSum

            def full(_self, _rank):
                raise MemoryError("none left")

            part, SparseSum._part = SparseSum._part, full if rank == world - 1 else SparseSum._part
            try:
                summed(span, False)
            except MismatchError as error:
                return str(error)
            finally:
                SparseSum._part = part

        over_gloo = summed(None, False)
        return summed(span, False) == over_gloo, without_room(), summed(span, True) == over_gloo

    for before, said, after in on_hosts(layout, body):
        assert before is after is True
        assert f"rank {len(layout) - 1}: sparse all_reduce (refused: no room for what the others have)" in said
