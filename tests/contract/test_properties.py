"""The definition holds for shapes, dims, splits, dtypes and group sizes that nobody chose by hand."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comm_core import World

from .bodies import adjoint, by_run
from .case import BITWISE, COMPLEX, DTYPES, FLOATS, LINEAR, ORDERED, Case
from .cases import exchange
from .judge import complaints
from .test_adjoint import breaches

bounded = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
worlds = st.integers(1, 4)
layouts = st.sampled_from(["contiguous", "transposed", "strided"])


@st.composite
def placed(draw: st.DrawFn, name: str, dtype: torch.dtype | None = None, only_linear: bool = False) -> Case:
    """A call of one entry with the same shape on every rank."""
    world, chosen = draw(worlds), dtype or draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    params: dict[str, Any] = {}
    if name in ("all_gather", "reduce_scatter"):
        params["dim"] = dim
    if name in ("all_reduce", "reduce_scatter"):
        params["reduce_op"] = draw(st.sampled_from(LINEAR if only_linear else defined_ops(chosen)))
    if name == "reduce_scatter":
        shape[dim] *= world
    if name == "broadcast":
        params["src"] = draw(st.integers(0, world - 1))
    if name == "permute":
        order = draw(st.permutations(range(world)))
        params["destinations"] = [target if draw(st.booleans()) else -1 for target in order]
    return Case("drawn", (tuple(shape),) * world, (params,) * world, draw(layouts), chosen)


def defined_ops(dtype: torch.dtype) -> tuple[str, ...]:
    if dtype in COMPLEX:
        return LINEAR
    return (*ORDERED, "avg") if dtype in FLOATS else ORDERED + BITWISE


@st.composite
def exchanged(draw: st.DrawFn, dtype: torch.dtype | None = None) -> Case:
    """An all_to_all with any matrix of sizes."""
    world = draw(worlds)
    sizes = st.lists(st.integers(0, 3), min_size=world, max_size=world)
    rows = draw(st.lists(sizes, min_size=world, max_size=world))
    rest = tuple(draw(st.lists(st.integers(0, 2), max_size=2)))
    case = exchange("drawn", rows, rest, draw(layouts))
    return Case(case.label, case.shapes, case.params, case.layout, dtype or draw(st.sampled_from(DTYPES)))


def check_values(name: str, case: Case) -> None:
    assert complaints([case], World(case.world).run(by_run, name, [case]), name) == []


def check_adjoint(name: str, case: Case) -> None:
    assert breaches(name, [case], World(case.world).run(adjoint, name, [case])) == []


PLACED = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "permute")


@bounded
@given(st.sampled_from(PLACED).flatmap(lambda name: st.tuples(st.just(name), placed(name))))
def test_values(drawn: tuple[str, Case]) -> None:
    check_values(*drawn)


@bounded
@given(exchanged())
def test_values_of_all_to_all(case: Case) -> None:
    check_values("all_to_all", case)


@bounded
@given(
    st.sampled_from(PLACED).flatmap(
        lambda name: st.tuples(st.just(name), placed(name, torch.float64, only_linear=True))
    )
)
def test_the_adjoint_identity(drawn: tuple[str, Case]) -> None:
    check_adjoint(*drawn)


@bounded
@given(exchanged(torch.float64))
def test_the_adjoint_identity_of_all_to_all(case: Case) -> None:
    check_adjoint("all_to_all", case)
