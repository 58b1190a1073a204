"""What a name means at one place of a file, as far as plain assignments and imports tell."""

import ast
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kwindex.render import Function
from kwindex.returned import Returned, passed
from kwindex.shadows import Bound, bound_by_the_way, bound_in

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Holder = ast.Module | ast.ClassDef | Function


class Meaning(NamedTuple):
    """What a name stands for.

    `what` is "path" (a dotted name, in `text`), "library" (an operator library, its namespace in `text`),
    "op" (an operator, as `namespace::name`), "op class" (a class whose instance is one),
    "strings" (a table of literals, one a line in `text`) or "" (nobody knows).
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

    __slots__ = (
        "_bound",
        "_by_the_way",
        "_functions",
        "_meanings",
        "_told",
        "_values",
        "fields",
        "given",
        "kind",
        "node",
        "outer",
        "prefix",
        "self_name",
    )

    def __init__(
        self, kind: str, prefix: str, outer: "Scope | None", self_name: str = "", node: "Holder | None" = None
    ) -> None:
        self.kind = kind
        self.prefix = prefix
        self.outer = outer
        self.self_name = self_name
        """The name of the instance, in a function that makes instances."""
        self.node = node
        """The module, class or function."""
        self._bound: dict[str, list[Bound]] | None = None
        self._by_the_way: set[str] | None = None
        self.fields: set[str] = set()
        """The names listed so far that a body lists once, at their first binding."""
        self._meanings: dict[str, Meaning] = {}
        self._values: dict[str, list[ast.expr]] = {}
        self._told: set[str] = set()
        self._functions: dict[str, ast.FunctionDef] = {}
        self.given: dict[str, str] = {}
        """The texts that parameters stand for, in a function that is read for one call of it."""

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

    def binding(self, name: str) -> "tuple[Scope | None, list[Bound]]":
        r"""Returns the body that binds a name which is read here, as Python looks it up, and where; None for none.

        Example:
            >>> tree = ast.parse("a = 1\ndef f(a): a")
            >>> module = Scope("module", "m", None, node=tree)
            >>> inner = Scope("function", "m.f", module, node=tree.body[1])
            >>> module.binding("a")[0] is module, inner.binding("a")[0] is inner, inner.binding("b")
            (True, True, (None, []))
        """
        scope: Scope | None = self
        while scope is not None:
            if scope.node is not None and (scope.kind != "class" or scope is self):
                if scope._bound is None:
                    scope._bound = bound_in(scope.node.body)
                found = scope._bound.get(name, [])
                if found or scope.has_parameter(name):
                    return scope, found
            scope = scope.outer
        return None, []

    def has_parameter(self, name: str) -> bool:
        """Says whether this is a function with a parameter of this name."""
        if not isinstance(self.node, _FUNCTIONS):
            return False
        told = self.node.args
        several = (*told.posonlyargs, *told.args, *told.kwonlyargs, told.vararg, told.kwarg)
        return any(one is not None and one.arg == name for one in several)

    def binds_by_the_way(self, name: str) -> bool:
        """Says whether an expression here, or a function in here, binds a name of this body."""
        if self._by_the_way is None:
            self._by_the_way = bound_by_the_way(self.node) if self.node is not None else set()
        return name in self._by_the_way

    @property
    def functions(self) -> "list[Scope]":
        """The functions that this stands in, the outermost first."""
        found: list[Scope] = []
        scope: Scope | None = self
        while scope is not None:
            if scope.kind == "function":
                found.append(scope)
            scope = scope.outer
        return found[::-1]

    @property
    def depth(self) -> int:
        """How many functions this stands in, itself among them."""
        return len(self.functions)

    def meant(self, name: str) -> Meaning | None:
        """Returns what a name means here as `meaning` does, nothing where a function around binds it for itself."""
        scope: Scope | None = self
        while scope is not None:
            found = scope._meanings.get(name)
            if found is not None or (scope.kind == "function" and self.binding(name)[0] is scope):
                return found
            scope = scope.outer
        return None

    def note(self, name: str, value: ast.expr) -> None:
        """Notes what a name is bound to; what it was before no longer counts once `values` was asked for it."""
        if name in self._told:
            self._told.discard(name)
            self._values[name] = []
        self._values.setdefault(name, []).append(value)

    def noted(self) -> list[str]:
        """Returns the names for which this body has noted values."""
        return [*self._values]

    def operators(self) -> dict[str, str]:
        """Returns the names of this body that mean operators."""
        return {name: known.text for name, known in self._meanings.items() if known.what == "op"}

    def forget(self, name: str) -> None:
        """Notes that what a name is bound to is not known any more."""
        if name in self._values:
            del self._values[name]

    def values(self, name: str) -> list[ast.expr]:
        """Returns the expressions that a name may be bound to here, looking outward as Python does.

        Example:
            >>> scope = Scope("module", "m", None)
            >>> for word in ("one", "two", "three"):
            ...     scope.note("text", ast.Constant(word))
            ...     found = [value.value for value in scope.values("text")] if word != "one" else []
            >>> found
            ['three']
        """
        scope = self._noting(name)
        if scope is None:
            return []
        scope._told.add(name)
        return scope._values[name]

    def once(self, name: str) -> list[ast.expr]:
        r"""Returns the one expression that a name is ever assigned; nothing where it may be another. Counts as no use.

        Example:
            >>> module = Scope("module", "m", None, node=ast.parse("a = 1\nb = 2\nb = 3"))
            >>> [value.value for value in module.once("a")], module.once("b"), module.once("c")
            ([1], [], [])
        """
        holder, places = self.binding(name)
        if holder is None or len(places) != 1 or holder.has_parameter(name):
            return []
        return [one.value for one in places if one.value is not None]

    def surely(self, name: str) -> list[ast.expr]:
        r"""Returns what `once` does, nothing where an expression or another function may bind the name anew.

        Example:
            >>> module = Scope("module", "m", None, node=ast.parse("a = [1]\nb = [2]\ndef f():\n    global b"))
            >>> [len(module.surely(name)) for name in "ab"]
            [1, 0]
        """
        found = self.once(name)
        holder = self.binding(name)[0] if found else None
        return found if holder is not None and not holder.binds_by_the_way(name) else []

    def _noting(self, name: str) -> "Scope | None":
        scope: Scope | None = self
        while scope is not None and name not in scope._values:
            scope = scope.outer
        return scope

    def define(self, node: ast.FunctionDef) -> None:
        """Notes a function of this body, so that what it returns can be told."""
        self._functions[node.name] = node

    def returned(self, call: ast.Call, text_of: Callable[[ast.expr], str]) -> "tuple[Sequence[ast.expr], Scope]":
        r"""Returns what a call may return, nothing unless a function of the file is called, and the scope of that.

        The function's parameters stand there for the text that `text_of` gives of what they are called with.

        Example:
            >>> scope = Scope("module", "m", None)
            >>> scope.define(ast.parse("def f():\n    return 'it'").body[0])
            >>> [value.value for value in scope.returned(ast.Call(ast.Name("f"), [], []), ast.unparse)[0]]
            ['it']
        """
        scope, name = self._defining(call.func)
        if scope is None:
            return (), self
        node = scope._functions[name]
        told = Returned.of(node)
        inner = Scope("function", scope.qualify(node.name), scope)
        for parameter, value in passed(call, node, is_own=scope.kind == "class"):
            text = text_of(value) if value is not None else ""
            inner._values[parameter] = [ast.Constant(text)] if text else []
            if text:
                inner.given[parameter] = text
        for local, value in told.bound:
            inner.given.pop(local, None)
            inner.note(local, value)
        return told.values, inner

    def _defining(self, callee: ast.expr) -> "tuple[Scope | None, str]":
        """Returns scope and name of the function that is called: by its name, or in a class as `self.f` or `cls.f`."""
        name, is_own = "", False
        if isinstance(callee, ast.Name):
            name = callee.id
        elif isinstance(callee, ast.Attribute) and isinstance(callee.value, ast.Name):
            name, is_own = callee.attr, callee.value.id in ("self", "cls")
        scope: Scope | None = self if isinstance(callee, ast.Name) or is_own else None
        while scope is not None and (name not in scope._functions or (scope.kind == "class") != is_own):
            scope = None if is_own and scope.kind == "class" else scope.outer
        return scope, name

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
