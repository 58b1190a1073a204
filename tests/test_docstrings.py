"""Every example in a docstring runs and prints what it says; so do the examples of private functions."""

from __future__ import annotations

import doctest
import importlib
import io
from functools import cache

import pytest

from tools.gen.sources import Distribution, Module, distributions

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [module for distribution in distributions() for module in distribution.modules]


@cache
def run_examples(name: str) -> tuple[int, str]:
    """Runs the examples of one module; returns how many there were and what went wrong."""
    said = io.StringIO()
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in doctest.DocTestFinder().find(module):
        runner.run(test, out=said.write)
    return runner.tries, said.getvalue()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_the_examples_of_a_module_run(module: Module) -> None:
    if module.name.endswith("__main__"):
        pytest.skip("importing it would run the program")
    _, problems = run_examples(module.name)
    assert not problems, problems


@pytest.mark.parametrize("distribution", [d for d in distributions() if d.package], ids=lambda d: d.name)
def test_every_package_has_examples(distribution: Distribution) -> None:
    names = [module.name for module in distribution.modules if not module.name.endswith("__main__")]
    assert sum(run_examples(name)[0] for name in names) > 0
