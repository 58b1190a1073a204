"""Python's parser, used where garbage may be collected: the one place that calls `ast.parse`.

While Python 3.11 turns its own tree into `ast` nodes, it keeps the depth in one variable of the interpreter. A
collection in between may run finalizers; if one of them parses (formatting a traceback does), the depth is off
afterwards, and the outer call ends with "SystemError: AST constructor recursion depth mismatch". So no collection
runs in between.
"""

import ast
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps the collector of reference cycles from running."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def syntax_tree(text: str | bytes) -> ast.Module:
    """Returns the syntax tree of a module's text.

    Raises:
        SyntaxError: The text is not Python.

    Example:
        >>> [type(node).__name__ for node in syntax_tree("import os").body]
        ['Import']
    """
    with collector_paused():
        return ast.parse(text)
