"""What a name means at one place of a file, as far as plain assignments and imports tell."""

import ast
from typing import NamedTuple


class Meaning(NamedTuple):
    """What a name stands for.

    `what` is "path" (a dotted name, in `text`), "library" (an operator library, its namespace in `text`),
    "op" (an operator, as `namespace::name`) or "strings" (a table of literals, one a line in `text`).
    """

    what: str
    text: str


class Scope:
    """A module, class or function body: its qualified prefix and the meanings of the names bound in it.

    Example:
        >>> module = Scope("module", "m", None)
        >>> module.bind("dist", Meaning("path", "torch.distributed"))
        >>> inner = Scope("function", "m.f", module)
        >>> inner.dotted(ast.parse("dist.all_reduce", mode="eval").body)
        'torch.distributed.all_reduce'
        >>> inner.qualify("g")
        'm.f.g'
    """

    __slots__ = ("_meanings", "fields", "kind", "outer", "prefix", "self_name")

    def __init__(self, kind: str, prefix: str, outer: "Scope | None", self_name: str = "") -> None:
        self.kind = kind
        self.prefix = prefix
        self.outer = outer
        self.self_name = self_name
        """The name of the instance, in a function that makes instances."""
        self.fields: set[str] = set()
        """The names listed so far that a body lists once, at their first binding."""
        self._meanings: dict[str, Meaning] = {}

    def qualify(self, name: str) -> str:
        """Returns the qualified name of something bound here."""
        return f"{self.prefix}.{name}"

    def bind(self, name: str, meaning: Meaning) -> None:
        """Says what a name bound here means."""
        self._meanings[name] = meaning

    def meaning(self, name: str) -> Meaning | None:
        """Returns what a name means here, looking outward as Python does."""
        scope: Scope | None = self
        while scope is not None:
            found = scope._meanings.get(name)
            if found is not None:
                return found
            scope = scope.outer
        return None

    def dotted(self, node: ast.expr) -> str:
        """Returns a dotted expression with its first name resolved, '' for any other expression."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        known = self.meaning(node.id)
        parts.append(known.text if known is not None and known.what == "path" else node.id)
        return ".".join(reversed(parts))
