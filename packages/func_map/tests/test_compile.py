"""Functions that call a mapped function, compiled without graph breaks: same values, same gradients, same refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor

from comm_core import Group, catalog, run
from comm_core.testing import run_ranks
from func_map import Invariant, local_map

S0, S1, R, P = Shard(0), Shard(1), Replicate(), Partial()


def numbers(*shape: int) -> torch.Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


def attend(q: Any, kv: Any, *, w: Any) -> Any:
    """Two outputs, a container and a keyword argument."""
    z = torch.softmax(q @ kv[0].t(), -1) @ kv[1]
    return z @ w, q.sum(0)


def compare(group: Group, backend: str) -> list[float]:
    """Return the largest differences between compiled and eager: the loss, then the gradients."""
    mesh = DeviceMesh.from_group(group.process_group, "cpu")
    q, k, v, w = (numbers(*shape) for shape in ((12, 3), (4, 3), (4, 2), (2, 3)))
    leaves = [distribute_tensor(x, mesh, [p]).requires_grad_() for x, p in ((q, S0), (k, R), (v, R), (w, R))]
    attention = local_map(attend, ([S0], [P]), {"q": [S0], "kv": [R], "w": [R]})

    @local_map(out_placements=[R], in_placements=([S0],))
    def total(x: torch.Tensor) -> torch.Tensor:
        return run(catalog.ALL_REDUCE, x.sum(0).sin(), group, reduce_op="sum")

    invariant = local_map(lambda x: x * 2, [Invariant()], ([Invariant()],))

    def program(q: Any, k: Any, v: Any, w: Any) -> torch.Tensor:
        y, s = attention(q * 2, [k, v], w=w)
        return (total(y) * invariant(s.redistribute(placements=[R]))).sum().full_tensor()

    eager = program(*leaves)
    wanted = torch.autograd.grad(eager, leaves)
    compiled = torch.compile(program, backend=backend, fullgraph=True)(*leaves)
    got = torch.autograd.grad(compiled, leaves)
    pairs = [(eager, compiled), *[(a.full_tensor(), b.full_tensor()) for a, b in zip(wanted, got, strict=True)]]
    return [(a - b).abs().max().item() for a, b in pairs]


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_compiled_is_eager(world: int) -> None:
    for differences in run_ranks(compare, world=world, args=("aot_eager",)):
        assert len(differences) == 5
        assert max(differences) < 1e-12


def uneven(group: Group) -> list[str]:
    """Uneven outputs, without graph breaks and with them: what is said."""
    mesh = DeviceMesh.from_group(group.process_group, "cpu")
    x = distribute_tensor(numbers(5, 2), mesh, [S0])
    mapped = local_map(lambda x: x * 2, [S0])
    said = []
    for fullgraph in (True, False):
        torch.compiler.reset()
        try:
            torch.compile(lambda x: mapped(x), backend="aot_eager", fullgraph=fullgraph)(x)
            said.append("nothing")
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    torch.testing.assert_close(torch.compiler.disable(mapped)(x).full_tensor(), 2 * numbers(5, 2))
    return said


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2])
def test_uneven_outputs_are_refused_rather_than_wrong(world: int) -> None:
    for strict, loose in run_ranks(uneven, world=world):
        assert ("ShapeError" in strict) == (world > 1)
        assert loose.startswith("ShapeError: local_map(<lambda>), output: got an output sharded" if world > 1 else "no")
