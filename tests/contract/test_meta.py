"""Torch's own meta kernels give the shapes, dtypes and strides that the catalogue promises."""

from __future__ import annotations

import pytest
import torch
import torch.distributed._functional_collectives  # torch registers its meta kernels there

from comm_core import Group
from comm_core.catalog import CATALOG
from comm_core.collective import Lowering
from comm_core.transports import TracedTransport

from . import twins
from .case import WORLDS, Case
from .cases import CASES
from .judge import expected

pytestmark = [pytest.mark.parametrize("name", CATALOG), pytest.mark.parametrize("world", WORLDS)]


def on_meta(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def nowhere(world: int, rank: int) -> Group:
    return Group(name="nowhere", rank=rank, world=world, ranks=tuple(range(world)), backend="meta")


def same(got: torch.Tensor, want: torch.Tensor, case: Case, contiguous: bool) -> None:
    assert got.device.type == "meta"
    assert (got.shape, got.dtype) == (want.shape, want.dtype), case.label
    assert got.is_contiguous() or not contiguous, f"{case.label}: strides {got.stride()} of {tuple(got.shape)}"


def test_the_traced_kernel_has_the_promised_shape_and_strides(name: str, world: int) -> None:
    entry = CATALOG[name]
    for case in CASES[name](world):
        wants = expected(name, case)
        for rank, x in enumerate(case.inputs()):
            parsed = entry.check(x, world, rank, **case.params[rank])
            got = entry.kernel(TracedTransport(nowhere(world, rank)), on_meta(x), **parsed).wait()
            same(got, wants[rank], case, contiguous=entry.lowering is not Lowering.WAIT)


def test_the_twin_has_the_shape_rules_shape(name: str, world: int) -> None:
    twin = CATALOG[name].twin
    if not isinstance(twin, str):
        pytest.skip(twin.why)
    checked = 0
    for case in CASES[name](world):
        wants = expected(name, case)
        for rank, x in enumerate(case.inputs()):
            parsed = CATALOG[name].check(x, world, rank, **case.params[rank])
            if parsed.get("dim", 0) == 0:  # torch's ops know dim 0 only
                x = on_meta(x.contiguous())
                got = twins.call(name, twin, x, parsed, world, "nowhere")
                shape = CATALOG[name].shape(tuple(x.shape), world, rank, **parsed)
                assert tuple(got.shape) == shape == tuple(wants[rank].shape), case.label
                assert got.dtype == x.dtype
                checked += 1
    assert checked >= world
