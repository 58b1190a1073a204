"""The parser gives a tree also where garbage is collected whose finalizers parse."""

import ast
import gc
from collections.abc import Callable

import pytest

from kwindex import extract, syntax


class ParsesWhenItGoes:
    """Garbage in a cycle: its finalizer runs in whichever collection finds it, and parses there."""

    gone = 0

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        compile("(\n1 + (2 * (3))\n)", "", "eval", ast.PyCF_ONLY_AST)
        ParsesWhenItGoes.gone += 1


@pytest.mark.parametrize("parse", [syntax.syntax_tree, extract.parse])
def test_collections_while_a_tree_is_made_do_no_harm(parse: Callable[[str], ast.Module]) -> None:
    text = "\n".join(f"def f{number}(x): return (x + ({number} * (x - 1)))" for number in range(2_000))
    before, kept = gc.get_threshold(), ParsesWhenItGoes.gone
    gc.set_threshold(50, 2, 2)
    try:
        for _ in range(5):
            for _ in range(30):
                ParsesWhenItGoes()
            assert len(parse(text).body) == 2_000
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert ParsesWhenItGoes.gone == kept + 150


def test_the_collector_is_left_as_it_was() -> None:
    was = gc.isenabled()
    try:
        for state in (False, True):
            (gc.enable if state else gc.disable)()
            syntax.syntax_tree("x = 1")
            assert gc.isenabled() is state
    finally:
        (gc.enable if was else gc.disable)()
