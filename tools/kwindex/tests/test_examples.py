"""Every example in the docstrings runs."""

import doctest
import importlib
import pkgutil

import pytest

import kwindex

MODULES = sorted(module.name for module in pkgutil.iter_modules(kwindex.__path__) if module.name != "__main__")


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_module_run(name: str) -> None:
    module = importlib.import_module(f"kwindex.{name}")
    assert doctest.testmod(module).failed == 0


def test_most_modules_have_examples() -> None:
    modules = [importlib.import_module(f"kwindex.{name}") for name in MODULES]
    counts = [sum(len(test.examples) for test in doctest.DocTestFinder().find(module)) for module in modules]
    assert sum(count > 0 for count in counts) >= 15
