"""all_reduce of every dtype and reduce op, on real ranks, against its definition; and what is not defined."""

import functools
import hashlib

import numpy as np
import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, MismatchError, ReduceOpError

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, 4, backend="shm")]

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
UNSIGNED = [torch.uint16, torch.uint32, torch.uint64]  # torch moves them, and numpy computes with them
COMPLEX = [torch.complex64, torch.complex128]
STEPS = {
    "sum": torch.add,
    "avg": torch.add,
    "product": torch.mul,
    "min": torch.minimum,
    "max": torch.maximum,
    "band": torch.bitwise_and,
    "bor": torch.bitwise_or,
    "bxor": torch.bitwise_xor,
    "premul_sum": torch.add,
}
OF_UNSIGNED = {
    "sum": np.add,
    "product": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "band": np.bitwise_and,
    "bor": np.bitwise_or,
    "bxor": np.bitwise_xor,
}
OF_FLOATS = ["sum", "avg", "product", "min", "max", "premul_sum"]
OF_INTEGERS = ["sum", "product", "min", "max", "band", "bor", "bxor"]
OF_COMPLEX = ["sum", "avg", "premul_sum"]
DEFINED = (
    dict.fromkeys(FLOATS, OF_FLOATS)
    | dict.fromkeys([*INTEGERS, *UNSIGNED, torch.bool], OF_INTEGERS)
    | dict.fromkeys(COMPLEX, OF_COMPLEX)
)
FACTOR = 0.375
SIZES = [0, 1, 33, 2049, 128 * 1024 + 5]


def drawn(dtype, rank, numel):
    generator = torch.Generator().manual_seed(1000 * rank + numel)
    if dtype in UNSIGNED:  # every pattern of bits: on both sides of half the range
        x = torch.empty(numel, dtype=dtype)
        x.view(torch.uint8).random_(0, 256, generator=generator)
        return x
    if dtype in INTEGERS or dtype is torch.bool:
        bounds = (0, 2) if dtype is torch.bool else (torch.iinfo(dtype).min // 2, torch.iinfo(dtype).max // 2)
        return torch.randint(*bounds, (numel,), generator=generator).to(dtype)
    return torch.randn(numel, generator=generator, dtype=dtype if dtype in COMPLEX else torch.float64).to(dtype)


def defined(op, inputs):
    """Return the definition: in rank order; 16-bit floats in f32 and rounded once; a sum of bools is whether any is."""
    dtype = inputs[0].dtype
    if dtype in UNSIGNED:
        total = functools.reduce(OF_UNSIGNED[op], [x.numpy() for x in inputs])
        return torch.tensor(total) if total.size else inputs[0]
    if op == "premul_sum":
        inputs = [x * FACTOR for x in inputs]
    if dtype in (torch.float16, torch.bfloat16):
        inputs = [x.float() for x in inputs]
    step = STEPS[op]
    if dtype is torch.bool:
        step = {"sum": torch.logical_or, "product": torch.logical_and}.get(op, step)
    total = functools.reduce(step, inputs)
    if op == "avg":  # a complex number is divided in its parts
        total = (
            torch.view_as_complex(torch.view_as_real(total) / len(inputs)) if dtype in COMPLEX else total / len(inputs)
        )
    return total.to(dtype)


def reduce_op(op):
    return dist._make_nccl_premul_sum(FACTOR) if op == "premul_sum" else getattr(dist.ReduceOp, op.upper())


def bits(x):
    return hashlib.sha256(x.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("dtype", list(DEFINED), ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_each_defined_op_is_its_definition_to_the_bit_on_every_rank(world, dtype):
    def body(group):
        answers = {}
        for op in DEFINED[dtype]:
            for numel in SIZES:
                x = drawn(dtype, group.rank, numel)
                dist.all_reduce(x, op=reduce_op(op))
                want = defined(op, [drawn(dtype, rank, numel) for rank in range(group.world)])
                answers[op, numel] = bits(x), bits(want)
        return answers

    for answers in world.run(body):
        wrong = [case for case, (got, want) in answers.items() if got != want]
        assert wrong == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_pattern_comes_through(world, dtype):
    def body(group):
        every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        x = every.clone() if group.rank == 0 else torch.zeros_like(every)
        dist.all_reduce(x, op=dist.ReduceOp.MAX if group.world == 1 else dist.ReduceOp.SUM)
        same = (x.float() == every.float()) | (x.isnan() & every.isnan())
        scaled = every.clone()
        dist.all_reduce(scaled, op=dist.ReduceOp.AVG)  # rounding, overflow in between, and subnormal numbers
        total = functools.reduce(torch.add, [every.float()] * group.world) / group.world
        want = total.to(dtype)
        equal = (scaled == want) | (scaled.isnan() & want.isnan())
        return bool(same.all()), bool(equal.all())

    assert world.run(body) == [(True, True)] * world.size


def test_16_bit_rounding_is_to_nearest_even(world):
    def body(group):
        drawn_f32 = torch.randn(50_000, generator=torch.Generator().manual_seed(3))
        answers = []
        for dtype, scales in ((torch.float16, (1e-8, 1e-6, 1.0, 3e4)), (torch.bfloat16, (1e-39, 1.0, 1e38))):
            for scale in scales:
                rows = [(drawn_f32.roll(rank) * scale).to(dtype) for rank in range(group.world)]
                x = rows[group.rank].clone()
                dist.all_reduce(x, op=dist.ReduceOp.AVG)
                want = functools.reduce(torch.add, [row.float() for row in rows]).div(group.world).to(dtype)
                answers.append(torch.allclose(x, want, rtol=0, atol=0, equal_nan=True))
        return answers

    assert world.run(body) == [[True] * 7] * world.size


def test_nan_comes_through_16_bit_minimum_and_maximum(world):
    def body(group):
        x = torch.tensor([float("nan") if group.rank == 0 else 1.0, float("-inf")], dtype=torch.bfloat16)
        y = x.clone()
        dist.all_reduce(x, op=dist.ReduceOp.MIN)
        dist.all_reduce(y, op=dist.ReduceOp.MAX)
        return x[0].isnan().item(), y[0].isnan().item(), x[1].item(), y[1].item()

    assert world.run(body) == [(True, True, float("-inf"), float("-inf"))] * world.size


def test_a_premultiplied_sum_takes_each_ranks_own_factor_also_as_a_tensor(world):
    def body(group):
        x, y = torch.ones(3), torch.ones(3)
        dist.all_reduce(x, op=dist._make_nccl_premul_sum(float(group.rank + 1)))
        dist.all_reduce(y, op=dist._make_nccl_premul_sum(torch.tensor([0.5])))
        return x.tolist(), y.tolist()

    total = float(sum(range(1, world.size + 1)))
    assert world.run(body) == [([total] * 3, [0.5 * world.size] * 3)] * world.size


UNDEFINED = [
    ("band", torch.float32),
    ("bxor", torch.bfloat16),
    ("avg", torch.int32),
    ("avg", torch.bool),
    ("premul_sum", torch.int64),
    ("product", torch.complex64),
    ("max", torch.complex128),
    ("avg", torch.uint16),
    ("sum", torch.float8_e5m2),
]


def test_what_is_not_defined_is_refused_on_every_rank_and_touches_nothing(world):
    def body(group):
        answers = []
        for op, dtype in UNDEFINED:
            x = torch.ones(3).to(dtype)
            try:
                dist.group.WORLD.allreduce([x], reduce_op(op)).wait()  # dist.all_reduce looks at complex itself
            except CommError as error:
                answers.append((type(error), str(error), x.float().tolist() if dtype not in COMPLEX else None))
        x = torch.ones(1)
        dist.all_reduce(x)
        return answers, x.item()

    for answers, after in world.run(body):
        assert len(answers) == len(UNDEFINED)
        for (kind, said, x), (op, dtype) in zip(answers, UNDEFINED, strict=True):
            assert kind is ReduceOpError
            assert f"got reduce op '{op}' for {dtype}; need" in said
            assert x in ([1.0] * 3, None)
        assert after == world.size


def test_several_tensors_in_one_call(world):
    def body(group):
        many = [torch.full((3,), group.rank + 1.0), torch.ones(0), torch.ones(2, 2).t()]
        dist.group.WORLD.allreduce_coalesced(many).wait()
        odd = [torch.ones(2)] * (2 if group.rank == group.world - 1 else 1)
        try:
            dist.group.WORLD.allreduce_coalesced(odd).wait()
        except MismatchError as error:
            return [x.tolist() for x in many], str(error)
        return [x.tolist() for x in many], ""

    total = world.size * (world.size + 1) / 2
    for many, said in world.run(body):
        assert many == [[total] * 3, [], [[world.size] * 2] * 2]
        assert world.size == 1 or "one of 2 tensors" in said
