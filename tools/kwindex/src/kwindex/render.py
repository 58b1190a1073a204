"""Short texts from syntax trees: signatures, values, and the first sentence of a docstring."""

import ast
import re

LONGEST_VALUE = 60
LONGEST_SIGNATURE = 400
LONGEST_SUMMARY = 240
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)(?<!\bcf)[.!?](?=\s|$)")

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
    try:
        text = _plain(node) or ast.unparse(node)
    except (RecursionError, ValueError):  # ValueError: an integer of more digits than Python prints
        return "…"
    return cut(text, longest)


def _plain(node: ast.expr) -> str:
    """Returns the text of the forms that nearly all annotations and defaults have, else ''."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _plain(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    if isinstance(node, ast.Constant):
        return "..." if node.value is Ellipsis else repr(node.value)
    if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Tuple):
        value, index = _plain(node.value), _plain(node.slice)
        return f"{value}[{index}]" if value and index else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        left, right = _plain(node.left), _plain(node.right)
        simple = not isinstance(node.right, ast.BinOp)
        return f"{left} | {right}" if left and right and simple else ""
    return ""


def cut(text: str, longest: int) -> str:
    r"""Returns the text on one line, at most so many characters, none of which acts on a terminal.

    Example:
        >>> cut("a  long\n text", 8), cut("\x1b[31mred", 8)
        ('a long …', '[31mred')
    """
    if not text.isprintable() or "  " in text:
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def parameters(arguments: ast.arguments) -> str:
    """Returns a parameter list without its parentheses.

    Example:
        >>> parameters(ast.parse("def f(a, /, b: int = 3, *, c=None, **d): pass").body[0].args)
        'a, /, b: int = 3, *, c=None, **d'
    """
    parts = []
    positional = [*arguments.posonlyargs, *arguments.args]
    undefaulted = len(positional) - len(arguments.defaults)
    for place, argument in enumerate(positional):
        default = arguments.defaults[place - undefaulted] if place >= undefaulted else None
        parts.append(_parameter(argument, default))
        if place + 1 == len(arguments.posonlyargs):
            parts.append("/")
    if arguments.vararg:
        parts.append("*" + _parameter(arguments.vararg, None))
    elif arguments.kwonlyargs:
        parts.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parts.append(_parameter(argument, default))
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
    return cut(f"{word}{node.name}({parameters(node.args)}){result}", LONGEST_SIGNATURE)


def class_signature(node: ast.ClassDef) -> str:
    """Returns the head line of a class.

    Example:
        >>> class_signature(ast.parse("class A(B, metaclass=M): pass").body[0])
        'class A(B, metaclass=M)'
    """
    bases = [expression(base) for base in node.bases]
    bases += [f"{word.arg or '**'}={expression(word.value)}" for word in node.keywords]
    return cut(f"class {node.name}({', '.join(bases)})" if bases else f"class {node.name}", LONGEST_SIGNATURE)


def assignment(name: str, annotation: ast.expr | None, value: ast.expr | None) -> str:
    """Returns a binding as it is written, its value cut short.

    Example:
        >>> tree = ast.parse("x: int = 3").body[0]
        >>> assignment("x", tree.annotation, tree.value)
        'x: int = 3'
    """
    kind = f": {expression(annotation)}" if annotation else ""
    return f"{name}{kind} = {expression(value)}" if value is not None else f"{name}{kind}"


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
