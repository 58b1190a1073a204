"""A wrong argument raises the matching error at the call, saying what was got and what is needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comm_core import SimulatedGroup, World, run
from comm_core.catalog import CATALOG
from comm_core.errors import CommError, DtypeError

from .case import BITWISE, ORDERED
from .cases import CASES, REFUSED

WORLD = 3
ROWS = [(name, *row) for name, rows in REFUSED.items() for row in rows]


def refused(group: SimulatedGroup, name: str, x: Any, params: dict[str, Any]) -> CommError:
    with pytest.raises(CommError) as caught:
        run(CATALOG[name], x, group, **params)
    return caught.value


@pytest.mark.parametrize(("name", "label", "shape", "params", "kind"), ROWS, ids=[f"{r[0]}-{r[1]}" for r in ROWS])
def test_wrong_arguments(name: str, label: str, shape: Any, params: Any, kind: type[CommError]) -> None:
    for error in World(WORLD).run(refused, name, torch.zeros(shape), params):
        assert type(error) is kind
        assert error.where == name
        assert error.got
        assert error.need
        assert "tensor(" not in str(error)


@pytest.mark.parametrize("junk", [torch.ones(3), object(), 1.5, "sum2", ["sum"]], ids=lambda j: type(j).__name__)
@pytest.mark.parametrize("name", [name for name in CATALOG if CASES[name](3)[0].params[0]])
def test_any_parameter_of_a_wrong_type_is_a_comm_error_that_prints_no_tensor(name: str, junk: Any) -> None:
    case = CASES[name](WORLD)[0]
    for parameter in case.params[0]:
        params = {**case.params[0], parameter: junk}
        for error in World(WORLD).run(refused, name, case.inputs()[0], params):
            assert error.where == name
            assert "tensor(" not in str(error), parameter
            assert "object at 0x" not in str(error), parameter


@pytest.mark.parametrize("name", CATALOG)
def test_what_is_no_tensor_is_refused(name: str) -> None:
    params = CASES[name](WORLD)[0].params[0]
    for x in ([1.0, 2.0], 3, None):
        for error in World(WORLD).run(refused, name, x, params):
            assert isinstance(error, DtypeError)
            assert f"a {type(x).__name__}" in str(error)


WITH_REDUCE_OP = [name for name in CATALOG if "reduce_op" in CASES[name](1)[0].params[0]]


def without_gradient(group: SimulatedGroup, name: str, op: str) -> bool:
    case = CASES[name](group.world)[0]
    params = {**case.params[0], "reduce_op": op}
    x = case.inputs()[0].requires_grad_()
    with torch.no_grad():
        first = run(CATALOG[name], x, group, **params)
    return first.requires_grad or run(CATALOG[name], x.detach(), group, **params).requires_grad


@pytest.mark.parametrize("name", WITH_REDUCE_OP)
@pytest.mark.parametrize("op", ORDERED)
def test_without_a_wish_for_a_gradient_the_same_call_is_taken(name: str, op: str) -> None:
    assert World(WORLD).run(without_gradient, name, op) == [False] * WORLD


@pytest.mark.parametrize("name", WITH_REDUCE_OP)
def test_reduce_ops_that_mean_nothing_for_a_dtype(name: str) -> None:
    case = CASES[name](WORLD)[0]
    pairs = [(torch.int64, ("avg",)), (torch.float16, BITWISE), (torch.complex64, (*BITWISE, *ORDERED[1:]))]
    for dtype, ops in pairs:
        for op in ops:
            params = {**case.params[0], "reduce_op": op}
            for error in World(WORLD).run(refused, name, torch.zeros(case.shapes[0], dtype=dtype), params):
                assert repr(op) in error.got
                assert str(dtype) in error.got
