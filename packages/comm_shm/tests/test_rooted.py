"""reduce, gather and scatter on real ranks, for every root, against definitions; and a root that ranks do not share."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, MismatchError

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, 4, backend="shm")]


def test_each_root_gets_or_gives_and_the_others_keep_theirs(world):
    def body(group):
        me, n, good = group.rank, group.world, []
        for root in range(n):
            for numel in (0, 3, 50_000):
                x = torch.full((numel,), me + 1.0)
                dist.reduce(x, root)
                good.append(bool((x == (n * (n + 1) / 2 if me == root else me + 1.0)).all()))
                outs = [torch.zeros(numel, dtype=torch.int16) for _ in range(n)]
                dist.gather(torch.full((numel,), me, dtype=torch.int16), outs if me == root else None, root)
                good += [bool((out == (rank if me == root else 0)).all()) for rank, out in enumerate(outs)]
                given = [torch.full((numel,), 10.0 * root + rank).bfloat16() for rank in range(n)]
                got = torch.zeros(numel).bfloat16()
                dist.scatter(got, given if me == root else None, root)
                good.append(torch.equal(got, given[me]))
        return all(good)

    assert world.run(body) == [True] * world.size


@pytest.mark.world(2, 3, backend="shm")
@pytest.mark.parametrize("what", ["reduce", "gather", "scatter"])
def test_roots_that_differ_raise_on_every_rank(world, what):
    def body(group):
        n, x = group.world, torch.ones(4)
        root = n - 1 if group.rank == n - 1 else 0
        many = [torch.zeros(4) for _ in range(n)] if root == group.rank else None
        call = {
            "reduce": lambda: dist.reduce(x, root),
            "gather": lambda: dist.gather(x, many, root),
            "scatter": lambda: dist.scatter(x, many, root),
        }[what]
        try:
            call()
        except CommError as error:
            dist.barrier()
            return type(error), x.tolist()
        return None

    assert world.run(body) == [(MismatchError, [1.0] * 4)] * world.size


def test_a_gather_into_one_tensor_is_one_into_its_parts(world):
    """As torch calls it from 2.14 on: the output of ranks that are not the root is any tensor."""

    def body(group):
        me, n, good = group.rank, group.world, []
        calls = dist.group.WORLD
        for root in range(n):
            for shape in ((2, 3), (0, 3), ()):
                options = dist.GatherOptions()
                options.rootRank = root
                x = torch.full(shape, float(me))
                out = torch.full((n, *shape), -1.0) if me == root else x.new_empty(0)
                calls.gather_single(out, x, options).wait()
                wanted = torch.arange(float(n)).view(n, *[1] * len(shape)).expand(n, *shape)
                good.append(torch.equal(out, wanted) if me == root else out.numel() == 0)
        return all(good)

    assert world.run(body) == [True] * world.size


@pytest.mark.world(2, backend="shm")
def test_a_gather_into_one_tensor_of_another_size_is_refused(world):
    def body(group):
        out = torch.zeros(7) if group.rank == 0 else torch.zeros(0)
        try:
            dist.group.WORLD.gather_single(out, torch.ones(4)).wait()
        except CommError as error:
            dist.barrier()
            return type(error).__name__, out.sum().item()
        return None

    assert world.run(body) == [("ShapeError", 0.0), ("MismatchError", 0.0)]
