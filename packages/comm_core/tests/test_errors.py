from __future__ import annotations

import builtins
import copy
import inspect
import pickle

import pytest

from comm_core import errors
from comm_core.errors import CommError, RankTimeoutError, ShapeError, said

BUILTINS = {
    "ArgumentError": ValueError,
    "GroupError": ValueError,
    "RankError": ValueError,
    "ReduceOpError": ValueError,
    "ShapeError": ValueError,
    "PlacementError": ValueError,
    "DtypeError": TypeError,
    "GradientError": RuntimeError,
    "MismatchError": RuntimeError,
    "DeadlockError": RuntimeError,
    "TransportError": RuntimeError,
    "RankFailedError": RuntimeError,
    "RankTimeoutError": TimeoutError,
}
SUBCLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, CommError) and kind is not CommError
}


def test_the_table_here_has_every_error() -> None:
    assert SUBCLASSES.keys() == BUILTINS.keys()


@pytest.mark.parametrize("name", SUBCLASSES)
def test_each_is_also_the_builtin_that_one_expects(name: str) -> None:
    with pytest.raises(BUILTINS[name], match="here: got this; need that; do so"):
        raise SUBCLASSES[name]("here", got="this", need="that", hint="do so")
    others = [kind for kind in (ValueError, TypeError, RuntimeError, TimeoutError) if kind is not BUILTINS[name]]
    assert not issubclass(SUBCLASSES[name], tuple(others))


@pytest.mark.parametrize("name", SUBCLASSES)
def test_what_was_said_survives_pickling_and_copying(name: str) -> None:
    error = SUBCLASSES[name]("here", got="this", need="that", hint="do so")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), error.again()):
        assert type(other) is type(error)
        assert other is not error
        assert (other.where, other.got, other.need, other.hint) == ("here", "this", "that", "do so")
        assert str(other) == str(error)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "here"),
        ({"got": "this"}, "here: got this"),
        ({"need": "that"}, "here: need that"),
        ({"hint": "do so"}, "here: do so"),
        ({"got": "this", "hint": "do so"}, "here: got this; do so"),
        ({"got": "this", "need": "that", "hint": "do so"}, "here: got this; need that; do so"),
    ],
)
def test_the_message_leaves_out_what_is_not_known(parts: dict[str, str], text: str) -> None:
    assert str(ShapeError("here", **parts)) == text
    assert str(RankTimeoutError("here", **parts)) == text


def test_each_says_in_its_docstring_what_went_wrong() -> None:
    assert all((kind.__doc__ or "").endswith(".") for kind in SUBCLASSES.values())


def test_none_hides_a_builtin() -> None:
    assert [name for name in SUBCLASSES if hasattr(builtins, name)] == []


class Loud:
    def __repr__(self) -> str:
        return "tensor([1, 2, 3])"


@pytest.mark.parametrize(
    "value", [Loud(), [Loud()], {"a": Loud()}, list(range(1000))], ids=["one", "list", "dict", "long"]
)
def test_a_value_that_is_not_small_and_plain_is_named_by_its_type(value: object) -> None:
    assert "tensor" not in said(value)
    assert len(said(value)) < 60


@pytest.mark.parametrize("value", [None, True, 3, -1.5, "sum"])
def test_a_plain_value_is_shown(value: object) -> None:
    assert said(value) == repr(value)
    assert said([value, value]) == repr([value, value]) or value is None
