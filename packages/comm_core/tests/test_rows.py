"""Reductions of rows on one rank: alike in eager code, in a graph and by definition, with their derivatives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from comm_core import own_ops
from comm_core.catalog.blocks import packed, runs, stacked
from comm_core.catalog.prefix import reduced_before
from comm_core.reduce_ops import preceding_in_rank_order, prefixes_in_rank_order, reduce_in_rank_order
from comm_core.rows import products_of_others, pull_back_rows, reduce_rows, scan_rows

KINDS = {
    "sum": (torch.float32, torch.bfloat16, torch.bool, torch.uint16, torch.float8_e4m3fn, torch.complex64),
    "avg": (torch.float64, torch.bfloat16),
    "product": (torch.float32, torch.int8),
    "max": (torch.float32, torch.uint32),
    "band": (torch.int32, torch.bool),
    "bxor": (torch.uint8,),
}


@pytest.mark.parametrize(("op", "dtype"), [(op, dtype) for op, dtypes in KINDS.items() for dtype in dtypes])
@pytest.mark.parametrize("world", [1, 3, 4])
def test_eager_and_traced_rows_are_the_definition_to_the_last_bit(op: str, dtype: torch.dtype, world: int) -> None:
    values = torch.tensor([0.1, 3.3, -2.7, 0.0, 5.0, 1.0, 2.5, 4.0]).repeat(2)[: 4 * world].view(world, 4)
    rows = (values.abs() if not dtype.is_signed else values).to(dtype)
    graph = make_fx(lambda rows: reduce_rows(rows, op))(rows)
    want = reduce_in_rank_order(op, rows.unbind(0))
    for found in (reduce_rows(rows.clone(), op), graph(rows)):
        assert found.dtype is dtype
        assert torch.equal(found.view(torch.uint8), want.view(torch.uint8))
    if dtype.is_complex:
        return
    for exclusive, reverse in ((False, False), (False, True), (True, False), (True, True)):
        order = list(rows.unbind(0))[:: -1 if reverse else 1]
        made = (preceding_in_rank_order if exclusive else prefixes_in_rank_order)(op, order)
        want = torch.stack([part.view(torch.uint8) for part in made[:: -1 if reverse else 1]])
        scan = make_fx(lambda rows, *how: scan_rows(rows, op, *how))
        for found in (scan_rows(rows.clone(), op, exclusive, reverse), scan(rows, exclusive, reverse)(rows, 0, 0)):
            assert torch.equal(found.view(torch.uint8), want)


@pytest.mark.parametrize("op", ["sum", "avg", "max", "product"])
def test_the_ops_have_the_derivatives_of_what_they_do(op: str) -> None:
    own_ops.register()
    rows = torch.tensor([[1.0, -2.0], [3.0, 0.5], [2.0, 4.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: torch.ops.comm_core.reduce_rows(rows, op), rows)
    for exclusive in (False, True):
        part = slice(1, None) if exclusive else slice(None)  # what is before the first may be infinite
        how = (op, exclusive, False)
        assert torch.autograd.gradcheck(
            lambda v, how=how, part=part: torch.ops.comm_core.scan_rows(v, *how)[part], rows
        )


@pytest.mark.parametrize("op", ["product", "min", "max"])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@settings(max_examples=60)
@given(data=st.data(), world=st.integers(1, 6))
def test_rows_are_pulled_back_as_by_autograd(
    op: str, exclusive: bool, reverse: bool, data: st.DataObject, world: int
) -> None:
    values = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 1.0, 3.0, float("inf"), float("nan")])
    few = st.lists(st.lists(values, min_size=5, max_size=5), min_size=world, max_size=world)
    rows = torch.tensor(data.draw(few), dtype=torch.float64)
    if op == "product":  # of which torch's own rule divides by what is not zero
        rows = rows.nan_to_num(0.25, 4.0)
    cotangents = torch.arange(1.0, 5 * world + 1, dtype=torch.float64).view(world, 5)
    leaf = rows.clone().requires_grad_()
    made = reduced_before(leaf, op, exclusive=exclusive, reverse=reverse)
    (want,) = torch.autograd.grad(made, leaf, cotangents)
    found = pull_back_rows(rows, cotangents.clone(), op, exclusive, reverse)
    torch.testing.assert_close(found, want, equal_nan=True, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", ["product", "max"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_many_pieces_are_pulled_back_as_one(op: str, dtype: torch.dtype) -> None:
    rows, cotangents = (torch.arange(3.0 * 40_001).view(3, -1).remainder(7).sub(3).to(dtype) for _ in range(2))
    columns = zip(rows.split(1000, 1), cotangents.split(1000, 1), strict=True)
    want = torch.cat([pull_back_rows(x.clone(), y.clone(), op, False, False) for x, y in columns], 1)
    leaf = rows.to(torch.float64, copy=True).requires_grad_()
    made = reduced_before(leaf, op, exclusive=False, reverse=False)
    (exact,) = torch.autograd.grad(made, leaf, cotangents.double())
    found = pull_back_rows(rows, cotangents, op, False, False)
    assert torch.equal(found, want)
    torch.testing.assert_close(found.double(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8, 9])
def test_the_products_of_others_leave_out_one_row_each_also_where_some_are_zero(world: int) -> None:
    rows = torch.tensor([0.5, -2.0, 3.0, 0.0, 1.5, 0.0, 4.0]).repeat(8)[: 5 * world].view(world, 5).double()
    want = torch.stack([torch.cat([rows[:at], rows[at + 1 :]]).prod(0) for at in range(world)])
    with torch.no_grad():
        assert torch.equal(products_of_others(rows.clone()), want)
    leaf = rows.clone().requires_grad_()
    assert torch.equal(products_of_others(leaf), want)
    assert torch.autograd.gradcheck(products_of_others, leaf)
    assert torch.autograd.gradgradcheck(products_of_others, leaf)


def test_the_graph_of_the_products_of_others_does_not_grow_with_the_world() -> None:
    nodes = [len(make_fx(products_of_others)(torch.ones(world, 2)).graph.nodes) for world in (8, 4096)]
    assert nodes[1] - nodes[0] == 2 * 5 * 9, (
        nodes
    )  # for each doubling three slices, a product and a concatenation, twice


@pytest.mark.parametrize("sizes", [[2], [2, 2, 2], [3, 3, 2, 2], [1, 0, 4], [0, 0]])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_blocks_lie_in_a_graphs_row_as_in_an_eager_one(sizes: list[int], dim: int) -> None:
    shape = [2, 3, 4]
    shape[dim] = sum(sizes)
    x = torch.arange(float(torch.Size(shape).numel())).view(shape)
    graph = make_fx(lambda x: stacked(x, dim, sizes))(x)
    assert torch.equal(graph(x), packed(x, x.split(sizes, dim)))
    assert sum(count for count, _ in runs(sizes)) == len(sizes)
