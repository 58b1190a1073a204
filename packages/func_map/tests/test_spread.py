"""Flat sequences, trees, prefixes and names: which leaf gets which spec."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed.tensor import Replicate, Shard

from comm_core.errors import ArgumentError, PlacementError
from func_map.naming import InputNames, OutputNames
from func_map.pytree_compat import flatten
from func_map.spread import AS_IT_IS, parse_inputs, spread_inputs, spread_outputs

A, B = [Shard(0)], [Replicate()]
T = torch.zeros(())


def body(x: Any, y: Any = None, *rest: Any, z: Any = None) -> None: ...


def inputs(given: Any, *args: Any, **kwargs: Any) -> list[Any]:
    specs = parse_inputs("in_placements", given, body)
    return spread_inputs(specs, flatten((args, kwargs))[0], InputNames(body, args, kwargs))


def outputs(given: Any, out: Any) -> list[Any]:
    return spread_outputs(given, out, flatten(out)[0], OutputNames(body, out))


@pytest.mark.parametrize(
    ("given", "args", "kwargs", "want"),
    [
        (None, (T, 1), {"z": T}, [AS_IT_IS] * 3),
        (A, (T, [T]), {"z": T}, [A] * 3),
        ((A, B), (T, T), {"z": T}, [A, B, AS_IT_IS]),
        ((A, None, B), ([T, 1], T), {}, [A, None, B]),
        ((A, B), ([T, T], T), {}, [A, A, B]),
        (([A, B], {"k": B}), ([T, T], {"k": [T, 2]}), {}, [A, B, B, B]),
        ({"z": [A, None]}, (T,), {"z": [T, 3]}, [AS_IT_IS, A, None]),
        ({"y": B}, (T, [T, T]), {}, [AS_IT_IS, B, B]),
        ({"x": A}, (), {"x": T}, [A]),
        ({"rest": A}, (T, T, T, T), {}, [AS_IT_IS, AS_IT_IS, A, A]),
        ({"rest": (A, B)}, (T, T, T, T), {}, [AS_IT_IS, AS_IT_IS, A, B]),
        ((), (), {"z": T}, [AS_IT_IS]),
    ],
)
def test_inputs(given: Any, args: Any, kwargs: Any, want: Any) -> None:
    assert inputs(given, *args, **kwargs) == want


@pytest.mark.parametrize(
    ("given", "out", "want"),
    [
        (A, T, [A]),
        (tuple(A), T, [tuple(A)]),
        ((A,), T, [A]),
        ((A, B), (T, T), [A, B]),
        ([A, None], (T, 1), [A, None]),
        ((A, B, None), (T, [T, 2]), [A, B, None]),
        ((A, B), (T, [T, T]), [A, B, B]),
        ({"b": A, "a": B}, {"a": T, "b": T}, [B, A]),
        (None, (1, None), [None, None]),
    ],
)
def test_outputs(given: Any, out: Any, want: Any) -> None:
    assert outputs(given, out) == want


@pytest.mark.parametrize(
    ("given", "args"),
    [
        ((A,), (T, T)),
        ((A, [A]), (T, [T, T])),
        ((A, {"k": A}), (T, {"j": T})),
        ((A, "as you like"), (T, T)),
        ((Shard(0), None), (T, T)),
    ],
)
def test_structures_that_do_not_fit(given: Any, args: Any) -> None:
    with pytest.raises(PlacementError, match=r"local_map\(body\)"):
        inputs(given, *args)


def test_options_of_no_known_form() -> None:
    with pytest.raises(PlacementError, match=r"got a int; need a sequence"):
        parse_inputs("in_placements", 3, body)
    with pytest.raises(ArgumentError, match="got the name 'w'"):
        parse_inputs("in_placements", {"w": A}, body)
    assert parse_inputs("in_placements", {"w": A}, lambda **more: None).given == {"w": A}
