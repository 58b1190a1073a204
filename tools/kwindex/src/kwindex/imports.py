"""The names that an import statement binds, with relative modules resolved, and the conditions of a module."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

from kwindex.render import expression

TYPING = "for type checkers only"
_ABSENCE = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


class Binding(NamedTuple):
    """One name that an import statement binds."""

    bound: str
    """The name as the importing module uses it."""
    path: str
    """The dotted path that this name stands for."""
    target: str
    """The dotted path that the statement asks for: `a.b` where `import a.b` binds `a`."""
    statement: str
    """The statement for this name alone, its module resolved."""


def bindings(node: ast.Import | ast.ImportFrom, module: str, is_package: bool) -> Iterator[Binding]:
    """Yields what an import statement binds; `from __future__` binds nothing that anyone looks up.

    Example:
        >>> node = ast.parse("from ..tools import saw as s, drill").body[0]
        >>> [(b.bound, b.target) for b in bindings(node, "shop.back.bench", False)]
        [('s', 'shop.tools.saw'), ('drill', 'shop.tools.drill')]
    """
    if isinstance(node, ast.Import):
        for name in node.names:
            alias = f" as {name.asname}" if name.asname else ""
            bound = name.asname or name.name.split(".")[0]
            path = name.name if name.asname else bound
            yield Binding(bound, path, name.name, f"import {name.name}{alias}")
        return
    source = resolve(node.module or "", node.level, module, is_package)
    if source == "__future__":
        return
    for name in node.names:
        alias = f" as {name.asname}" if name.asname else ""
        target = source if name.name == "*" else f"{source}.{name.name}" if source else name.name
        yield Binding(name.asname or name.name, target, target, f"from {source} import {name.name}{alias}")


def resolve(written: str, level: int, module: str, is_package: bool) -> str:
    """Returns the module that `from <dots><written>` means in a module.

    One level more than there are packages resolves to what is written, its dots kept.

    Example:
        >>> resolve("lowering", 1, "torch._inductor.comm_lowering", False)
        'torch._inductor.lowering'
        >>> resolve("", 1, "torch._inductor", True)
        'torch._inductor'
        >>> resolve("x", 2, "script", False)
        '..x'
    """
    if level == 0:
        return written
    package = module.split(".") if is_package else module.split(".")[:-1]
    kept = len(package) - (level - 1)
    if kept <= 0:
        return "." * level + written
    return ".".join([*package[:kept], written] if written else package[:kept])


def conditions(test: ast.expr) -> tuple[str, str]:
    """Returns when the body of an `if` runs, and when its other branch does.

    Example:
        >>> [conditions(ast.parse(text, mode="eval").body) for text in ("x > 1", "not x")]
        [('if x > 1', 'unless x > 1'), ('if not x', 'if x')]
    """
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return f"if {expression(test)}", f"if {expression(test.operand)}"
    told = expression(test)
    return f"if {told}", f"unless {told}"


def catches_absence(caught: ast.expr | None) -> bool:
    """Says whether a handler of these errors is for a module that is missing, maybe among others.

    Example:
        >>> texts = "ImportError", "(A, Exception)", "KeyError"
        >>> [catches_absence(ast.parse(text, mode="eval").body) for text in texts]
        [True, True, False]
    """
    if isinstance(caught, ast.Tuple):
        return any(map(catches_absence, caught.elts))
    return caught is None or _last(caught) in _ABSENCE


def suppresses_absence(made: ast.expr) -> bool:
    """Says whether a `with` of this goes on where a module is missing.

    Example:
        >>> suppresses_absence(ast.parse("contextlib.suppress(ImportError)", mode="eval").body)
        True
    """
    return isinstance(made, ast.Call) and _last(made.func) == "suppress" and any(map(catches_absence, made.args))


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
