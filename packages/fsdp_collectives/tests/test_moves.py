"""Gathering and reducing plain tensors: held against chunk, cat and a float64 mean, simulated and over gloo."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from comm_core import World
from comm_core.errors import ArgumentError, DtypeError, ShapeError
from fsdp_collectives import (
    GatherPlan,
    ReducePlan,
    TensorSpec,
    gather_parameters,
    reduce_gradients,
    shard_of,
    start_gather,
    start_reduce,
)
from fsdp_collectives.gather import pack_shards, unpack_full
from fsdp_collectives.reduce import pack_gradients
from packages.fsdp_collectives.tests.specs import DTYPES, chunked, integers, spec_lists, strided, worlds

MIXED = [
    TensorSpec("weight", (5, 3), torch.float32),
    TensorSpec("few", (2, 4), torch.bfloat16),
    TensorSpec("none", (0, 3), torch.float32),
    TensorSpec("scalar", (), torch.float32),
    TensorSpec("copied", (), torch.float32, None),
    TensorSpec("count", (7,), torch.int64),
    TensorSpec("even", (12,), torch.float64),
]


def shards_of(specs, world, rank):
    return [strided(shard_of(spec, integers(spec, i), world, rank)) for i, spec in enumerate(specs)]


def gather_all(group, specs, param_dtype=None):
    plan = GatherPlan.build(specs, group.world, param_dtype)
    return list(gather_parameters(plan, shards_of(specs, group.world, group.rank), group).tensors)


def check_gathered(per_rank, specs, param_dtype=None):
    for gathered in per_rank:
        for i, (spec, got) in enumerate(zip(specs, gathered, strict=True)):
            want = integers(spec, i)
            assert torch.equal(got, want.to(param_dtype) if param_dtype and want.is_floating_point() else want)


@settings(max_examples=60, deadline=None)
@given(specs=spec_lists(), world=worlds, param_dtype=st.sampled_from([None, torch.bfloat16]))
def test_gathered_shards_are_the_original_parameters(specs, world, param_dtype):
    check_gathered(World(world).run(gather_all, specs, param_dtype), specs, param_dtype)


@pytest.mark.world(1, 2, 3, 4)
def test_gathered_shards_are_the_original_parameters_over_gloo(world):
    for param_dtype in (None, torch.bfloat16):
        check_gathered(world.run(gather_all, MIXED, param_dtype), MIXED, param_dtype)
        check_gathered(world.simulate(gather_all, MIXED, param_dtype), MIXED, param_dtype)


def gradients_of(specs, rank, absent=()):
    """Integer gradients in other dtypes and layouts than the parameters', some of them None."""
    dtypes = {torch.float32: torch.bfloat16, torch.bfloat16: torch.float32}
    return [
        None if (i, rank) in absent else strided(integers(spec, 10 * rank + i, dtypes.get(spec.dtype, spec.dtype)))
        for i, spec in enumerate(specs)
    ]


def reduce_all(group, specs, absent=(), divide_by=None):
    plan = ReducePlan.build(specs, group.world, None, divide_by)
    return list(reduce_gradients(plan, gradients_of(specs, group.rank, absent), group).gradients)


def check_reduced(per_rank, specs, absent=(), divide_by=None):
    world = len(per_rank)
    for i, spec in enumerate(specs):
        found = [gradients_of(specs, rank, absent)[i] for rank in range(world)]
        if all(x is None for x in found):
            assert all(got[i] is None for got in per_rank)
            continue
        total = sum(x.double() for x in found if x is not None)
        want = total / (world if divide_by is None else divide_by)
        wants = [want] * world if spec.dim is None else chunked(want, world)
        for got, part in zip(per_rank, wants, strict=True):
            assert got[i].dtype == spec.dtype
            assert got[i].shape == part.shape
            torch.testing.assert_close(got[i], part.to(spec.dtype))


FLOATS = tuple(dtype for dtype in DTYPES if dtype.is_floating_point)


@settings(max_examples=60, deadline=None)
@given(
    specs=spec_lists(FLOATS),
    world=worlds,
    absent=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 3))),
    divide_by=st.sampled_from([None, 1, 2.5]),
)
def test_reduced_gradients_are_the_shards_of_the_mean(specs, world, absent, divide_by):
    check_reduced(World(world).run(reduce_all, specs, absent, divide_by), specs, absent, divide_by)


@pytest.mark.world(1, 2, 3, 4)
def test_reduced_gradients_are_the_shards_of_the_mean_over_gloo(world):
    specs = [spec for spec in MIXED if spec.dtype.is_floating_point]
    absent = {(0, 0), (1, 1), *((3, rank) for rank in range(4))}  # tensor 3 on no rank
    for divide_by in (None, 3):
        check_reduced(world.run(reduce_all, specs, absent, divide_by), specs, absent, divide_by)


@settings(max_examples=60, deadline=None)
@given(specs=spec_lists((torch.int64,), dims=(0,)), world=worlds)
def test_reducing_is_the_adjoint_of_gathering(specs, world):
    """Sum over ranks of <G x, y> equals sum over ranks of <x, G' y>, in integers, exactly."""

    def body(group):
        plan = GatherPlan.build(specs, world)
        adjoint = ReducePlan.build(specs, world, divide_by=1)
        x = [
            torch.randint(-9, 9, spec.shard_shape(world, group.rank), generator=seeded(group.rank, i))
            for i, spec in enumerate(specs)
        ]
        y = [torch.randint(-9, 9, spec.shape, generator=seeded(group.rank + 50, i)) for i, spec in enumerate(specs)]
        gathered = gather_parameters(plan, x, group).tensors
        reduced = reduce_gradients(adjoint, y, group).gradients
        return dot(gathered, y), dot(x, reduced)

    left, right = zip(*World(world).run(body), strict=True)
    assert sum(left) == sum(right)


def seeded(rank, i):
    return torch.Generator().manual_seed(1000 * rank + i)


def dot(xs, ys):
    return sum(int((x * y).sum()) for x, y in zip(xs, ys, strict=True))


@pytest.mark.world(1, 3)
def test_several_may_be_in_flight(world):
    def body(group):
        plan = GatherPlan.build(MIXED, group.world)
        flying = [start_gather(plan, shards_of(MIXED, group.world, group.rank), group) for _ in range(3)]
        reduce_plan = ReducePlan.build(MIXED[:2], group.world)
        reducing = start_reduce(reduce_plan, gradients_of(MIXED[:2], group.rank), group)
        done = [pending.finish() for pending in flying]
        assert flying[0].finish() is done[0]
        reduced = reducing.finish()
        assert reducing.finish() is reduced
        assert list(reduced.named()) == ["weight", "few"]
        return [list(one.named().values()) for one in done]

    for results in (world.run(body), world.simulate(body)):
        for gathered in results:
            check_gathered(gathered, MIXED)


@pytest.mark.world(1, 2)
def test_gathering_into_given_tensors(world):
    def body(group):
        plan = GatherPlan.build(MIXED, group.world, torch.bfloat16)
        out = [torch.empty(spec.shape, dtype=plan.full_dtype(spec)) for spec in MIXED]
        named = dict(zip([spec.name for spec in MIXED], shards_of(MIXED, group.world, group.rank), strict=True))
        result = gather_parameters(plan, named, group, out)
        assert all(a is b for a, b in zip(result.tensors, out, strict=True))
        return out

    check_gathered(world.simulate(body), MIXED, torch.bfloat16)


def test_inputs_are_left_alone_and_not_shared():
    def body(group):
        spec = TensorSpec("p", (4,), torch.float32)
        gradient, shard = torch.ones(4), shard_of(spec, torch.ones(4), group.world, group.rank)
        full = gather_parameters(GatherPlan.build([spec], group.world), [shard], group).tensors[0]
        part = reduce_gradients(ReducePlan.build([spec], group.world), [gradient], group).gradients[0]
        full.zero_()
        part.zero_()
        return gradient.sum().item() == 4 and shard.sum().item() == len(shard)

    assert World(1).run(body) == [True]
    assert World(3).run(body) == [True] * 3


def test_a_world_of_one_divides_once():
    """Where the divisor is given and nothing is sent, dividing before and after would divide twice."""
    spec = TensorSpec("p", (3,), torch.float16)

    def body(group):
        return reduce_gradients(ReducePlan.build([spec], 1, divide_by=8), [torch.full((3,), 16.0)], group).gradients[0]

    assert World(1).run(body)[0].tolist() == [2.0, 2.0, 2.0]


def test_float16_sums_do_not_overflow_where_the_mean_fits():
    spec = TensorSpec("p", (4,), torch.float16)

    def body(group):
        return reduce_gradients(ReducePlan.build([spec], 4), [torch.full((4,), 30000.0)], group).gradients[0]

    for part in World(4).run(body):
        assert part.tolist() == [30000.0]


def test_low_precision_gradients_are_added_in_the_reduce_dtype():
    spec = TensorSpec("p", (1,), torch.bfloat16)

    def body(group, reduce_dtype):
        gradient = torch.tensor([256.0 if group.rank == 0 else 1.0], dtype=torch.bfloat16)
        plan = ReducePlan.build([TensorSpec("p", (1,), torch.float32)], group.world, reduce_dtype, 1)
        return reduce_gradients(plan, [gradient], group).gradients[0]

    assert spec.dtype.itemsize == 2
    assert World(3).run(body, None)[0].item() == 258.0
    assert World(3).run(body, torch.bfloat16)[0].item() == 256.0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda plan, group: gather_parameters(plan, [], group), ArgumentError, "0 tensors"),
        (lambda plan, group: gather_parameters(plan, {"q": torch.ones(2)}, group), ArgumentError, "named"),
        (lambda plan, group: gather_parameters(plan, [torch.ones(3)], group), ShapeError, "tensor 'p'"),
        (lambda plan, group: gather_parameters(plan, [torch.ones(2).double()], group), DtypeError, "float64"),
        (lambda plan, group: gather_parameters(plan, ["x"], group), DtypeError, "a str"),
        (
            lambda plan, group: gather_parameters(plan, [torch.ones(2)], group, [torch.ones(3)]),
            ShapeError,
            "tensor 'p'",
        ),
    ],
)
def test_wrong_shards_are_refused_at_the_call(call, error, words):
    plan = GatherPlan.build([TensorSpec("p", (4,), torch.float32)], 2)
    with pytest.raises(error, match=words):
        World(2).run(lambda group: call(plan, group))


@pytest.mark.parametrize(
    ("gradients", "error", "words"),
    [
        ([], ArgumentError, "0 tensors"),
        ([torch.ones(2)], ShapeError, "tensor 'p'"),
        ([torch.ones(4, dtype=torch.int64)], DtypeError, "int64"),
    ],
)
def test_wrong_gradients_are_refused_at_the_call(gradients, error, words):
    plan = ReducePlan.build([TensorSpec("p", (4,), torch.float32)], 2)
    with pytest.raises(error, match=words):
        World(2).run(lambda group: reduce_gradients(plan, gradients, group))


def test_a_plan_for_another_world_is_refused():
    spec = TensorSpec("p", (4,), torch.float32)
    with pytest.raises(ArgumentError, match="a plan for 3 ranks"):
        World(2).run(lambda group: gather_parameters(GatherPlan.build([spec], 3), [torch.ones(2)], group))
    with pytest.raises(ArgumentError, match="a plan for 3 ranks"):
        World(2).run(lambda group: reduce_gradients(ReducePlan.build([spec], 3), [torch.ones(4)], group))


class Ops(TorchDispatchMode):
    """Notes every op that is no view."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_casting_and_rearranging_take_one_copy_per_tensor():
    """Also for tensors with strides of their own: no temporary is made on the way."""
    specs = [TensorSpec("even", (4, 3), torch.float32), TensorSpec("uneven", (5, 2), torch.float32)]
    full = [strided(integers(spec, 0)) for spec in specs]
    (lane,) = GatherPlan.build(specs, 2, torch.bfloat16).lanes
    buffer = torch.empty(2 * lane.block_numel, dtype=lane.dtype)
    with Ops() as packing:
        pack_shards(lane, [shard_of(spec, x, 2, 0) for spec, x in zip(specs, full, strict=True)], buffer[:12])
    assert [name for name in packing.names if name != "zero_"] == ["copy_", "copy_"]
    out = [torch.empty(spec.shape, dtype=lane.dtype) for spec in specs]
    with Ops() as unpacking:
        unpack_full(lane, buffer, 2, out)
    assert unpacking.names == ["copy_"] * 3  # the uneven one has a full and a part block
    plan = ReducePlan.build(specs, 2, torch.float16, 4)
    (lane,) = plan.lanes
    buffer = torch.empty(2 * lane.block_numel, dtype=lane.dtype)
    with Ops() as reducing:
        pack_gradients(plan, lane, full, buffer)
    assert reducing.names.count("div") == 3
    assert set(reducing.names) <= {"div", "zero_", "copy_", "_to_copy", "lift_fresh"}
    assert reducing.names.count("copy_") == 1  # the flags
