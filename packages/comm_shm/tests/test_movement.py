"""broadcast, all_gather, reduce_scatter and all_to_all on real ranks: every form of the call, against definitions."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, DtypeError, MismatchError, ShapeError

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, 4, backend="shm")]

SLOT = 96 * 1024  # bytes, see test_group.py
SIZES = [0, 1, 7, SLOT // 4 - 1, SLOT // 4, SLOT // 2 + 3]
DTYPES = [torch.float32, torch.bool, torch.int8, torch.uint16, torch.bfloat16, torch.complex128, torch.float8_e4m3fn]


def drawn(rank, numel, dtype=torch.float32):
    x = torch.randint(-99, 99, (numel,), generator=torch.Generator().manual_seed(1000 * rank + numel))
    return (x % 2 == 0) if dtype is torch.bool else x.abs().to(torch.float32).to(dtype)


def same(x, y):
    x, y = torch.cat([x]), torch.cat([y])  # of unit stride
    return x.dtype == y.dtype and torch.equal(x.view(torch.uint8), y.view(torch.uint8))


def attempt(call):
    try:
        call()
    except CommError as error:
        return type(error), str(error)
    return None, ""


def test_broadcast_of_any_dtype_size_and_root(world):
    def body(group):
        good = []
        for dtype in DTYPES:
            for numel in SIZES:
                for root in range(group.world):
                    x = drawn(group.rank, numel, dtype)
                    dist.broadcast(x, root)
                    good.append(same(x, drawn(root, numel, dtype)))
        wide = torch.full((3, 4), float(group.rank)).t()[1:, ::2]
        dist.group.WORLD.broadcast(wide, group.world - 1).wait()
        return all(good), wide.unique().tolist()

    assert world.run(body) == [(True, [world.size - 1.0])] * world.size


def test_all_gather_of_any_dtype_and_size_in_every_form(world):
    def body(group):
        good, pg = [], dist.group.WORLD
        for dtype in DTYPES:
            for numel in SIZES:
                x = drawn(group.rank, numel, dtype)
                parts = [drawn(rank, numel, dtype) for rank in range(group.world)]
                whole = torch.cat([part.view(torch.uint8) for part in parts]).view(dtype)
                single, both = torch.empty_like(whole), [torch.empty_like(whole) for _ in range(2)]
                many, strided = (
                    [torch.empty_like(x) for _ in parts],
                    [torch.empty(numel, 2).to(dtype)[:, 0] for _ in parts],
                )
                dist.all_gather_into_tensor(single, x)
                dist.all_gather(many, x)
                dist.all_gather(strided, x)
                pg.allgather_into_tensor_coalesced(both, [x, x]).wait()
                in_place = torch.zeros(whole.numel()).to(dtype)
                mine = in_place[group.rank * numel : (group.rank + 1) * numel]
                mine.copy_(x)
                dist.all_gather_into_tensor(in_place, mine)
                good += [same(got, whole) for got in (single, in_place, *both)]
                good += [same(got, part) for outs in (many, strided) for got, part in zip(outs, parts, strict=True)]
        return all(good)

    assert world.run(body) == [True] * world.size


def test_an_input_elsewhere_in_the_output_is_read_before_it_is_written(world):
    def body(group):
        numel = SLOT
        out = torch.zeros(group.world * numel)
        x = out[(group.world - 1 - group.rank) * numel :][:numel]
        x.copy_(drawn(group.rank, numel))
        dist.all_gather_into_tensor(out, x)
        y = torch.cat([drawn(group.rank, numel)] * group.world)
        dist.reduce_scatter_tensor(y[(group.world - 1 - group.rank) * numel :][:numel], y)
        got = y[(group.world - 1 - group.rank) * numel :][:numel]
        z = torch.cat([drawn(group.rank, numel)] * group.world)
        dist.all_to_all_single(z, z)
        parts = [drawn(rank, numel) for rank in range(group.world)]
        return torch.equal(out, torch.cat(parts)), torch.equal(got, sum(parts)), torch.equal(z, torch.cat(parts))

    assert world.run(body) == [(True, True, True)] * world.size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int16, torch.complex64])
def test_reduce_scatter_is_all_reduce_and_a_part_to_the_bit(world, dtype):
    def body(group):
        good, pg = [], dist.group.WORLD
        for op in ("SUM", "MAX", "AVG", "BXOR"):
            if (op == "MAX" and dtype.is_complex) or (op == "AVG" and dtype is torch.int16):
                continue
            if op == "BXOR" and dtype is not torch.int16:
                continue
            for numel in SIZES:
                x = torch.randn(group.world * numel, generator=torch.Generator().manual_seed(group.rank))
                x = (x * 100).to(dtype)
                want = x.clone()
                reduce_op = getattr(dist.ReduceOp, op)
                dist.all_reduce(want, op=reduce_op)
                want = want[group.rank * numel :][:numel]
                outs = [torch.empty(numel, dtype=dtype) for _ in range(4)]
                options = dist.ReduceScatterOptions()
                options.reduceOp = reduce_op
                dist.reduce_scatter_tensor(outs[0], x, op=reduce_op)
                dist.reduce_scatter(outs[1], list(x.view(group.world, numel)), op=reduce_op)
                pg.reduce_scatter_tensor_coalesced(outs[2:], [x, x], options).wait()
                dist.reduce_scatter_tensor(x[group.rank * numel :][:numel], x, op=reduce_op)
                good += [same(out, want) for out in (*outs, x[group.rank * numel :][:numel])]
        return all(good)

    assert world.run(body) == [True] * world.size


def rows(sender, receiver, scale):
    return (2 * sender + 3 * receiver) % 4 * scale


@pytest.mark.parametrize("scale", [0, 1, 9000])
def test_all_to_all_with_splits_and_in_list_form(world, scale):
    def body(group):
        me, every = group.rank, range(group.world)
        give, take = [rows(me, to, scale) for to in every], [rows(of, me, scale) for of in every]
        sent = {(of, to): drawn(10 * of + to, 3 * rows(of, to, scale)).view(-1, 3) for of in every for to in every}
        x, want = torch.cat([sent[me, to] for to in every]), torch.cat([sent[of, me] for of in every])
        out = torch.full((sum(take), 3), -1.0)
        dist.all_to_all_single(out, x, take, give)
        outs = [torch.full((size, 3), -1.0) for size in take]
        dist.all_to_all(outs, [sent[me, to] for to in every])
        even, got = torch.arange(2 * group.world) + 100 * me, torch.empty(2 * group.world, dtype=torch.int64)
        dist.all_to_all_single(got, even)
        good = got.tolist() == [100 * of + 2 * me + step for of in every for step in range(2)]
        return torch.equal(out, want), torch.equal(torch.cat(outs), want), good

    assert world.run(body) == [(True, True, True)] * world.size


def test_objects_travel_on_top(world):
    def body(group):
        everyone = [None] * group.world
        dist.all_gather_object(everyone, {"rank": group.rank, "more": "x" * group.rank})
        said = [f"from {group.rank}"]
        dist.broadcast_object_list(said, src=group.world - 1)
        return everyone, said

    want = [{"rank": rank, "more": "x" * rank} for rank in range(world.size)]
    assert world.run(body) == [(want, [f"from {world.size - 1}"])] * world.size


def test_functional_ops_and_their_gradients_reach_the_group(world):
    def body(group):
        import torch
        import torch.distributed._functional_collectives as funcol

        ops, name, n, me = torch.ops._c10d_functional, dist.group.WORLD.group_name, group.world, group.rank
        x = torch.full((2, 3), me + 1.0)
        gathered = ops.wait_tensor(ops.all_gather_into_tensor(x, n, name))
        scattered = ops.wait_tensor(ops.reduce_scatter_tensor(gathered, "sum", n, name))
        coalesced = ops.wait_tensor(ops.all_gather_into_tensor_coalesced([x], n, name)[0])
        twice = ops.wait_tensor(ops.reduce_scatter_tensor_coalesced([gathered], "avg", n, name)[0])
        swapped = ops.wait_tensor(ops.all_to_all_single(gathered, [2] * n, [2] * n, name))
        root = ops.wait_tensor(ops.broadcast(x, n - 1, name))
        leaf = torch.ones(2, requires_grad=True)
        (funcol.all_gather_tensor_autograd(leaf, 0, dist.group.WORLD) * (me + 1)).sum().backward()
        given = ops.wait_tensor(ops.all_gather_into_tensor(x, n, dist.group.WORLD))
        answers = [gathered, scattered, coalesced, twice, swapped, root, leaf.grad, given]
        return [answer[:, 0].tolist() if answer.dim() == 2 else answer.tolist() for answer in answers]

    n = world.size
    every = [rank + 1.0 for rank in range(n) for _ in range(2)]
    total = n * (n + 1) / 2
    for rank, got in enumerate(world.run(body)):
        mine = rank + 1.0
        assert got == [every, [mine * n] * 2, every, [mine] * 2, [mine] * 2 * n, [float(n)] * 2, [total] * 2, every]


def test_functional_ops_of_another_backend_still_work(world):
    def body(group):
        import torch

        ops, n = torch.ops._c10d_functional, group.world
        gloo = dist.new_group(backend="gloo")
        x = torch.full((2,), group.rank + 1.0)
        gathered = ops.wait_tensor(ops.all_gather_into_tensor(x, n, gloo.group_name))
        scattered = ops.wait_tensor(ops.reduce_scatter_tensor(gathered, "sum", n, gloo.group_name))
        pairs = ops.wait_tensor(ops.all_gather_into_tensor(torch.view_as_complex(x[None]), n, gloo.group_name))
        dist.destroy_process_group(gloo)
        return gathered.tolist(), scattered.tolist(), pairs.tolist()

    n = world.size
    every = [rank + 1.0 for rank in range(n) for _ in range(2)]
    pairs = [complex(rank + 1.0, rank + 1.0) for rank in range(n)]
    assert world.run(body) == [(every, [(rank + 1.0) * n] * 2, pairs) for rank in range(n)]


def waiting(options):
    """Options of a call on the group itself that waits; what is started tells its own rank at once (test_refused)."""
    options.asyncOp = False
    return options


BAD = {
    "output too small": (lambda n: dist.all_gather_into_tensor(torch.ones(2 * n + 1), torch.ones(2)), ShapeError),
    "output of another dtype": (
        lambda n: dist.group.WORLD.all_gather_single(
            torch.ones(2 * n).int(), torch.ones(2), waiting(dist.distributed_c10d.AllgatherOptions())
        ),
        DtypeError,
    ),
    "input too small": (lambda n: dist.reduce_scatter_tensor(torch.ones(2), torch.ones(2 * n + 1)), ShapeError),
    "a list of other sizes": (
        lambda n: dist.all_gather([torch.ones(3) for _ in range(n)], torch.ones(2)),
        ShapeError,
    ),
    "splits that do not add up": (
        lambda n: dist.group.WORLD.all_to_all_single(
            torch.ones(n), torch.ones(n), [2] * n, [1] * n, waiting(dist.distributed_c10d.AllToAllOptions())
        ),
        ShapeError,
    ),
    "no such root": (lambda n: dist.group.WORLD.broadcast(torch.ones(2), to_rank_7()), CommError),
}


def to_rank_7():
    options = waiting(dist.BroadcastOptions())
    options.rootRank = 7
    return options


@pytest.mark.parametrize("what", list(BAD))
def test_a_wrong_call_is_refused_on_every_rank(world, what):
    call, kind = BAD[what]

    def body(group):
        refused = attempt(lambda: call(group.world))
        one = attempt(lambda: call(group.world) if group.rank == 0 else dist.broadcast(torch.ones(2), 0))
        x = torch.ones(2)
        dist.all_reduce(x)
        return refused[0], one, x.tolist()

    for refused, (of_one, said), after in world.run(body):
        assert issubclass(refused, kind)
        assert world.size == 1 or (of_one is MismatchError and "refused: " in said)
        assert after == [world.size] * 2


def untouched_after(call, x, out):
    before = x.clone(), out.clone()
    kind, said = attempt(call)
    return kind, said, torch.equal(before[0], x) and torch.equal(before[1], out)


@pytest.mark.world(2, 3, backend="shm")
def test_disagreements_name_who_said_what_and_touch_nothing(world):
    def body(group):
        n, odd = group.world, group.rank == group.world - 1
        x, out, one = torch.ones(2 * n), torch.zeros(4 * n), torch.ones(2)
        gather = dist.all_gather_into_tensor
        size = 4 if odd else 2
        splits = [3 if odd else 2, *[2] * (n - 1)]
        rest = sum(splits)
        big = torch.ones(rest)
        seen = [
            untouched_after(lambda: dist.broadcast(x, n - 1 if odd else 0), x, out),
            untouched_after(lambda: gather(out[: n * size], x[:size]), x, out),
            untouched_after(lambda: gather(out[: 2 * n], x[:2]) if odd else dist.broadcast(x, 0), x, out),
            untouched_after(
                lambda: dist.reduce_scatter_tensor(one, x, op=dist.ReduceOp.MAX if odd else dist.ReduceOp.SUM),
                x,
                one,
            ),
            untouched_after(lambda: dist.all_to_all_single(out[: 2 * n], big, [2] * n, splits), big, out),
        ]
        return seen

    last = world.size - 1
    words = [
        f"rank {last}: broadcast(src={last}) of {2 * world.size} float32",
        f"rank {last}: all_gather of 4 float32",
        f"rank {last}: all_gather of 2 float32",
        f"rank {last}: reduce_scatter(max) of 2 float32",
        f"rank {last}, which sends 3 elements to rank 0, which expects 2",
    ]
    for seen in world.run(body):
        for (kind, said, untouched), want in zip(seen, words, strict=True):
            assert kind is MismatchError
            assert want in said
            assert untouched


@pytest.mark.parametrize("what", ["broadcast", "all_gather", "reduce_scatter", "all_to_all"])
def test_a_rank_that_dies_amid_a_long_collective_is_named(fleet, what):
    def body(rank, world, store):
        import os
        import signal
        import threading

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        x, whole = torch.ones(1 << 20), torch.ones(world << 20)
        calls = {
            "broadcast": lambda: dist.broadcast(whole, 0),
            "all_gather": lambda: dist.all_gather_into_tensor(whole, x),
            "reduce_scatter": lambda: dist.reduce_scatter_tensor(x, whole),
            "all_to_all": lambda: dist.all_to_all_single(whole, whole.clone()),
        }
        calls[what]()
        entered = threading.Event()
        if rank == world - 1:  # dies while its main thread is in a call
            threading.Thread(
                target=lambda: entered.wait() and os.kill(os.getpid(), signal.SIGKILL), daemon=True
            ).start()
        from comm_core.errors import RankFailedError

        for number in range(1000):
            if number == 2:
                entered.set()
            try:
                calls[what]()
            except RankFailedError:
                return "named"
        return "never told"

    *alive, dead = fleet.run(body, 3)
    assert dead == ("died", -9)
    assert alive == [("returned", "named")] * 2
