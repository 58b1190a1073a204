"""Messages that code gives its users, as the templates that they are written as."""

import ast
import keyword
import re

from kwindex.render import cut, expression, string_of

LONGEST_TEMPLATE = 380
_HOLE = "{…}"
_HOLES = re.compile(r"\{[^{}]*\}|…$")
_PERCENT = re.compile(r"%(?:\(\w+\))?[#0 +-]*[\d*]*(?:\.[\d*]+)?[sdrifgxXeEc]")


def template(node: ast.expr | None) -> str:
    """Returns the text of a string expression, its computed parts as holes in braces; '' for any other.

    Example:
        >>> [template(ast.parse(text, mode="eval").body) for text in ("f'got {x!r}'", "'%d of ' % n + str(m)", "x")]
        ['got {x}', '{…} of {…}', '']
    """
    text = _template(node, 0) if node is not None else ""
    return cut(text, LONGEST_TEMPLATE) if _HOLES.sub("", text).strip() else ""


def _template(node: ast.expr, depth: int) -> str:
    literal = string_of(node)
    if literal is not None:
        return literal
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(part) for part in node.values)
    if isinstance(node, ast.BinOp) and depth < 50:
        if isinstance(node.op, ast.Mod):
            return _PERCENT.sub(_HOLE, _template(node.left, depth + 1)).replace("%%", "%")
        if isinstance(node.op, ast.Add):
            left, right = _template(node.left, depth + 1), _template(node.right, depth + 1)
            return f"{left or _HOLE}{right or _HOLE}" if left or right else ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return _template(node.func.value, depth + 1)
    return ""


def _part(node: ast.expr) -> str:
    if isinstance(node, ast.FormattedValue):
        return "{" + expression(node.value, 40).replace("{", "(").replace("}", ")") + "}"
    return string_of(node) or ""


def raised(node: ast.Raise) -> str:
    """Returns what a traceback would show of a raise statement: `Error: template`, '' where it holds no text.

    Several texts, as of an error made from keywords, stand in their order with holes between them.

    Example:
        >>> raised(ast.parse("raise ShapeError(where='gather', got=f'{n} ranks')").body[0])
        'ShapeError: gather{…}{n} ranks'
    """
    call = node.exc
    if not isinstance(call, ast.Call):
        return ""
    values = [*call.args, *(word.value for word in call.keywords)]
    text = cut(_HOLE.join(filter(None, map(template, values))), LONGEST_TEMPLATE)
    error = expression(call.func)
    return f"{error}: {text}" if text and "(" not in error else ""


_WARNINGS = {"DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"}


def deprecation(node: ast.expr, decorates: bool) -> str:
    """Returns the text with which a call of `warnings.warn` or a decorator says that something is deprecated.

    Example:
        >>> deprecation(ast.parse("warnings.warn('f is old, use g', FutureWarning)", mode="eval").body, False)
        'f is old, use g'
        >>> deprecation(ast.parse("deprecated('use g')", mode="eval").body, True)
        'use g'
    """
    if not isinstance(node, ast.Call) or not node.args:
        return ""
    callee = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if decorates:
        return template(node.args[0]) if callee == "deprecated" else ""
    if callee not in {"warn", "warn_once"}:
        return ""
    categories = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "category")]
    named = any(expression(category).rpartition(".")[2] in _WARNINGS for category in categories)
    return template(node.args[0]) if named else ""


_NAME = r"[`'\"]*(?P<name>[A-Za-z_]\w*(?:(?:\.|::)\w+)*(?:\(\))?)"
_REPLACED = (
    re.compile(rf"(?:please|instead|should|must|,|;|\.|:|^)?\s*\buse\s+(?:the\s+)?{_NAME}", re.IGNORECASE),
    re.compile(rf"(?:in favou?r of|replaced (?:by|with)|switch to|migrate to|renamed to)\s+(?:the\s+)?{_NAME}", re.I),
)


def replacement(text: str) -> str:
    """Returns the name that a text tells to use instead; '' unless what it names is surely an identifier.

    Example:
        >>> replacement("reduce_op is deprecated, please use `torch.distributed.ReduceOp` instead")
        'torch.distributed.ReduceOp'
        >>> replacement("Do not use this any longer; use another way.")
        ''
    """
    for pattern in _REPLACED:
        for found in pattern.finditer(text):
            name = found["name"]
            if keyword.iskeyword(name):
                continue
            quoted = found[0][-len(name) - 1] in "`'\""
            if quoted or "_" in name or "." in name or name.endswith("()") or re.search(r"[a-z][A-Z]", name):
                return name.removesuffix("()")
    return ""
