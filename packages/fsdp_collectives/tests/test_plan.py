"""Plans from shapes alone: offsets tile, bytes add up, texts go round, mistakes are named."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from comm_core.catalog import ALL_GATHER, REDUCE_SCATTER
from comm_core.errors import ArgumentError, DtypeError, ShapeError
from fsdp_collectives import GatherPlan, ReducePlan, TensorSpec, shard_of
from fsdp_collectives.plan import split_divisor
from packages.fsdp_collectives.tests.specs import chunked, integers, shapes, spec_lists, worlds

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@given(specs=spec_lists(), world=worlds, param_dtype=st.sampled_from([None, torch.bfloat16]))
def test_slots_tile_every_block(specs, world, param_dtype):
    for plan in (GatherPlan.build(specs, world, param_dtype), ReducePlan.build(specs, world, param_dtype, 1)):
        seen = []
        for lane in plan.lanes:
            end = 0
            for slot in lane.slots:
                assert slot.offset == end
                end += slot.numel
                seen.append(slot.index)
                assert slot.spec is plan.specs[slot.index]
            assert end + lane.flags == lane.block_numel
        whole = isinstance(plan, ReducePlan)
        assert sorted(seen) == [i for i, spec in enumerate(specs) if whole or spec.dim == 0]
        assert len({lane.dtype for lane in plan.lanes}) == len(plan.lanes)


@given(specs=spec_lists(), world=worlds)
def test_bytes_of_a_gather(specs, world):
    plan = GatherPlan.build(specs, world)
    split = [spec for spec in specs if spec.dim == 0]
    largest = sum(chunked(integers(spec, 0), world)[0].nbytes for spec in split)
    assert plan.block_bytes == largest
    assert plan.full_bytes == sum(integers(spec, 0).nbytes for spec in split)
    assert plan.padding_bytes == world * largest - plan.full_bytes >= 0
    assert plan.wire_bytes == ALL_GATHER.wire_bytes(largest, world, 0, dim=0) == (world - 1) * largest


@given(specs=spec_lists(FLOATS), world=worlds)
def test_bytes_of_a_reduction(specs, world):
    plan = ReducePlan.build(specs, world)
    gather = GatherPlan.build(specs, world)
    flags = sum(spec.dtype.itemsize for spec in specs)
    copies = sum(integers(spec, 0).nbytes for spec in specs if spec.dim is None)
    assert plan.block_bytes == gather.block_bytes + flags + copies
    assert plan.padding_bytes == gather.padding_bytes + world * flags + (world - 1) * copies
    assert plan.wire_bytes == (world - 1) * plan.block_bytes
    assert plan.wire_bytes == REDUCE_SCATTER.wire_bytes(world * plan.block_bytes, world, 0, reduce_op="sum", dim=0)


@given(shape=shapes, world=worlds)
def test_a_shard_is_a_chunk(shape, world):
    spec = TensorSpec("p", shape, torch.float32)
    full = integers(spec, 1)
    for rank, want in enumerate(chunked(full, world)):
        assert torch.equal(shard_of(spec, full, world, rank), want)
        assert spec.shard_shape(world, rank) == tuple(want.shape)
    assert torch.equal(shard_of(TensorSpec("p", shape, torch.float32, None), full, world, 0), full)


@given(specs=spec_lists(FLOATS), world=worlds, dtype=st.sampled_from([None, *FLOATS]), by=st.floats(0.1, 100))
def test_texts_go_round(specs, world, dtype, by):
    gather, reduce = GatherPlan.build(specs, world, dtype), ReducePlan.build(specs, world, dtype, by)
    assert GatherPlan.from_json(gather.to_json()) == gather
    assert ReducePlan.from_json(reduce.to_json()) == reduce
    assert hash(gather) == hash(GatherPlan.build(specs, world, dtype))


def example_plan():
    return GatherPlan.build([TensorSpec("weight", (5, 2), torch.float32), TensorSpec("step", (), torch.int64)], 2)


def test_the_text_spells_the_offsets_out_and_they_are_checked():
    body = json.loads(example_plan().to_json())
    assert body["lanes"][0]["slots"] == [{"name": "weight", "offset": 0, "numel": 6}]
    body["lanes"][0]["slots"][0]["offset"] = 1
    with pytest.raises(ArgumentError, match="do not follow from the shapes"):
        GatherPlan.from_json(json.dumps(body))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"kind": "reduce"}',
        '{"kind": "gather"}',
        '{"kind": "gather", "world": 1, "param_dtype": null, "tensors": [{"name": "p"}], "lanes": []}',
        '{"kind": "gather", "world": 1, "param_dtype": "float33", "tensors": [], "lanes": []}',
    ],
)
def test_texts_that_are_no_plans(text):
    with pytest.raises(ArgumentError, match="gather plan"):
        GatherPlan.from_json(text)


def test_tables_for_people():
    assert str(example_plan()).splitlines() == [
        "gather over 2 ranks: each brings 32 bytes and sends 32; 16 bytes are padding",
        "tensor  shape     lane  offset  block numel  padding numel",
        "weight    5x2  float32       0            6              2",
        "step      0-D    int64       0            1              1",
    ]
    plan = ReducePlan.build([TensorSpec("scale", (), torch.float32, None)], 3)
    assert str(plan).splitlines()[0].startswith("reduce over 3 ranks, divide by 3")
    assert "a copy each" in str(plan)


@pytest.mark.parametrize("dim", [1, -1, "0", False])
def test_other_dims_are_refused(dim):
    with pytest.raises(ShapeError, match=r"tensor 'w': got shard dim .* need 0"):
        TensorSpec("w", (2, 2), torch.float32, dim)


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: TensorSpec("w", (2, -1), torch.float32), ShapeError),
        (lambda: TensorSpec("w", (2,), "float32"), DtypeError),
        (lambda: GatherPlan.build([], 0), ArgumentError),
        (lambda: GatherPlan.build([TensorSpec("w", (2,), torch.float32)] * 2, 2), ArgumentError),
        (lambda: GatherPlan.build([], 2, torch.int64), DtypeError),
        (lambda: ReducePlan.build([], True), ArgumentError),
        (lambda: ReducePlan.build([], 2, divide_by=-1), ArgumentError),
        (lambda: ReducePlan.build([], 2, reduce_dtype="float32"), DtypeError),
        (lambda: ReducePlan.build([TensorSpec("w", (2,), torch.int64)], 2), DtypeError),
    ],
)
def test_mistakes_are_refused_when_planning(build, error):
    with pytest.raises(error):
        build()


@example(math.nextafter(4096, 0), torch.float16)
@given(st.floats(1, 4096), st.sampled_from(FLOATS))
def test_division_is_split_only_where_a_sum_could_overflow(by, dtype):
    divisors = split_divisor(by, dtype)
    assert divisors.before * divisors.after == by
    if dtype is not torch.float16:
        assert divisors.before == 1
    else:
        assert divisors.before**2 <= by < (2 * divisors.before) ** 2
