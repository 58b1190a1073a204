"""Kernels that lay out what they send and receive: the definition's values, however the input lies and is split."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from comm_core import World, catalog, launch, transport
from comm_core.catalog import blocks, reduce_scatter_v
from comm_core.errors import ArgumentError
from comm_core_pytest import Ranks

ALL = pytest.mark.world(1, 2, 3, 5)
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "stepped": lambda x: torch.stack([x, torch.full_like(x, 5)], -1)[..., 0],
    "expanded": lambda x: x[:1].expand(x.shape),
}
MIXED = "another one on each rank"


def values(rank: int, shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> torch.Tensor:
    """Return numbers of which every sum and product is exact, and that differ between ranks."""
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).view(shape)
    laid = list(LAYOUTS)[rank % len(LAYOUTS)] if layout == MIXED else layout
    return LAYOUTS[laid](((numbers * (rank + 1) + rank) % 7 - 3).to(dtype))


def shares(world: int) -> list[tuple[int, ...]]:
    """Return ways to share rows out: evenly, nearly so, one above the other, most to one, some with none."""
    n = world
    return [
        (6,) * n,
        tuple(12 + (rank == 0) - (rank == n - 1) for rank in range(n)),
        tuple(rank + 1 for rank in range(n)),
        (*[1] * (n - 1), 9),
        (7, *[0] * (n - 1)),
        tuple(3 * (rank % 2) for rank in range(n)),
    ]


def gathers(n: int) -> Iterator[tuple[str, list[tuple[int, ...]], dict[str, Any]]]:
    for dim in (0, 1, -1):
        yield "all_gather", [(3, 2, 4)] * n, {"dim": dim}
        for sizes in shares(n):
            shapes = [tuple(size if place == dim % 3 else 4 for place in range(3)) for size in sizes]
            yield "all_gather_v", shapes, {"dim": dim, "sizes": sizes}
            for dst in {0, n - 1}:
                yield "gather", shapes, {"dst": dst, "dim": dim, "sizes": sizes}


def prefixes(n: int) -> Iterator[tuple[str, list[tuple[int, ...]], dict[str, Any]]]:
    for name, word, reverse in itertools.product(("scan", "exscan"), ("sum", "max"), (False, True)):
        yield name, [(5, 3)] * n, {"reduce_op": word, "reverse": reverse}


def reductions(n: int) -> Iterator[tuple[str, list[tuple[int, ...]], dict[str, Any]]]:
    for sizes, word in itertools.product(shares(n), ("sum", "avg", "product")):
        rows = sum(sizes)
        for shape, dim in [
            ((rows,), 0),
            ((rows, 3), 0),
            ((rows, 9), 0),
            ((1, rows, 2), 1),
            ((4, rows), 1),
            ((2, 3, rows), 2),
        ]:
            yield "reduce_scatter_v", [shape] * n, {"reduce_op": word, "dim": dim, "sizes": sizes}


def wrong(
    group: Any, calls: Callable[[int], Any], dtype: torch.dtype = torch.float64, factors: Sequence[float] = (1.0,)
) -> list[str]:
    """Return the calls whose result is not that of the definition, which is told all ranks' tensors.

    Ranks take turns with the factors, and those whose factor is not 1 have the kernel multiply what it sends.
    """
    found, wire, n = [], transport(group), group.world
    for (name, shapes, given), layout in itertools.product(calls(n), (*LAYOUTS, MIXED)):
        entry = catalog.CATALOG[name]
        inputs = [values(rank, shape, layout, dtype) for rank, shape in enumerate(shapes)]
        of_ranks = [factors[rank % len(factors)] for rank in range(n)]
        parsed = [entry.check(x, n, rank, **given) for rank, x in enumerate(inputs)]
        sent = [x if factor == 1.0 else x * factor for x, factor in zip(inputs, of_ranks, strict=True)]
        right, before = entry.oracle(sent, parsed)[group.rank], inputs[group.rank].clone()
        mine = of_ranks[group.rank]
        filled = {} if mine == 1.0 else {"fill": functools.partial(blocks.multiplied, factor=mine)}
        got = entry.kernel(wire, inputs[group.rank], **filled, **parsed[group.rank]).wait()
        if got.dtype is not dtype or any(
            not torch.equal(x.double(), y.double()) for x, y in ((got, right), (inputs[group.rank], before))
        ):
            found.append(f"{name} {given} of {layout} {shapes[group.rank]}")
    return found


def shared_out(n: int) -> Iterator[tuple[str, list[tuple[int, ...]], dict[str, Any]]]:
    """Return what the other lists have not: the calls that share out along a dim, evenly or from one rank."""
    for dim in (0, 1, -1):
        yield "reduce_scatter", [(2 * n, 3 * n)] * n, {"reduce_op": "sum", "dim": dim}
        for sizes, src in itertools.product(shares(n), {0, n - 1}):
            rows = [sum(sizes) if rank == src else 0 for rank in range(n)]
            shapes = [tuple(many if place == dim % 3 else 4 for place in range(3)) for many in rows]
            yield "scatter", shapes, {"src": src, "dim": dim, "sizes": sizes}


def gathered(group: Any) -> list[str]:
    return wrong(group, gathers)


def scanned(group: Any) -> list[str]:
    return wrong(group, prefixes)


def reduced(group: Any) -> list[str]:
    return wrong(group, reductions)


@ALL
@pytest.mark.parametrize("body", [gathered, scanned, reduced])
def test_every_layout_has_the_values_of_the_definition(world: Ranks, body: Callable[[Any], list[str]]) -> None:
    assert world.run(body) == [[]] * world.size
    if body is not reduced:
        assert world.simulate(body) == [[]] * world.size


def filled(group: Any, spared: dict[str, int], factors: Sequence[float]) -> list[str]:
    lists = (gathers, shared_out, prefixes, reductions)
    with sparing(spared):
        return [one for calls in lists for one in wrong(group, calls, factors=factors)]


@pytest.mark.world(1, 2, 3)
@pytest.mark.parametrize(("spared", "factors"), [({}, (2.0, -1.0)), ({"_PAGE": 0, "_SPARED": 0}, (1.0, 2.0))])
def test_a_kernel_fills_what_it_sends_and_meets_ranks_that_do_not(
    world: Ranks, spared: dict[str, int], factors: Sequence[float]
) -> None:
    assert world.run(filled, spared, factors) == [[]] * world.size


SPARED = [{"_PAGE": 0}, {"_PAGE": 0, "_SPARED": 0}]  # what the inputs here are all smaller than


WAYS = pytest.mark.parametrize(
    ("spared", "dtype"), [*((spared, torch.float64) for spared in SPARED), (SPARED[-1], torch.float8_e5m2)]
)


@ALL
@WAYS
def test_blocks_are_reduced_alike_where_a_page_counts(world: Ranks, spared: dict[str, int], dtype: torch.dtype) -> None:
    """Only so do inputs as small as these take the ways that larger ones take."""
    assert world.run(reduced_exactly, spared, dtype) == [[]] * world.size


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@WAYS
def test_simulated_ranks_do_so_too(size: int, spared: dict[str, int], dtype: torch.dtype) -> None:
    with sparing(spared):
        assert World(size).run(wrong, reductions, dtype) == [[]] * size


@contextlib.contextmanager
def sparing(spared: dict[str, int]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, many in spared.items():
            monkeypatch.setattr(reduce_scatter_v, name, many)
        yield


def reduced_exactly(group: Any, spared: dict[str, int], dtype: torch.dtype) -> list[str]:
    """Return what is wrong in a process of its own, which other tests use as well."""
    with sparing(spared):
        return wrong(group, reductions, dtype)


def launched(group: Any) -> tuple[bool, list[list[float]]]:
    x = torch.ones(2, 4 * group.world, requires_grad=True)
    y = launch(catalog.REDUCE_SCATTER_V, x, group, reduce_op="sum", dim=1, sizes=[4] * group.world).wait()
    return y.requires_grad, y.tolist()


@ALL
def test_what_is_launched_records_no_gradient(world: Ranks) -> None:
    assert world.run(launched) == world.simulate(launched) == [(False, [[world.size] * 4] * 2)] * world.size


def written_too_early(group: Any) -> list[str]:
    """Return what says that an input was written before the result was waited for; others moved copies of it."""
    said, n = [], group.world
    for sizes in shares(n):
        x = torch.arange(sum(sizes) * 2000.0).view(-1, 2000)
        want = (x * n).split(list(sizes))[group.rank].clone()
        pending = launch(catalog.REDUCE_SCATTER_V, x, group, reduce_op="sum", dim=0, sizes=sizes)
        x.fill_(-1.0)
        try:
            said += [] if torch.equal(pending.wait(), want) else [f"{sizes}: wrong"]
        except ArgumentError as error:
            said += [] if "written while it was being sent" in error.got else [error.got]
    return said


@pytest.mark.world(1, 2, 3, 4)
def test_a_write_before_the_wait_is_an_error_or_comes_too_late(world: Ranks) -> None:
    assert world.run(written_too_early) == [[]] * world.size


@pytest.mark.parametrize("dtype", sorted(blocks._COPIED_IN_A_ROW, key=str), ids=str)
def test_blocks_of_every_dtype_are_packed(dtype: torch.dtype) -> None:
    x = torch.arange(24, dtype=torch.uint8).view(4, 6)
    parts = [x.t()[:2], x[1:, ::2], x[:0], x]
    row = blocks.packed(x.view(dtype), [part.view(dtype) for part in parts])
    assert row.view(torch.uint8).tolist() == [number for part in parts for number in part.reshape(-1).tolist()]
    sent, room = blocks.in_place(x.t().view(dtype), 1, [3, 24, 5], 1)
    assert sent.view(torch.uint8).tolist() == x.t().tolist()
    assert room[3:27].data_ptr() == sent.data_ptr()
