"""The rules per axis, without ranks: each is compared with the transpose of what the placement denotes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.distributed.tensor import Partial, Placement, Replicate, Shard

from comm_core.errors import PlacementError, ShapeError
from func_map.placements import (
    Invariant,
    check_spec,
    cotangent_of,
    dtensor_spec,
    gradient_of,
    is_spec,
    without_gradient,
    words,
)

S0, R, P, AVG = Shard(0), Replicate(), Partial(), Partial("avg")


class Sizes:
    """As much of a mesh as the rules look at."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.ndim = len(sizes)

    def size(self, axis: int) -> int:
        return self.sizes[axis]


def denotes(placement: Placement, n: int, size: int) -> torch.Tensor:
    """The matrix from all ranks' values, stacked, to the value that they stand for."""
    one = torch.eye(size, dtype=torch.float64)
    if isinstance(placement, Shard):
        return one
    if isinstance(placement, Replicate):  # legal values are equal, so any weights that add up to 1 do
        return torch.cat([one / n] * n, 1)
    return torch.cat([one / n if placement.reduce_op == "avg" else one] * n, 1)


def copies(placement: Placement, n: int, size: int) -> torch.Tensor:
    """The matrix from a value to all ranks' values."""
    one = torch.eye(size, dtype=torch.float64)
    return one if isinstance(placement, Shard) else torch.cat([one] * n, 0)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("placement", [S0, R, P, AVG], ids=repr)
def test_what_an_output_hands_the_body_is_the_transpose_of_what_it_denotes(placement: Placement, n: int) -> None:
    gradient = torch.linspace(1, 2, 6, dtype=torch.float64)
    want = denotes(placement, n, 6).t() @ gradient
    spec, divisor = cotangent_of((placement,), (R,), Sizes(n))  # type: ignore[arg-type]
    assert not spec[0].is_partial()
    assert torch.equal(copies(spec[0], n, 6) @ gradient / divisor, want)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("placement", [S0, R], ids=repr)
def test_what_an_input_makes_of_local_gradients_is_the_transpose_of_how_it_enters(placement: Placement, n: int) -> None:
    stacked = torch.linspace(1, 2, 6 if placement == S0 else 6 * n, dtype=torch.float64)
    want = copies(placement, n, 6).t() @ stacked
    (label,) = gradient_of((placement,))
    assert torch.allclose(denotes(label, n, 6) @ stacked, want)


def test_partial_inputs() -> None:
    # The body sees the sum only, so all ranks have the gradient of the sum; of the mean, an n-th part of it each.
    assert gradient_of((P, AVG)) == (R, P)


def test_rules_hold_per_axis() -> None:
    for pair in itertools.product([S0, R, P, AVG], repeat=2):
        assert gradient_of(pair) == gradient_of(pair[:1]) + gradient_of(pair[1:])
        spec, divisor = cotangent_of(pair, (R, R), Sizes(2, 3))  # type: ignore[arg-type]
        first, by_first = cotangent_of(pair[:1], (R,), Sizes(2))  # type: ignore[arg-type]
        second, by_second = cotangent_of(pair[1:], (R,), Sizes(3))  # type: ignore[arg-type]
        assert (spec, divisor) == (first + second, by_first * by_second)


def test_shares_that_arrive_for_a_replicated_output_are_handed_on_without_communication() -> None:
    assert cotangent_of((R,), (P,), Sizes(4)) == ((P,), 1)  # type: ignore[arg-type]
    assert cotangent_of((R,), (AVG,), Sizes(4)) == ((R,), 4)  # type: ignore[arg-type]


def test_invariant_is_its_own_dual_and_replicate_to_dtensor() -> None:
    assert repr(gradient_of((Invariant(),))) == "(Invariant(),)"
    spec, divisor = cotangent_of((Invariant(),), (P,), Sizes(4))  # type: ignore[arg-type]
    assert (repr(spec), divisor) == ("(Invariant(),)", 1)
    assert [type(p) for p in dtensor_spec((Invariant(), S0))] == [Replicate, Shard]


def test_reductions_without_an_adjoint() -> None:
    assert without_gradient((S0, R, P, AVG)) is None
    for op in ("max", "min", "product"):
        assert without_gradient((R, Partial(op))) == Partial(op)


def test_what_is_a_spec() -> None:
    assert is_spec([S0])
    assert is_spec((S0, R))
    for other in (None, (), [], S0, ([S0],), [S0, None], "S0", {"x": S0}):
        assert not is_spec(other)


def test_check_spec() -> None:
    mesh = Sizes(2, 2)
    assert check_spec([Shard(-1), R], mesh, 3, "x") == (Shard(2), R)  # type: ignore[arg-type]
    with pytest.raises(PlacementError, match="got 1 placement"):
        check_spec([R], mesh, 3, "x")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="since there is no dim"):
        check_spec([S0, R], mesh, 0, "x")  # type: ignore[arg-type]
    with pytest.raises(PlacementError, match="one reduction"):
        check_spec([P, Partial("max")], mesh, 0, "x")  # type: ignore[arg-type]
    assert words([S0, P, Invariant()]) == "[Shard(0), Partial(sum), Invariant()]"
