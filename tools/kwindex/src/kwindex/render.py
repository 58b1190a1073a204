"""Short texts from syntax trees: signatures, values, and the first sentence of a docstring."""

import ast
import re
from collections.abc import Callable
from math import isfinite
from typing import Any

LONGEST_VALUE = 60
LONGEST_SIGNATURE = 400
LONGEST_SUMMARY = 240
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)(?<!\be\.g.)(?<!\bi\.e.)(?<!\betc.)(?<!\bvs.)(?<!\bcf.)")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def expression(node: ast.expr | None, longest: int = LONGEST_VALUE) -> str:
    """Returns an expression as source text, cut with an ellipsis where it is long or too deep.

    Example:
        >>> expression(ast.parse("Tensor | None", mode="eval").body)
        'Tensor | None'
        >>> expression(ast.parse("[" + "1, " * 100 + "]", mode="eval").body, longest=8)
        '[1, 1, …'
    """
    if node is None:
        return ""
    if isinstance(node, ast.Name) and node.id.isascii() and len(node.id) <= longest:
        return node.id  # as most annotations are; this is the sooner way
    try:
        text = _plain(node, 4 * longest) or ast.unparse(node)
    except (RecursionError, ValueError):  # ValueError: an integer of more digits than Python prints
        return "…"
    return cut(text, longest)


def _plain(node: ast.expr, budget: int) -> str:
    """Returns the text of the forms that nearly all annotations and values have, as `ast.unparse` writes them, else ''.

    What is longer than the budget may end early: it is cut anyway.
    """
    writer = _WRITERS.get(type(node))
    return writer(node, budget) if writer is not None else ""


def _name(node: Any, budget: int) -> str:
    return str(node.id)


def _attribute(node: Any, budget: int) -> str:
    inner = "" if isinstance(node.value, ast.Constant) else _plain(node.value, budget)
    return f"{inner}.{node.attr}" if inner else ""


def _constant(node: Any, budget: int) -> str:
    value = node.value
    if node.kind is not None or isinstance(value, complex) or (isinstance(value, float) and not isfinite(value)):
        return ""
    return "..." if value is Ellipsis else repr(value)


def _subscript(node: Any, budget: int) -> str:
    value = "" if isinstance(node.value, ast.Constant) else _plain(node.value, budget)
    if isinstance(node.slice, ast.Tuple) and len(node.slice.elts) > 1:
        index = _items(node.slice.elts, budget)
    else:
        index = _plain(node.slice, budget)
    return f"{value}[{index}]" if value and index else ""


def _union(node: Any, budget: int) -> str:
    if not isinstance(node.op, ast.BitOr) or isinstance(node.right, ast.BinOp):
        return ""
    left, right = _plain(node.left, budget), _plain(node.right, budget)
    return f"{left} | {right}" if left and right else ""


def _call(node: Any, budget: int) -> str:
    callee = "" if isinstance(node.func, ast.Constant) else _plain(node.func, budget)
    if not callee or (node.args and node.keywords and any(word.arg is None for word in node.keywords)):
        return ""
    positional = _items(node.args, budget)
    if not positional and node.args:
        return ""
    parts = [positional] if positional else []
    for word in node.keywords:
        value = _plain(word.value, budget)
        if not value or word.arg is None:
            return ""
        parts.append(f"{word.arg}={value}")
    return f"{callee}({', '.join(parts)})"


def _list(node: Any, budget: int) -> str:
    inner = _items(node.elts, budget)
    return f"[{inner}]" if inner or not node.elts else ""


def _tuple(node: Any, budget: int) -> str:
    inner = _items(node.elts, budget)
    if not inner:
        return "" if node.elts else "()"
    return f"({inner},)" if len(node.elts) == 1 else f"({inner})"


def _dict(node: Any, budget: int) -> str:
    parts, length = [], 0
    for key, item in zip(node.keys, node.values, strict=True):
        left = _plain(key, budget) if key is not None else ""
        right = _plain(item, budget)
        if not left or not right:
            return ""
        parts.append(f"{left}: {right}")
        length += len(parts[-1])
        if length > budget:
            break
    return f"{{{', '.join(parts)}}}"


def _items(nodes: list[ast.expr], budget: int) -> str:
    """Returns expressions with commas between them, '' where one has another form."""
    parts, length = [], 0
    for node in nodes:
        text = _plain(node, budget)
        if not text:
            return ""
        parts.append(text)
        length += len(text)
        if length > budget:
            break
    return ", ".join(parts)


_WRITERS: dict[type[ast.expr], Callable[[Any, int], str]] = {
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Constant: _constant,
    ast.Subscript: _subscript,
    ast.BinOp: _union,
    ast.Call: _call,
    ast.List: _list,
    ast.Tuple: _tuple,
    ast.Dict: _dict,
}


def cut(text: str, longest: int) -> str:
    r"""Returns the text on one line, at most so many characters, none of which acts on a terminal.

    Example:
        >>> cut("a  long\n text", 8), cut("\x1b[31mred", 8)
        ('a long …', '[31mred')
    """
    if not text.isprintable() or "  " in text:
        text = " ".join(text.split())
        if not text.isprintable():  # few texts hold more than line ends that act on a terminal
            text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def parameters(arguments: ast.arguments) -> str:
    """Returns a parameter list without its parentheses.

    Example:
        >>> parameters(ast.parse("def f(a, /, b: int = 3, *, c=None, **d): pass").body[0].args)
        'a, /, b: int = 3, *, c=None, **d'
    """
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
    parts = list(map(_parameter, positional, defaults))
    if arguments.posonlyargs:
        parts.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        parts.append("*" + _parameter(arguments.vararg, None))
    elif arguments.kwonlyargs:
        parts.append("*")
    parts += map(_parameter, arguments.kwonlyargs, arguments.kw_defaults)
    if arguments.kwarg:
        parts.append("**" + _parameter(arguments.kwarg, None))
    return ", ".join(parts)


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    if argument.annotation is None:
        return argument.arg if default is None else f"{argument.arg}={expression(default)}"
    text = f"{argument.arg}: {expression(argument.annotation)}"
    return text if default is None else f"{text} = {expression(default)}"


def function_signature(node: Function) -> str:
    """Returns the signature of a function.

    Example:
        >>> function_signature(ast.parse("async def f(x: int) -> str: pass").body[0])
        'async f(x: int) -> str'
    """
    word = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    result = f" -> {expression(node.returns)}" if node.returns else ""
    return cut(f"{word}{node.name}{generic_in(node)}({parameters(node.args)}){result}", LONGEST_SIGNATURE)


def generic_in(node: ast.stmt) -> str:
    """Returns the type parameters of a definition, in their brackets; only Python 3.12 and newer ones have any."""
    told = getattr(node, "type_params", None)
    return f"[{', '.join(map(ast.unparse, told))}]" if told else ""


def class_signature(node: ast.ClassDef) -> str:
    """Returns the head line of a class.

    Example:
        >>> class_signature(ast.parse("class A(B, metaclass=M): pass").body[0])
        'class A(B, metaclass=M)'
    """
    bases = [expression(base) for base in node.bases]
    bases += [f"{word.arg or '**'}={expression(word.value)}" for word in node.keywords]
    head = f"class {node.name}{generic_in(node)}"
    return cut(f"{head}({', '.join(bases)})" if bases else head, LONGEST_SIGNATURE)


def assignment(name: str, annotation: ast.expr | None, value: ast.expr | None) -> str:
    """Returns a binding as it is written, its value cut short.

    Example:
        >>> tree = ast.parse("x: int = 3").body[0]
        >>> assignment("x", tree.annotation, tree.value)
        'x: int = 3'
    """
    kind = f": {expression(annotation)}" if annotation else ""
    return f"{name}{kind} = {expression(value)}" if value is not None else f"{name}{kind}"


def unpacked(targets: list[ast.expr], value: ast.expr | None) -> list[tuple[ast.expr, ast.expr | None]]:
    """Returns each of several targets with the value that it takes, None where that does not stand in the source.

    Example:
        >>> node = ast.parse("a, b = 1, 2").body[0]
        >>> [(target.id, own.value) for target, own in unpacked(node.targets[0].elts, node.value)]
        [('a', 1), ('b', 2)]
    """
    values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    if len(values) != len(targets) or any(isinstance(one, ast.Starred) for one in (*targets, *values)):
        return [(target, None) for target in targets]
    return list(zip(targets, values, strict=True))


def unpacking(node: ast.Assign) -> str:
    """Returns a whole assignment, for a name that takes a part of its value.

    Example:
        >>> unpacking(ast.parse("a, *b = f()").body[0])
        '(a, *b) = f()'
    """
    return " = ".join(map(expression, (*node.targets, node.value)))


def first_sentence(docstring: str | None) -> str:
    r"""Returns the first sentence of a docstring on one line.

    Example:
        >>> first_sentence("Waits, e.g. for a peer. Then\n    returns.")
        'Waits, e.g. for a peer.'
    """
    if not docstring:
        return ""
    paragraph = docstring.strip().split("\n\n", 1)[0][: 4 * LONGEST_SUMMARY]
    text = " ".join(paragraph.split())
    end = _SENTENCE_END.search(text)
    return cut(text[: end.end()] if end else text, LONGEST_SUMMARY)


def docstring_of(body: list[ast.stmt]) -> str | None:
    """Returns the docstring that opens a body, if one does.

    Example:
        >>> docstring_of(ast.parse("'''Hello.'''").body)
        'Hello.'
    """
    return string_of(body[0].value) if body and isinstance(body[0], ast.Expr) else None


def string_of(node: ast.expr | None) -> str | None:
    """Returns the value of a string literal, None for every other expression.

    Example:
        >>> string_of(ast.parse("'a' 'b'", mode="eval").body)
        'ab'
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def printable(path: str) -> str:
    r"""Returns a path as text that acts on no terminal and that every encoding can hold.

    Example:
        >>> printable("caf\udce9/\x1b[31m.py")
        'caf\\udce9/\\x1b[31m.py'
    """
    return path if path.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)
