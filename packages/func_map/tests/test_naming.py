"""Names of arguments, for every kind of parameter."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from func_map.naming import InputNames, Leaf, OutputNames, keyword_parameters, positional_parameters, title


def body(q: Any, /, kv: Any, *more: Any, scale: Any = 1, **rest: Any) -> None: ...


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0, "argument 'q' (positional 0)"),
        (2, "argument 'kv'['a'][1] (positional 1)"),
        (3, "argument 'more'[0] (positional 2)"),
        (4, "argument 'more'[1] (positional 3)"),
        (5, "kwargs['scale']"),
        (7, "kwargs['other'][0][1]"),
    ],
)
def test_every_leaf_has_its_name(index: int, name: str) -> None:
    names = InputNames(body, (1, {"a": (2, 3)}, 4, 5), {"scale": 6, "other": [(7, 8)]})
    assert str(Leaf(names, index)) == f"local_map(body), {name}"


def test_callables_without_signature_or_name() -> None:
    assert InputNames(dict, (1,), {}).leaf(0) == "local_map(dict), positional 0"
    assert title(functools.partial(body, 1)) == "local_map(partial)"
    assert keyword_parameters(dict) is None
    assert keyword_parameters(body) is None
    assert keyword_parameters(lambda x, *, y: None) == ("x", "y")
    assert positional_parameters(body) == (("q", "kv"), "more")


def test_outputs() -> None:
    assert OutputNames(body, 1).leaf(0) == "local_map(body), output"
    assert OutputNames(body, [1, {"k": (2,)}]).leaf(1) == "local_map(body), output[1]['k'][0]"
