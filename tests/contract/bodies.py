"""What one rank does in these tests; the same functions run on real ranks and in the simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from comm_core import Group, SimulatedGroup, run, transport
from comm_core.catalog import CATALOG

from .case import Case, integers
from .judge import Answer

Rank = Group | SimulatedGroup


def attempt(call: Callable[[], torch.Tensor]) -> Answer:
    """The call's result, or its error in words, so that one wrong case does not hide the others."""
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def by_run(group: Rank, name: str, cases: Sequence[Case]) -> list[Answer]:
    """Run each case through the public door."""
    return [
        attempt(
            lambda case=case: run(  # type: ignore[misc]
                CATALOG[name], case.inputs()[group.rank], group, **case.params[group.rank]
            )
        )
        for case in cases
    ]


def by_kernel(group: Rank, name: str, cases: Sequence[Case]) -> list[Answer]:
    """Run each case through the entry's kernel on the group's transport."""
    entry = CATALOG[name]

    def through(case: Case) -> torch.Tensor:
        x = case.inputs()[group.rank]
        parsed = entry.check(x, group.world, group.rank, **case.params[group.rank])
        return entry.kernel(transport(group), x, **parsed).wait()

    return [attempt(lambda case=case: through(case)) for case in cases]  # type: ignore[misc]


def several(group: Rank, jobs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]) -> dict[str, Any]:
    """Do several bodies in one go, for the sake of one start of the ranks."""
    return {label: body(group, *args) for label, (body, args) in jobs.items()}


@dataclass(frozen=True)
class Adjoint:
    """One rank's part of the identity sum <Cx, y> == sum <x, C'y>, and of its derivative by y."""

    x: torch.Tensor
    y: torch.Tensor
    forward: torch.Tensor
    backward: torch.Tensor
    z: torch.Tensor
    again: torch.Tensor  # d<C'y, z> / dy, which is Cz


def inner(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The real inner product."""
    product = one.conj() * other
    return (product.real if product.is_complex() else product).sum()


def adjoint(group: Rank, name: str, cases: Sequence[Case], seed: int = 0) -> list[Adjoint | str]:
    """Forward, backward and double backward of each case."""
    return [attempt(lambda case=case: one_adjoint(group, name, case, seed)) for case in cases]  # type: ignore


def one_adjoint(group: Rank, name: str, case: Case, seed: int) -> Adjoint:
    params = case.params[group.rank]
    divided = params.get("reduce_op") == "avg"
    x = case.inputs(seed)[group.rank].requires_grad_()
    forward = run(CATALOG[name], x, group, **params)
    y = integers(tuple(forward.shape), x.dtype, 1000 + 10 * seed + group.rank, divided).requires_grad_()
    (backward,) = torch.autograd.grad(inner(y, forward), x, create_graph=True)
    z = integers(tuple(x.shape), x.dtype, 2000 + 10 * seed + group.rank, divided)
    (again,) = torch.autograd.grad(inner(z, backward), y)
    done = [t.detach() for t in (x, y, forward, backward, z, again)]
    return Adjoint(*done)


def by_vmap(group: Rank, name: str, cases: Sequence[Case], batch: int) -> list[Answer]:
    """Batch each case at every position, one from the back among them; the batch comes out in front."""
    answers = []
    for case in cases:
        stacked = [case.inputs(seed)[group.rank] for seed in range(batch)]
        for at in range(-1, stacked[0].ndim + 1):
            answers.append(attempt(lambda case=case, at=at, x=stacked: batched(group, name, case, at, x)))  # type: ignore
    return answers


def batched(group: Rank, name: str, case: Case, at: int, stacked: list[torch.Tensor]) -> torch.Tensor:
    def one(x: torch.Tensor) -> torch.Tensor:
        return run(CATALOG[name], x, group, **case.params[group.rank])

    return torch.vmap(one, in_dims=at)(torch.stack(stacked, at))
