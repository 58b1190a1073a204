"""What all_reduce computes, on real ranks."""

import functools
import hashlib

import pytest
import torch
import torch.distributed as dist

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, 4, backend="shm")]

SLOT_NUMEL = 96 * 1024 // 4  # of what follows there are cases on both sides
LITTLE = 12288 // 4  # up to here all ranks read all inputs, above each reduces a part
SIZES = [0, 1, 3, 1001, 2047, 2049, LITTLE, LITTLE + 1, SLOT_NUMEL, SLOT_NUMEL + 1, 9 * SLOT_NUMEL + 7]
STEPS = {
    "SUM": torch.add,
    "AVG": torch.add,
    "PRODUCT": torch.mul,
    "MIN": torch.minimum,
    "MAX": torch.maximum,
}


def drawn(rank, numel):
    return torch.randn(numel, generator=torch.Generator().manual_seed(1000 * rank + numel))


def expected(op, world, numel):
    total = functools.reduce(STEPS[op], [drawn(rank, numel) for rank in range(world)])
    return total / world if op == "AVG" else total


def functional(name, *args):
    from torch import ops  # cloudpickle cannot send a function that says `torch` and `ops`

    return getattr(ops._c10d_functional, name)(*args)


def bits(x):
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("op", list(STEPS))
def test_every_size_is_reduced_in_rank_order_to_the_same_bits(world, op):
    def body(group):
        answers = []
        for numel in SIZES:
            x = drawn(group.rank, numel)
            dist.all_reduce(x, op=getattr(dist.ReduceOp, op))
            answers.append(bits(x))
        return answers

    want = [bits(expected(op, world.size, numel)) for numel in SIZES]
    assert world.run(body) == [want] * world.size


def test_an_elements_bits_do_not_depend_on_where_it_stands(world):
    def body(group):
        row = drawn(group.rank, 5)
        long = row.repeat(SLOT_NUMEL)
        dist.all_reduce(row)
        dist.all_reduce(long)
        return torch.equal(long, row.repeat(SLOT_NUMEL))

    assert world.run(body) == [True] * world.size


def test_nan_and_infinity_come_through(world):
    def body(group):
        x = torch.tensor([float("nan") if group.rank == world_size - 1 else 1.0, float("inf"), 2.0])
        seen = []
        for op in (dist.ReduceOp.SUM, dist.ReduceOp.MIN, dist.ReduceOp.MAX):
            y = x.clone()
            dist.all_reduce(y, op=op)
            seen.append((y[0].isnan().item(), y[1].item(), y[2].item()))
        return seen

    world_size = world.size
    infinity = float("inf")
    assert (
        world.run(body)
        == [[(True, infinity, 2.0 * world.size), (True, infinity, 2.0), (True, infinity, 2.0)]] * world.size
    )


def test_any_strides_are_reduced_in_place(world):
    def body(group):
        whole = torch.zeros(6, 8)
        whole[1:5, ::2] = group.rank + 1.0
        window = whole[1:5, ::2].t()
        dist.all_reduce(window)
        conjugate = torch.full((3,), 2.0 + 1.0j).conj().imag  # a float view that carries the negative bit
        dist.all_reduce(conjugate)
        return whole.sum().item(), window[0, 0].item(), conjugate.tolist()

    total = world.size * (world.size + 1) / 2
    assert world.run(body) == [(16 * total, total, [-1.0 * world.size] * 3)] * world.size


def test_a_leaf_that_requires_grad_is_reduced_in_place(world):
    def body(group):
        leaf = torch.ones(3, 4, requires_grad=True)
        dist.all_reduce(leaf)
        dist.all_reduce(leaf.t())
        return leaf.detach().tolist(), leaf.requires_grad

    assert world.run(body) == [([[float(world.size**2)] * 4] * 3, True)] * world.size


def test_functional_ops_find_the_group_by_name(world):
    def body(group):
        name = dist.group.WORLD.group_name
        x = torch.full((4,), group.rank + 1.0)
        y = functional("all_reduce", x, "sum", name)
        y = functional("wait_tensor", y)
        return x.tolist(), y.tolist(), dist.get_backend()

    total = world.size * (world.size + 1) / 2
    assert world.run(body) == [([rank + 1.0] * 4, [total] * 4, "shm") for rank in range(world.size)]


def test_the_group_can_be_called_directly(world):
    def body(group):
        pg = dist.group.WORLD
        x, y, z = torch.ones(2), torch.full((2,), group.rank + 1.0), torch.ones(2)
        pg.allreduce([x]).wait()
        pg.allreduce([y], dist.ReduceOp.MAX).wait()
        pg.allreduce(z).wait()
        pg.barrier().wait()
        dist.barrier()
        return x.tolist(), y.tolist(), z.tolist(), pg.size(), pg.rank(), pg.name()

    size = float(world.size)
    assert world.run(body) == [
        ([size] * 2, [size] * 2, [size] * 2, world.size, rank, "shm") for rank in range(world.size)
    ]


def test_threads_of_a_rank_take_turns(world):
    def body(group):
        from concurrent.futures import ThreadPoolExecutor

        def one(_):
            x = torch.ones(100)
            dist.all_reduce(x)
            return bool((x == dist.get_world_size()).all())

        with ThreadPoolExecutor(4) as threads:
            return all(threads.map(one, range(200)))

    assert world.run(body) == [True] * world.size
