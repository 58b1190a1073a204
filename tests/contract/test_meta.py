"""Torch's own meta kernels give the shapes, dtypes and strides that the catalogue promises."""

from __future__ import annotations

import pytest
import torch
import torch.distributed._functional_collectives  # torch registers its meta kernels there

from comm_core import Group, run
from comm_core.catalog import CATALOG
from comm_core.collective import Lowering
from comm_core.testing import run_ranks
from comm_core.traced_transport import TracedTransport

from . import twins
from .case import WORLDS, Case
from .cases import CASES
from .judge import expected

EACH_ENTRY = pytest.mark.parametrize("name", CATALOG)
EACH_WORLD = pytest.mark.parametrize("world", WORLDS)


def on_meta(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def nowhere(world: int, rank: int) -> Group:
    return Group(name="nowhere", rank=rank, world=world, ranks=tuple(range(world)), backend="meta")


def same(got: torch.Tensor, want: torch.Tensor, case: Case, contiguous: bool) -> None:
    assert got.device.type == "meta"
    assert (got.shape, got.dtype) == (want.shape, want.dtype), case.label
    assert got.is_contiguous() or not contiguous, f"{case.label}: strides {got.stride()} of {tuple(got.shape)}"


@EACH_ENTRY
@EACH_WORLD
def test_the_traced_kernel_has_the_promised_shape_and_strides(name: str, world: int) -> None:
    entry = CATALOG[name]
    for case in CASES[name](world):
        wants = expected(name, case)
        for rank, x in enumerate(case.inputs()):
            parsed = entry.check(x, world, rank, **case.params[rank])
            got = entry.kernel(TracedTransport(nowhere(world, rank)), on_meta(x), **parsed).wait()
            same(got, wants[rank], case, contiguous=entry.lowering is not Lowering.WAIT)


@EACH_ENTRY
@EACH_WORLD
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


def eagerly(group: Group) -> list[str]:
    """Call everything on meta tensors, with and without a gradient; say which call gives something else."""
    found = []
    for name, entry in CATALOG.items():
        for case in CASES[name](group.world):
            want, params = expected(name, case)[group.rank], case.params[group.rank]
            plain, leaf = (on_meta(case.inputs()[group.rank]) for _ in range(2))
            results = run(entry, plain, group, **params), run(entry, leaf.requires_grad_(), group, **params)
            (slope,) = torch.autograd.grad(results[1].sum(), leaf)
            parts = [*(got.detach() for got in results), slope]
            wants = [(want.shape, want.dtype)] * 2 + [(leaf.shape, leaf.dtype)]
            if [(part.shape, part.dtype) for part in parts] != wants or not all(part.is_meta for part in parts):
                found.append(f"{name}, {case.label}")
    return found


def test_an_eager_call_of_a_meta_tensor_gives_one_and_moves_nothing(world_backend: str) -> None:
    """The ranks do not even meet: the last one calls nothing."""
    assert run_ranks(but_the_last, 2, world_backend) == [[], ["nothing"]]


def but_the_last(group: Group) -> list[str]:
    return eagerly(group) if group.rank == 0 else ["nothing"]
