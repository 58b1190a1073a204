"""Signatures as types alone: what `Tensor, str -> Tensor` is asked of."""

import re
from functools import lru_cache
from typing import NamedTuple

GAP = "\x1f"
"""Between the types of a signature: the result's first, then the parameters'."""
ANY = "?"
"""A parameter or result that says no type."""

_PREFIX = re.compile(r"\b(?:\w+\.)+(?=\w)")
_SPACE = re.compile(r"[\s'\"]+")
_OPTIONAL = re.compile(r"\boptional\[([^\[\]]*(?:\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\][^\[\]]*)*)\]")
_UNION = re.compile(r"\bunion\[([^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]")
_MARKS = re.compile(r"[()\[\]{}'\",=]")
_AROUND = re.compile(r"[()\[\]{}'\"]")
"""What begins or ends a bracket or a string."""


@lru_cache(maxsize=4096)  # few types make up most signatures
def normal(text: str) -> str:
    """Returns a type as types are compared: no modules, no case, no spaces; `Optional` and `Union` with bars.

    Example:
        >>> [normal(text) for text in ("torch.Tensor", "Optional[List[int]]", "Union[int, None]")]
        ['tensor', 'list[int]|none', 'int|none']
    """
    text = _PREFIX.sub("", _SPACE.sub("", text)).lower()
    if "optional[" in text:
        text = _OPTIONAL.sub(r"\1|none", text)
    if "union[" in text:
        text = _UNION.sub(lambda found: "|".join(parted(found[1])), text)
    return text


def parted(text: str, comma: str = ",") -> list[str]:
    """Returns the parts of a text between commas that stand outside of all brackets and strings.

    Example:
        >>> parted("a: dict[str, int] = {}, b=(1, 2), *c")
        ['a: dict[str, int] = {}', ' b=(1, 2)', ' *c']
    """
    if comma not in text:
        return [text] if text else []
    if not _AROUND.search(text):
        return [part for part in text.split(comma) if part]
    parts, start, depth, quoted = [], 0, 0, ""
    for found in _MARKS.finditer(text):
        letter = found[0]
        if quoted:
            quoted = "" if letter == quoted else quoted
        elif letter in "'\"":
            quoted = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == comma and depth == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    parts.append(text[start:])
    return [part for part in parts if part]


def types_of(signature: str) -> str:
    r"""Returns the types of a function's signature, the result's first; '' where it says none.

    Example:
        >>> types_of("f(self, x: torch.Tensor, *, n: int = 3, **rest) -> list[str]")
        'list[str]\x1ftensor\x1fint\x1f?'
    """
    head, opened, rest = signature.partition("(")
    if "[" in head:  # the function is generic: its type parameters come first
        _, opened, rest = signature.partition("](")
    if not opened or (": " not in rest and "->" not in rest):
        return ""
    inner, _, result = rest.rpartition(")")
    if "->" not in result:  # the last bracket is the result's own, or there is no result
        inner, arrow, result = rest.rpartition(") -> ")
        if not arrow:
            inner, result = rest.removesuffix("…").rpartition(")")[0] or rest, ""
    parameters = [parameter.strip() for parameter in parted(inner)]
    if parameters and parameters[0] in ("self", "cls"):
        del parameters[0]
    types = [normal(result.replace("->", "")) or ANY, *map(_type_of, filter(_takes, parameters))]
    return "" if all(kind == ANY for kind in types) else GAP.join(types)


def _takes(parameter: str) -> bool:
    return parameter not in ("/", "*")


@lru_cache(maxsize=4096)  # few parameters make up most signatures
def _type_of(parameter: str) -> str:
    annotation = parameter.partition(": ")[2]
    return normal(parted(annotation, "=")[0]) if annotation else ANY


class Asked(NamedTuple):
    """A query for a signature: the parameters' types, and the result's, '' where any will do."""

    parameters: tuple[str, ...]
    result: str

    @classmethod
    def of(cls, text: str) -> "Asked | None":
        """Returns what a query with an arrow asks, None for any other.

        Example:
            >>> Asked.of("Tensor, str -> Tensor"), Asked.of("all_reduce")
            (Asked(parameters=('tensor', 'str'), result='tensor'), None)
        """
        before, arrow, after = text.partition("->")
        if not arrow:
            return None
        before = before.strip()
        if before.startswith("(") and before.endswith(")"):
            before = before[1:-1]
        parameters = tuple(filter(None, map(normal, parted(before))))
        return cls(parameters, normal(after)) if parameters or after.strip() else None

    def distance(self, types: str) -> int | None:
        """Returns how far the types of a signature are from those asked, 0 for the same; None where one is missing.

        Example:
            >>> asked = Asked.of("Tensor, str -> Tensor")
            >>> signatures = "f(x: Tensor, y: str) -> Tensor", "f(x: Tensor, y: str, n: int) -> Tensor | None"
            >>> [asked.distance(types_of(signature)) for signature in signatures]
            [0, 2]
        """
        result, *left = types.split(GAP)
        far = _apart(self.result, result) if self.result else 0
        if far is None:
            return None
        in_order = list(self.parameters) == left[: len(self.parameters)]
        for wanted in self.parameters:
            nearest = min(
                ((apart, place) for place, have in enumerate(left) if (apart := _apart(wanted, have)) is not None),
                default=None,
            )
            if nearest is None:
                return None
            far += nearest[0]
            del left[nearest[1]]
        return far + len(left) + (not in_order)


def _apart(wanted: str, have: str) -> int | None:
    """Returns how far one type is from another: 0 the same, 1 one of a union, 2 the same outer form."""
    if wanted == have:
        return 0
    if wanted in have.split("|") or have in wanted.split("|"):
        return 1
    if "[" not in wanted and have.partition("[")[0] == wanted:
        return 2
    return None
