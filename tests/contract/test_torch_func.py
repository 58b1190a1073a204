"""torch.func over every entry of the catalogue: grad, vmap, jvp, jacrev, jacfwd and what they make together.

Beside them `autograd.functional`, whose batches of cotangents and tangents torch.func knows nothing of, and
`autograd.forward_ad`.

On each rank a function takes a vector and gives a vector: something that is not linear, the collective, something that
is not linear. The oracle is the same in one process (`lists.py`), where torch differentiates through all ranks at once,
in float64. A transform runs on all ranks at once, so a rank's jacrev pulls the same place of all ranks' results back,
and its jacfwd pushes the same place of all ranks' inputs: the sums over ranks of the Jacobian's blocks.

Forward mode is not for several threads (torch counts its levels in a global), so those transforms run on real ranks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad, functional
from torch.func import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from comm_core import SimulatedGroup, World, run
from comm_core.catalog import CATALOG
from comm_core.collective import Missing
from comm_core.premul import premul_sum
from comm_core.testing import run_ranks

from .case import BITWISE, Case
from .cases import CASES
from .judge import expected, wrong
from .lists import GRADUAL, LISTS, multiplied_first

ENTRIES = [
    name
    for name, entry in CATALOG.items()
    if not isinstance(entry.gradient, Missing) or not isinstance(entry.batch, Missing)
]
BATCH = 2
Vector = Callable[[torch.Tensor], torch.Tensor]
Wanted = list[dict[str, torch.Tensor]]  # what each transform gives on each rank


def cases(name: str, world: int, more: int = 2) -> list[Case]:
    """The typical case with every reduce op that has a derivative, and a few more that have elements, in float64."""
    full = [of for of in CASES[name](world) if of.layout == "contiguous" and sum(map(torch.Size.numel, sizes(of)))]
    typical, *others = full
    every_op = [
        replace(typical, label=f"typical {op}", params=tuple({**of, "reduce_op": op} for of in typical.params))
        for op in (GRADUAL if "reduce_op" in typical.params[0] else ())
    ]
    if every_op:
        by_rank = [{**of, "reduce_op": premul_sum(rank - 1.5)} for rank, of in enumerate(typical.params)]
        every_op.append(replace(typical, label="typical premul_sum", params=tuple(by_rank)))
    return [replace(case, dtype=torch.float64) for case in [*(every_op or [typical]), *others[:more]]]


def sizes(case: Case) -> list[torch.Size]:
    return [torch.Size(shape) for shape in case.shapes]


def results_of(name: str, case: Case) -> list[int]:
    """How many elements each rank's result has."""
    return [y.numel() for y in multiplied_first(name, case.inputs(), case.params)]


def lengths(name: str, case: Case) -> tuple[int, int]:
    """How long all ranks' vectors are, so that the transforms take as many steps on each."""
    return max(size.numel() for size in sizes(case)), max(results_of(name, case))


def point(case: Case, rank: int, long: int, seed: int) -> torch.Tensor:
    """Few different numbers, so that ties and zeros abound."""
    generator = torch.Generator().manual_seed(10 * seed + rank)
    return torch.randint(-1, 3, (long,), generator=generator).double()


def before(z: torch.Tensor, rank: int, case: Case) -> torch.Tensor:
    shape = sizes(case)[rank]
    x = z[: shape.numel()].view(shape)
    return x + 0.5 * (rank + 1) * x * x


def after(y: torch.Tensor, rank: int, long: int, bent: int | None) -> torch.Tensor:
    finite = torch.where(y.isfinite(), y, torch.zeros_like(y))  # an exscan's first rank has infinities for min and max
    flat = torch.nn.functional.pad(finite.flatten(), (0, long - y.numel()))
    return (rank + 2) * flat + (0.25 * flat * flat if bent in (None, rank) else 0.0)


# What is done with a rank's function `f`, a point, a direction and a batch of points; a second, with all ranks'.


def transforms(f: Vector, z: torch.Tensor, t: torch.Tensor, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    def loss(z: torch.Tensor) -> torch.Tensor:
        return f(z).sum()

    def pushed(z: torch.Tensor) -> torch.Tensor:
        return grad(lambda z: (slope(z) * t).sum())(z)  # type: ignore[no-any-return]

    def once(z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        leaf = z.detach().requires_grad_()
        (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        return torch.autograd.grad(first, leaf, rows, is_grads_batched=True)[0]

    slope = grad(loss)
    return {
        "value": f(z),
        "grad": grad(loss)(z),
        "vjp": vjp(f, z)[1](torch.ones_like(f(z)))[0],
        "jacrev": jacrev(f)(z),
        "jacobian": functional.jacobian(f, z, vectorize=True),
        "grad of grad": pushed(z),
        "third": grad(lambda z: (pushed(z) * t).sum())(z),
        "jacrev of grad": jacrev(slope)(z),
        "batch of cotangents": once(z, torch.eye(len(z), dtype=z.dtype)),
        "vmap": vmap(f)(batch),
        "vmap, in_dims=1": vmap(f, in_dims=1, out_dims=1)(batch.t()).t(),
        "vmap of vmap": vmap(vmap(f))(torch.stack([batch, batch]))[1],
        "vmap of grad": vmap(slope)(batch),
        "vmap of grad of grad": vmap(pushed)(batch),
        "grad of vmap of grad": grad(lambda batch: (vmap(slope)(batch) * t).sum())(batch),
        "grad of vmap": grad(lambda batch: vmap(f)(batch).sum())(batch),
    }


def forward_transforms(f: Vector, z: torch.Tensor, t: torch.Tensor, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    def pushed(z: torch.Tensor) -> torch.Tensor:
        return jvp(f, (z,), (t,))[1]  # type: ignore[no-any-return]

    def dual_of_grad() -> torch.Tensor:
        with forward_ad.dual_level():
            leaf = z.clone().requires_grad_()
            (slope,) = torch.autograd.grad(f(forward_ad.make_dual(leaf, t)).sum(), leaf, create_graph=True)
            return forward_ad.unpack_dual(slope).tangent.detach()

    return {
        "dual of grad": dual_of_grad(),
        "jacobian, forward": functional.jacobian(f, z, vectorize=True, strategy="forward-mode"),
        "hessian, forward": functional.hessian(
            lambda z: f(z).sum(), z, vectorize=True, outer_jacobian_strategy="forward-mode"
        ),
        "vmap of grad": vmap(grad(lambda z: f(z).sum()))(batch),
        "jvp": pushed(z),
        "jacfwd": jacfwd(f)(z),
        "hessian": hessian(lambda z: f(z).sum())(z),
        "jvp of grad": jvp(grad(lambda z: f(z).sum()), (z,), (t,))[1],
        "grad of jvp": grad(lambda z: pushed(z).sum())(z),
        "vmap of jvp": vmap(pushed)(batch),
        "jvp of vmap": jvp(vmap(f), (batch,), (t.expand_as(batch),))[1],
    }


def linear_map(f: Vector, z: torch.Tensor, t: torch.Tensor, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"linearize": linearize(f, z)[1](t)}


def of_ours(
    group: Any, name: str, drawn: list[Case], bent: int | None = None, linear: bool = False
) -> list[dict[str, torch.Tensor]]:
    found = []
    done = linear_map if linear else transforms if isinstance(group, SimulatedGroup) else forward_transforms
    for case in drawn:
        at, long = lengths(name, case)

        def f(z: torch.Tensor, case: Case = case, long: int = long) -> torch.Tensor:
            y = run(CATALOG[name], before(z, group.rank, case), group, **case.params[group.rank])
            return after(y, group.rank, long, bent)

        z, t, *rows = (point(case, group.rank, at, seed) for seed in range(2 + BATCH))
        found.append(done(f, z, t, torch.stack(rows)))
    return found


def of_one_process(name: str, case: Case, bent: int | None) -> Wanted:
    ranks, (at, long) = range(case.world), lengths(name, case)

    def world(*zs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        xs = [before(z, rank, case) for rank, z in enumerate(zs)]
        return tuple(after(y, rank, long, bent) for rank, y in enumerate(multiplied_first(name, xs, case.params)))

    def total(*zs: torch.Tensor) -> torch.Tensor:
        return torch.stack(world(*zs)).sum()

    zs, ts, *batch = ([point(case, rank, at, seed) for rank in ranks] for seed in range(2 + BATCH))
    every, places = range(len(batch)), tuple(ranks)
    slope = grad(total, argnums=places)
    jacobian = jacrev(world, argnums=places)(*zs)  # by the result's rank, then by the input's

    def push(*zs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return jvp(slope, tuple(zs), tuple(ts))[1]  # type: ignore[no-any-return]

    curved, third = push(*zs), jvp(push, tuple(zs), tuple(ts))[1]
    curves = jacrev(slope, argnums=places)(*zs)  # by the slope's rank, then by the input's
    curved_of = [push(*one) for one in batch]
    slopes, values = [slope(*one) for one in batch], [world(*one) for one in batch]
    tangents = [jvp(world, tuple(one), tuple(ts))[1] for one in batch]
    tangent = jvp(world, tuple(zs), tuple(ts))[1]

    def wanted(rank: int) -> dict[str, torch.Tensor]:
        of_batch = torch.stack([values[i][rank] for i in every])
        slopes_of_batch = torch.stack([slopes[i][rank] for i in every])
        tangents_of_batch = torch.stack([tangents[i][rank] for i in every])
        return {
            "value": world(*zs)[rank],
            **dict.fromkeys(("grad", "vjp"), slope(*zs)[rank]),
            **dict.fromkeys(("jvp", "linearize"), tangent[rank]),
            **dict.fromkeys(("jacrev", "jacobian"), sum(jacobian[other][rank] for other in ranks)),
            **dict.fromkeys(("jacfwd", "jacobian, forward"), sum(jacobian[rank][other] for other in ranks)),
            **dict.fromkeys(("grad of grad", "jvp of grad", "grad of jvp", "dual of grad"), curved[rank]),
            "third": third[rank],
            **dict.fromkeys(("jacrev of grad", "batch of cotangents"), sum(curves[other][rank] for other in ranks)),
            **dict.fromkeys(("hessian", "hessian, forward"), sum(curves[rank][other] for other in ranks)),
            **dict.fromkeys(
                ("vmap of grad of grad", "grad of vmap of grad"), torch.stack([curved_of[i][rank] for i in every])
            ),
            **dict.fromkeys(("vmap", "vmap, in_dims=1", "vmap of vmap"), of_batch),
            **dict.fromkeys(("vmap of grad", "grad of vmap"), slopes_of_batch),
            **dict.fromkeys(("vmap of jvp", "jvp of vmap"), tangents_of_batch),
        }

    return [wanted(rank) for rank in ranks]


def compare(
    name: str, drawn: list[Case], by_rank: list[list[dict[str, torch.Tensor]]], bent: int | None = None
) -> None:
    judge(name, drawn, by_rank, [of_one_process(name, case, bent) for case in drawn])


def judge(name: str, drawn: list[Case], by_rank: list[list[dict[str, torch.Tensor]]], wanted: list[Wanted]) -> None:
    for index, (case, by_one) in enumerate(zip(drawn, wanted, strict=True)):
        for rank, want in enumerate(by_one):
            for transform, got in by_rank[rank][index].items():
                said = f"{name}, {case.label}, {transform}, rank {rank} of {case.world}"
                torch.testing.assert_close(
                    got, want[transform], rtol=1e-12, atol=1e-12, msg=lambda why, said=said: f"{said}: {why}"
                )


def test_every_entry_has_a_definition_that_can_be_differentiated() -> None:
    assert set(LISTS) == set(CATALOG) == set(ENTRIES)


@pytest.mark.parametrize("bent", [None, 0, 2])
@pytest.mark.parametrize("name", ENTRIES)
def test_in_the_simulator(name: str, bent: int | None) -> None:
    """Also where one rank's loss alone is bent: what the others run in a second backward may not depend on that."""
    drawn = cases(name, 3)
    compare(name, drawn, World(3).run(of_ours, name, drawn, bent), bent)


@pytest.mark.parametrize("name", ENTRIES)
def test_on_one_rank(name: str) -> None:
    drawn = cases(name, 1, 0)
    compare(name, drawn, World(1).run(of_ours, name, drawn))


def all_of_ours(group: Any, drawn: dict[str, list[Case]], bent: int | None) -> dict[str, list[dict[str, torch.Tensor]]]:
    return {name: of_ours(group, name, of, bent) for name, of in drawn.items()}


@cache
def wanted_on_two_ranks(bent: int | None) -> dict[str, list[Wanted]]:
    """What the ranks are to find, whichever backend they are on."""
    return {name: [of_one_process(name, case, bent) for case in cases(name, 2, 0)] for name in ENTRIES}


@pytest.mark.parametrize("bent", [None, 1])
def test_forward_mode_on_real_ranks(world_backend: str, bent: int | None) -> None:
    drawn = {name: cases(name, 2, 0) for name in ENTRIES}
    by_rank = run_ranks(all_of_ours, 2, world_backend, args=(drawn, bent))
    for name, of in drawn.items():
        judge(name, of, [found[name] for found in by_rank], wanted_on_two_ranks(bent)[name])


def all_linearized(group: Any, drawn: dict[str, list[Case]]) -> dict[str, list[dict[str, torch.Tensor]]]:
    return {name: of_ours(group, name, of, linear=True) for name, of in drawn.items()}


def test_linearize_on_real_ranks(world_backend: str) -> None:
    """Each case is traced, which takes its time: so the first and the last reduce op of each entry."""
    of_two = {name: cases(name, 2, 0) for name in ENTRIES}
    drawn = {name: of if len(of) == 1 else [of[0], of[-1]] for name, of in of_two.items()}
    by_rank = run_ranks(all_linearized, 2, world_backend, timeout=150.0, args=(drawn,))
    for name, of in drawn.items():
        wanted = [of_one_process(name, case, None) for case in of]
        judge(name, of, [found[name] for found in by_rank], wanted)


def batched(group: Any, name: str, drawn: list[Case]) -> list[torch.Tensor]:
    found = []
    for case in drawn:
        batch = torch.stack([case.inputs(seed)[group.rank] for seed in range(BATCH)])
        params = case.params[group.rank]
        found.append(vmap(lambda x, params=params: run(CATALOG[name], x, group, **params))(batch))
    return found


@pytest.mark.parametrize("name", [name for name in ENTRIES if "reduce_op" in CATALOG[name].parameters])
def test_a_batch_of_integers_with_every_reduce_op(name: str) -> None:
    """Also with those that have no derivative."""
    (typical,) = [case for case in CASES[name](3) if case.label == "typical"]
    drawn = [
        replace(typical, dtype=dtype, params=tuple({**of, "reduce_op": op} for of in typical.params))
        for dtype, op in itertools.product((torch.int64, torch.bool), ("sum", "product", "min", "max", *BITWISE))
    ]
    for rank, answers in enumerate(World(3).run(batched, name, drawn)):
        for case, got in zip(drawn, answers, strict=True):
            want = torch.stack([expected(name, case, seed)[rank] for seed in range(BATCH)])
            assert wrong(got, want) == "", f"{case.params[0]}, {case.dtype}, rank {rank}"


def from_outside(group: Any, name: str) -> list[bool]:
    """Inside vmap, a tensor that no transform has wrapped, and that requires grad."""
    found = []
    for case in cases(name, group.world, 0):
        params = case.params[group.rank]
        x = case.inputs()[group.rank].requires_grad_()
        one = torch.where((y := run(CATALOG[name], x, group, **params)).isfinite(), y, torch.zeros_like(y))
        both = vmap(lambda scale, x=x, params=params: scale * run(CATALOG[name], x, group, **params))(torch.ones(2))
        both = torch.where(both.isfinite(), both, torch.zeros_like(both))
        slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (one, both)]
        found.append(torch.equal(2 * slopes[0], slopes[1]))
    return found


@pytest.mark.parametrize("name", ENTRIES)
def test_a_tensor_from_outside_a_vmap_has_its_gradient(name: str) -> None:
    assert all(map(all, World(3).run(from_outside, name)))
