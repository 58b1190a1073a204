"""What each package's door exports: it exists, it is documented with an example that runs, and it changes visibly."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json

import pytest

from tools.gen.doors import PublicName, public_names
from tools.gen.sources import ROOT, Distribution, distributions
from tools.gen.surface import SNAPSHOT, snapshot

PACKAGES = [d for d in distributions() if d.package]
NAMES = [(d, one) for d in PACKAGES for one in public_names(d)]


def resolve(distribution: Distribution, name: str) -> object:
    return getattr(importlib.import_module(str(distribution.package)), name)


def label(value: object) -> str:
    return str(value.package if isinstance(value, Distribution) else getattr(value, "name", value))


@pytest.mark.parametrize("distribution", PACKAGES, ids=label)
def test_a_package_says_what_is_public(distribution: Distribution) -> None:
    module = importlib.import_module(str(distribution.package))
    exported = list(module.__all__)
    assert exported
    assert len(set(exported)) == len(exported)
    assert not [name for name in exported if name.startswith("_") or not hasattr(module, name)]
    assert [one.name for one in public_names(distribution)] == exported, "the site sees other names than Python"


@pytest.mark.parametrize(("distribution", "one"), NAMES, ids=label)
def test_a_public_name_is_documented(distribution: Distribution, one: PublicName) -> None:
    found = resolve(distribution, one.name)
    if one.kind == "attribute":
        pytest.skip("a value or alias; its module's page shows it")
    assert one.summary, f"{one.path} has no docstring"
    assert one.summary.rstrip("`)").endswith((".", "?", "!")), f"{one.path}: {one.summary!r} is no sentence"
    assert inspect.getdoc(found)


def has_example(found: object) -> bool:
    """Whether a name's docstring, or one of its methods', has an example; `test_docstrings` runs them all."""
    return any(test.examples for test in doctest.DocTestFinder().find(found, "name"))


@pytest.mark.parametrize(("distribution", "one"), NAMES, ids=label)
def test_a_public_function_or_class_has_an_example(distribution: Distribution, one: PublicName) -> None:
    found = resolve(distribution, one.name)
    if not (inspect.isfunction(found) or inspect.isclass(found)) or is_error(found):
        pytest.skip("no function and no class of behaviour")
    if is_plain_record(found):
        pytest.skip("a record or protocol without behaviour of its own: whoever returns it shows it")
    assert has_example(found), f"{one.path} has no example"


def is_error(found: object) -> bool:
    return inspect.isclass(found) and issubclass(found, Exception)


def is_plain_record(found: object) -> bool:
    """A dataclass, named tuple, enum or protocol."""
    return inspect.isclass(found) and (
        hasattr(found, "_fields")
        or hasattr(found, "__dataclass_fields__")
        or hasattr(found, "__members__")
        or getattr(found, "_is_protocol", False)
    )


def test_the_public_names_are_those_of_the_snapshot() -> None:
    now = json.loads(snapshot(distributions()).text)
    then = json.loads((ROOT / SNAPSHOT).read_text(encoding="utf-8"))
    assert now == then, "if the change is meant: nox -s gen, and commit tests/data/public_surface.json"
