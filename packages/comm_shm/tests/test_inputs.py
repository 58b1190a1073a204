"""What a call only reads may be an expanded tensor, and any dtype moves: also those of less than a byte."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.nn import functional

from comm_core.errors import CommError, MismatchError
from comm_shm.codes import OF_BITS, OF_PARTS_OF_BYTES

pytestmark = pytest.mark.needs_shm


@pytest.mark.world(1, 2, 3, backend="shm")
def test_what_is_only_read_may_be_expanded(world):
    def body(group):
        def mine():
            return torch.full((1,), group.rank + 1.0).expand(3)

        n, last, first = group.world, group.world - 1, group.rank == 0
        x = mine() if group.rank == last else torch.zeros(3)
        dist.broadcast(x, last)
        summed = torch.zeros(3).add_(group.rank + 1) if first else mine()
        dist.reduce(summed, 0)
        lists = [[torch.zeros(3) for _ in range(n)] for _ in range(3)]
        dist.all_gather(lists[0], mine())
        dist.gather(mine(), lists[1] if first else None, 0)
        dist.all_to_all(lists[2], [mine() for _ in range(n)])
        given, part, whole = torch.zeros(3), torch.zeros(3), torch.zeros(3)
        dist.scatter(given, [mine() for _ in range(n)] if first else None, 0)
        dist.reduce_scatter(part, [mine() for _ in range(n)])
        dist.reduce_scatter_tensor(whole, mine()[:1].expand(3 * n))
        return [y.tolist() for y in (x, summed, given, part, whole)], [[y[-1].item() for y in one] for one in lists]

    total, everyone = world.size * (world.size + 1) / 2, [rank + 1.0 for rank in range(world.size)]
    for rank, (single, (gathered, at_root, exchanged)) in enumerate(world.run(body)):
        summed = total if rank == 0 else rank + 1.0
        assert single == [[y] * 3 for y in (world.size, summed, 1.0, total, total)]
        assert gathered == exchanged == everyone
        assert at_root == (everyone if rank == 0 else [0.0] * world.size)


@pytest.mark.world(2, 3, backend="shm")
def test_gradients_of_torch_distributed_nn_are_expanded_tensors(world):
    def body(group):
        x = torch.arange(3.0).requires_grad_()
        torch.stack(functional.gather(2 * x, 0, dist.group.WORLD)).sum().backward()
        gathered, x.grad = x.grad.tolist(), None
        functional.scatter([x * (rank + 1) for rank in range(group.world)], 0, dist.group.WORLD).sum().backward()
        return gathered, x.grad.tolist()

    told = world.run(body)
    assert [gathered for gathered, _ in told] == [[2.0] * 3] * world.size
    assert told[0][1] == [world.size * (world.size + 1) / 2] * 3


@pytest.mark.world(1, 2, 3, backend="shm")
def test_dtypes_of_less_than_a_byte_are_moved_by_every_collective(world):
    def body(group):
        me, n, good = group.rank, group.world, []
        for dtype in (*OF_PARTS_OF_BYTES, *OF_BITS):

            def of(value, dtype=dtype):
                return torch.full((2 * dtype.itemsize, 3), value, dtype=torch.uint8).t().contiguous().view(dtype)

            def same(x, value, of=of):
                return torch.equal(x.view(torch.uint8), of(value).view(torch.uint8))

            x, outs = of(me), [of(99) for _ in range(n)]
            dist.all_gather(outs, x)
            good += [same(out, rank) for rank, out in enumerate(outs)]
            dist.all_to_all(outs, [of(10 * me + rank) for rank in range(n)])
            good += [same(out, 10 * rank + me) for rank, out in enumerate(outs)]
            strided = torch.full((4, 3 * dtype.itemsize), me, dtype=torch.uint8).view(dtype)[::2]
            dist.broadcast(strided, n - 1)
            good.append(bool((strided.view(torch.uint8) == n - 1).all()))
            dist.scatter(x, [of(rank) for rank in range(n)] if me == 0 else None, 0)
            good.append(same(x, me))
        return len(good), all(good)

    count = (2 * world.size + 2) * len((*OF_PARTS_OF_BYTES, *OF_BITS))
    assert world.run(body) == [(count, True)] * world.size


@pytest.mark.world(2, 3, backend="shm")
def test_dtypes_of_less_than_a_byte_are_told_apart(world):
    def body(group):
        x = torch.zeros(4, dtype=torch.uint4 if group.rank == 0 else torch.bits16)
        try:
            dist.broadcast(x, 0)
        except CommError as error:
            return type(error), str(error)
        return None, ""

    for kind, said in world.run(body):
        assert kind is MismatchError
        assert "rank 0: broadcast(src=0) of 4 uint4; rank 1" in said
        assert "broadcast(src=0) of 4 bits16" in said
