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
