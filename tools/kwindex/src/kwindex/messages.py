"""Messages that code gives its users, as the templates that they are written as."""

import ast
import functools
import keyword
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from kwindex.render import cut, expression, string_of
from kwindex.tabled import rows

LONGEST_TEMPLATE = 380
_HOLE = "{…}"
_HOLES = re.compile(r"\{[^{}]*\}|…$")
_PERCENT = re.compile(r"%(?:\(\w+\))?[#0 +-]*[\d*]*(?:\.[\d*]+)?[sdrifgxXeEc]")
_DEEPEST, _MOST, _MOST_CALLS = 50, 4, 16
_SAME_TEXT = {"format", "strip", "rstrip", "lstrip"}
_OF_TEXT = {"dedent", "cleandoc"}


class Names(Protocol):
    """What tells what names are bound to, and what functions return, at the place at hand."""

    given: dict[str, str]
    """The texts that names in f-strings stand for."""

    @property
    def values(self) -> "Look":
        """What gives the expressions that a name may be bound to."""

    def surely(self, name: str) -> Sequence[ast.expr]:
        """Returns the one expression that a name stands for, nothing where it may be another."""

    def returned(self, call: ast.Call, text_of: Callable[[ast.expr], str]) -> "tuple[Sequence[ast.expr], Names]":
        """Returns the expressions that a call may return, and what tells of the names in them."""


Look = Callable[[str], Sequence[ast.expr]]
"""What gives the expressions that a name may be bound to at the place at hand."""


def unknown(name: str) -> Sequence[ast.expr]:
    """Returns nothing: no name is known.

    Example:
        >>> unknown("x")
        ()
    """
    return ()


class Looked:
    """What a function tells of names; of what is called nothing is known."""

    def __init__(self, look: Look = unknown) -> None:
        self.given: dict[str, str] = {}
        self.values, self.surely = look, unknown

    def returned(self, call: ast.Call, text_of: Callable[[ast.expr], str]) -> "tuple[Sequence[ast.expr], Names]":
        """Returns nothing."""
        return (), self


UNKNOWN = Looked()


def templates(nodes: Sequence[ast.expr], names: Names = UNKNOWN) -> list[str]:
    """Returns the texts that string expressions may be, holes between them, their computed parts as holes in braces.

    There is more than one where a text is one or the other, or is bound to a name in several places.

    Example:
        >>> def of(text):
        ...     return templates([ast.parse(text, mode="eval").body])
        >>> of("f'got {x!r}'"), of("'%d of ' % n + str(m)"), of("x"), of("'a' if x else 'b'")
        (['got {x}'], ['{…} of {…}'], [], ['a', 'b'])
    """
    reader = _Reader(names)
    found: dict[str, None] = {}
    while reader.turn < min(reader.turns, reader.most):
        parts = [text for node in nodes if _HOLES.sub("", text := reader.text_of_turn(node)).strip()]
        if parts:
            found[cut(_HOLE.join(cut(part, LONGEST_TEMPLATE) for part in parts), LONGEST_TEMPLATE)] = None
        reader.turn += 1
    return list(found)


def template(node: ast.expr | None) -> str:
    """Returns the text of a string expression, its computed parts as holes in braces; '' for any other.

    Example:
        >>> template(ast.parse("'{} is {}'.format(1, 2)", mode="eval").body)
        '{} is {}'
    """
    return next(iter(templates([node])), "") if node is not None else ""


class _Reader:
    """Reads string expressions; where one may be several texts, `turn` says which, and `turns` how many there are."""

    def __init__(self, names: Names) -> None:
        self.turn, self.turns, self.most = 0, 1, _MOST
        self._names = names
        self._calls = 0

    def text_of_turn(self, node: ast.expr) -> str:
        """Returns the text of a whole expression, '' where it is not known."""
        self._calls = 0
        return self.text(node, 0)

    def text(self, node: ast.expr, depth: int) -> str:
        """Returns the text of an expression in another, '' where it is not known."""
        literal = string_of(node)
        if literal is not None or depth >= _DEEPEST:
            return literal or ""
        if isinstance(node, ast.JoinedStr):
            return "".join(map(self._part, node.values))
        if isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.Mod):
                return _PERCENT.sub(_HOLE, self.text(node.left, depth + 1)).replace("%%", "%")
            if isinstance(node.op, ast.Add):
                left, right = self.text(node.left, depth + 1), self.text(node.right, depth + 1)
                return f"{left or _HOLE}{right or _HOLE}" if left or right else ""
        if isinstance(node, ast.Call):
            return self._called(node, depth)
        if isinstance(node, ast.IfExp):
            return self._one_of((node.body, node.orelse), depth)
        if isinstance(node, ast.Subscript):
            return self._row(rows(node, self._names.surely), depth)
        return self._one_of(self._names.values(node.id), depth) if isinstance(node, ast.Name) else ""

    def _called(self, node: ast.Call, depth: int) -> str:
        word = _last(node.func)
        if isinstance(node.func, ast.Attribute) and word in _SAME_TEXT:
            return self.text(node.func.value, depth + 1)
        if word in _OF_TEXT and node.args:
            return self.text(node.args[0], depth + 1)
        if word == "join" and is_joined(node):
            return self._together(node, depth)
        self._calls += 1
        if self._calls > _MOST_CALLS:
            return ""
        names = self._names
        returned, self._names = names.returned(node, lambda one: self.text(one, depth + 1))
        text = self._one_of(returned, depth)
        self._names = names
        return text

    def _together(self, node: ast.Call, depth: int) -> str:
        """Returns the text of literals that are joined, '' where none of them is known."""
        between = string_of(getattr(node.func, "value", None)) or ""
        parts = [self.text(one, depth + 1) for one in getattr(node.args[0], "elts", ())]
        return between.join(part or _HOLE for part in parts) if any(parts) else ""

    def _part(self, node: ast.expr) -> str:
        if not isinstance(node, ast.FormattedValue):
            return string_of(node) or ""
        given = self._names.given.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
        return given or "{" + expression(node.value, 40).replace("{", "(").replace("}", ")") + "}"

    def _row(self, found: Sequence[ast.expr], depth: int) -> str:
        """Returns the text of one of a table's rows, which are not read where the table is."""
        self.most = max(self.most, len(found))
        names, self._names = self._names, UNKNOWN
        text = self._one_of(found, depth)
        self._names = names
        return text

    def _one_of(self, nodes: Sequence[ast.expr], depth: int) -> str:
        self.turns = max(self.turns, len(nodes))
        return self.text(nodes[min(self.turn, len(nodes) - 1)], depth + 1) if nodes else ""


def is_joined(node: ast.Call) -> bool:
    """Says whether a call joins the parts of a display with a literal.

    Example:
        >>> texts = "' '.join(['a', b])", "' '.join(x)", "x.join([b])"
        >>> [is_joined(ast.parse(text, mode="eval").body) for text in texts]
        [True, False, False]
    """
    callee = node.func
    is_join = isinstance(callee, ast.Attribute) and callee.attr == "join" and string_of(callee.value) is not None
    return is_join and len(node.args) == 1 and isinstance(node.args[0], ast.List | ast.Tuple)


def _last(callee: ast.expr) -> str:
    return callee.attr if isinstance(callee, ast.Attribute) else getattr(callee, "id", "")


def raised(node: ast.Raise, names: Names = UNKNOWN) -> list[str]:
    """Returns what a traceback would show of a raise statement: `Error: template`, nothing where it holds no text.

    Several texts, as of an error made from keywords, stand in their order with holes between them.

    Example:
        >>> raised(ast.parse("raise ShapeError(where='gather', got=f'{n} ranks')").body[0])
        ['ShapeError: gather{…}{n} ranks']
    """
    found: dict[str, None] = {}
    for call, there in _made(node.exc, names, iter(range(_MOST_CALLS))):
        error = expression(call.func)
        if "(" not in error and error[:1] not in "'\"":
            values = [*call.args, *(word.value for word in call.keywords)]
            found.update(dict.fromkeys(f"{error}: {text}" for text in templates(values, there)))
    return list(found)


def _made(node: ast.expr | None, names: Names, turns: Iterator[int]) -> Iterator[tuple[ast.Call, Names]]:
    """Yields the calls that may make an error, in functions of the file too, each with the names at its place."""
    if isinstance(node, ast.Name):
        for value in names.values(node.id):
            if isinstance(value, ast.Call):
                yield from _made(value, names, turns)
    elif isinstance(node, ast.Call) and next(turns, None) is not None:
        returned, inside = names.returned(node, functools.partial(_text, names))
        made = [pair for value in returned for pair in _made(value, inside, turns)]
        yield from made or [(node, names)]


def _text(names: Names, node: ast.expr) -> str:
    return next(iter(templates([node], names)), "")


_CHECKS = {
    "_check": "RuntimeError",
    "_check_tensor_all": "RuntimeError",
    "_check_index": "IndexError",
    "_check_value": "ValueError",
    "_check_type": "TypeError",
    "_check_not_implemented": "NotImplementedError",
}
"""What torch's own checks raise where their condition does not hold."""
_CHECKING = {*_CHECKS, "_check_with", "unimplemented"}


def checked(node: ast.expr, names: Names = UNKNOWN) -> list[str]:
    """Returns what a call raises that torch has in place of a raise statement, as `raised` does.

    Example:
        >>> checked(ast.parse("torch._check(n > 0, lambda: f'need more than {n}')", mode="eval").body)
        ['RuntimeError: need more than {n}']
        >>> checked(ast.parse("unimplemented(gb_type='Odd', explanation='It is.', hints=[])", mode="eval").body)
        ['Unsupported: Odd{…}It is.']
    """
    word = _last(node.func) if isinstance(node, ast.Call) else ""
    if not isinstance(node, ast.Call) or word not in _CHECKING:
        return []
    named = {one.arg: one.value for one in node.keywords}
    if word == "unimplemented" and {"gb_type", "explanation"} <= named.keys():
        return [f"Unsupported: {text}" for text in templates([named["gb_type"], named["explanation"]], names)]
    if not isinstance(node.func, ast.Attribute) or _last(node.func.value) != "torch":
        return []
    told = [*node.args[1:2], *(named[word] for word in ("message",) if word in named)]
    error = _CHECKS.get(word, "")
    if word == "_check_with" and len(node.args) > 2:
        error, told = expression(node.args[0]), node.args[2:3]
    texts = [_said(one) for one in told]
    return [f"{error}: {text}" for text in templates(texts, names)] if error else []


def _said(told: ast.expr) -> ast.expr:
    """Returns the text of a check's message; what a name alone stands for may be that, or a function that makes it."""
    if isinstance(told, ast.Lambda):
        return told.body
    return ast.IfExp(told, told, ast.Call(told, [], [])) if isinstance(told, ast.Name) else told


_WARNINGS = {"DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"}
_WARNS = {"warn", "warn_once", "warning", "warning_once"}


def deprecates(node: ast.expr, decorates: bool) -> tuple[ast.expr | None, bool]:
    """Returns the message with which a call that warns, or a decorator, may say that something is deprecated.

    With it goes whether it does so for sure; else it does if it has the word.

    Example:
        >>> calls = "warnings.warn('f is old', FutureWarning)", "warn(DeprecationWarning('f is old'))", "warn('is old')"
        >>> [(told.value, sure) for told, sure in (deprecates(ast.parse(c, mode="eval").body, False) for c in calls)]
        [('f is old', True), ('f is old', True), ('is old', False)]
        >>> deprecates(ast.parse("deprecated('use g')", mode="eval").body, True)[0].value
        'use g'
    """
    if not isinstance(node, ast.Call) or not node.args:
        return None, False
    callee, told = _last(node.func), node.args[0]
    if decorates:
        return (told, True) if callee == "deprecated" else (None, False)
    if callee not in _WARNS:
        return None, False
    if isinstance(told, ast.Call) and _last(told.func) in _WARNINGS:
        return (told.args[0], True) if told.args else (None, False)
    categories = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "category")]
    return told, any(expression(category).rpartition(".")[2] in _WARNINGS for category in categories)


_DEPRECATED = re.compile(r"(?<!\bnot )\bdeprecat", re.IGNORECASE)


def says_deprecated(told: ast.expr, look: Look) -> bool:
    """Says whether a literal part of a message has the word, or one of the text that a name in it is bound to once.

    Example:
        >>> look = {"text": [ast.Constant("Deprecated: use g")]}.get
        >>> [says_deprecated(ast.parse(text, mode="eval").body, look) for text in ("'is old'", "'f: ' + text")]
        [False, True]
    """
    parts = _parts(told)
    values = [look(one.id) or () for one in parts if isinstance(one, ast.Name)]
    return _has_word(parts) or any(_is_said(*value) for value in values if len(value) == 1)


@functools.lru_cache(maxsize=16)
def _is_said(value: ast.expr) -> bool:
    return _has_word(_parts(value))


def _has_word(parts: Sequence[ast.expr]) -> bool:
    return any(_DEPRECATED.search(string_of(one) or "") for one in parts)


def _parts(node: ast.expr) -> list[ast.expr]:
    """Returns the literals and names that the text of an expression is made of."""
    found: list[ast.expr] = []
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, ast.Constant | ast.Name):
            found.append(one)
        elif isinstance(one, ast.JoinedStr):
            stack += one.values
        elif isinstance(one, ast.FormattedValue):
            stack += [one.value] if isinstance(one.value, ast.Name) else []
        elif isinstance(one, ast.BinOp) and isinstance(one.op, ast.Add | ast.Mod):
            stack += [one.left, one.right] if isinstance(one.op, ast.Add) else [one.left]
        elif isinstance(one, ast.IfExp):
            stack += [one.body, one.orelse]
        elif isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr in _SAME_TEXT:
            stack.append(one.func.value)
        elif isinstance(one, ast.Call) and is_joined(one):
            stack += getattr(one.args[0], "elts", ())
        elif isinstance(one, ast.Call) and _last(one.func) in _OF_TEXT:
            stack += one.args[:1]
    return found


_DIRECTIVE = re.compile(r"^[ \t]*\.\. deprecated::[ \t]*(.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)


def deprecated_by(docstring: str | None) -> str:
    r"""Returns what a docstring's directive says of a deprecation.

    Example:
        >>> deprecated_by("Does it.\n\n    .. deprecated:: 2.0\n        Use g.\n\n    More.")
        '2.0 Use g.'
    """
    found = _DIRECTIVE.search(docstring) if docstring and ".. deprecated::" in docstring else None
    said = cut(found[1], LONGEST_TEMPLATE).strip() if found else ""
    return f"deprecated since {said}" if said and not said.strip("v0123456789.") else said


_NAME = r"(?::\w+:)?[`'\"]*@?(?P<name>[A-Za-z_]\w*(?:(?:\.|::)\w+)*(?:\(\))?)"
_REPLACED = (
    re.compile(rf"(?:please|instead|should|must|,|;|\.|:|^)?\s*\buse\s+(?:the\s+)?{_NAME}", re.IGNORECASE),
    re.compile(rf"(?:in favou?r of|replaced (?:by|with)|(?:switch|migrate|renamed) to)\s+(?:the\s+)?{_NAME}", re.I),
    re.compile(rf"please see\s+(?:the\s+)?{_NAME}", re.IGNORECASE),
    re.compile(rf"please (?:pass in|pass|specify) (?:an?\s+|the\s+)?{_NAME}", re.IGNORECASE),
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
            quoted = found[0][-len(name) - 1] in "`'\"@"
            if quoted or "_" in name or "." in name or name.endswith("()") or re.search(r"[a-z][A-Z]", name):
                return name.removesuffix("()")
    return ""


def replaced_by(text: str) -> str:
    """Returns the summary of a deprecation with this text.

    Example:
        >>> replaced_by("f is old, use `g`"), replaced_by("f is old")
        ('replaced by g', '')
    """
    return f"replaced by {instead}" if (instead := replacement(text)) else ""
