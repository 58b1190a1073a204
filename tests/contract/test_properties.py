"""The definition holds for shapes, dims, splits, dtypes and group sizes that nobody chose by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comm_core import World
from comm_core.catalog import CATALOG
from comm_core.collective import Missing

from .bodies import adjoint, by_run
from .case import BITWISE, COMPLEX, DTYPES, FLOATS, LINEAR, ORDERED, Case
from .drawing import ALONG_DIM, ALONG_ROWS, calls_of, few
from .judge import complaints
from .test_adjoint import breaches

bounded = settings(
    max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
layouts = st.sampled_from(["contiguous", "transposed", "strided"])


@st.composite
def calls(draw: st.DrawFn, name: str, dtype: torch.dtype | None = None, linear: bool = False) -> Case:
    """A call of an entry on every rank, of any shape that fits it."""
    world = draw(st.sampled_from((3, 2, 4, 1)))
    chosen = dtype or draw(st.sampled_from(DTYPES))
    fewest = 1 if name in ALONG_DIM | ALONG_ROWS else 0
    shape = draw(st.lists(few, min_size=fewest, max_size=3))
    params, sizes = draw(calls_of(name, world, len(shape), LINEAR if linear else defined_ops(chosen)))
    shapes = []
    for of, size in zip(params, sizes, strict=True):
        dim = of.get("dim", 0) % max(len(shape), 1)
        shapes.append(tuple(shape if size is None else [*shape[:dim], size, *shape[dim + 1 :]]))
    return Case("drawn", tuple(shapes), tuple(params), draw(layouts) if shape else "contiguous", chosen)


def defined_ops(dtype: torch.dtype) -> tuple[str, ...]:
    if dtype in COMPLEX:
        return LINEAR
    return (*ORDERED, "avg") if dtype in FLOATS else ORDERED + BITWISE


@pytest.mark.parametrize("name", CATALOG)
def test_values(name: str) -> None:
    @bounded
    @given(calls(name))
    def hold(case: Case) -> None:
        assert complaints([case], World(case.world).run(by_run, name, [case]), name) == []

    hold()


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if not isinstance(entry.gradient, Missing)])
def test_the_adjoint_identity(name: str) -> None:
    @bounded
    @given(calls(name, torch.float64, linear=True))
    def hold(case: Case) -> None:
        assert breaches(name, [case], World(case.world).run(adjoint, name, [case])) == []

    hold()
