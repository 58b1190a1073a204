"""The pass over the statements of one file's syntax tree, by which its record grows.

Nothing is imported or run. Definitions stand only in statements, so expressions are not descended into. The pass
keeps its own stack, so that deep nesting costs memory and not Python frames.
"""

import ast
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from kwindex import bound_ops, registrations, tuples
from kwindex.imports import TYPING, bindings, catches_absence, conditions, suppresses_absence
from kwindex.makers import Call, Makers, may_hand_on
from kwindex.messages import checked, deprecated_by, deprecates, raised, replaced_by, says_deprecated, templates
from kwindex.model import Entry, FileRecord, Want
from kwindex.raisers import Raisers, may_raise
from kwindex.render import (
    Function,
    assignment,
    class_signature,
    cut,
    docstring_of,
    expression,
    first_sentence,
    function_signature,
    generic_in,
    string_of,
    unpacked,
    unpacking,
)
from kwindex.scope import Meaning, Scope
from kwindex.texts import depths
from kwindex.typelike import constant_name, is_type_alias
from kwindex.uses import CALLED, DECORATOR, Uses, called, decorator, remapped

_PROPERTIES = {"property", "cached_property", "abstractproperty", "setter", "getter", "deleter"}
_BINDINGS = (ast.Assign, ast.AnnAssign)
_Binding = ast.Assign | ast.AnnAssign
_TOLD = frozenset((ast.Constant, ast.JoinedStr, ast.BinOp, ast.Call, ast.IfExp))
_DISPLAYS = (ast.Tuple, ast.List)
_MAKERS = {"__init__", "__post_init__", "setUp"}


class Statements:
    """The pass over one file: a stack of bodies that are not read to their end yet, and the record that grows."""

    def __init__(self, record: FileRecord, is_package: bool, tree: ast.Module) -> None:
        self.record = record
        self._is_package = is_package
        self._stack: list[tuple[Iterator[ast.stmt], Scope, str]] = []
        self._guard = ""
        """Why imports of the statement at hand may not be there when the module runs."""
        self._notes: dict[ast.stmt, str] = {}
        self._uses = Uses()
        self._defined: set[str] = set()
        """The names of functions that are known so far."""
        self._makers = Makers(tree, record.file)
        self._raisers = Raisers(tree)
        self._renamed: dict[str, str] = {}
        """The last word of what the names of imports stand for."""
        self._tree = tree
        self.module = Scope("module", record.module, None, node=tree)

    def run(self) -> None:
        """Reads every statement, outer before inner, in the order of the source."""
        self._push(self._tree.body, self.module)
        stack, reader_of = self._stack, _READERS.get
        while stack:
            statements, scope, guard = body_at_hand = stack[-1]
            for statement in statements:
                reader = reader_of(type(statement))
                if reader is not None:
                    self._guard = guard
                    reader(self, statement, scope)
                    if stack[-1] is not body_at_hand:  # what the statement holds comes before the next one
                        break
            else:
                stack.pop()
        self.record.entries.extend(self._uses.entries(self.record.file, self.record.module))
        for found in (*self._raisers.settled(self._makers.calls, self.record.file), *self._makers.settled()):
            self.record.keep(found)
        self.record.gives.update(bound_ops.given(self.module, self.record, self._is_package))
        self.record.gives.update(self._makers.given(self.record.module) | self._raisers.given(self.record.module))

    def add(self, kind: str, name: str, lines: tuple[int, int], signature: str, summary: str = "") -> None:
        """Adds an entry to the record."""
        self.record.entries.append(Entry(name, kind, self.record.file, *lines, signature, summary))

    def _push(self, body: list[ast.stmt], scope: Scope, guard: str = "") -> None:
        if body:
            if scope.kind != "function":
                self._find_notes(body)
                for node in body:
                    if type(node) is ast.FunctionDef:
                        scope.define(node)  # what calls it may stand above it
                        self._defined.add(node.name)
            self._stack.append((iter(body), scope, guard or self._guard))

    def _find_notes(self, body: list[ast.stmt]) -> None:
        """Keeps the string on the line after a binding as what it says about that binding."""
        for before, after in itertools.pairwise(body):
            if isinstance(after, ast.Expr) and isinstance(before, _BINDINGS):
                note = string_of(after.value)
                if note is not None and after.lineno == (before.end_lineno or before.lineno) + 1:
                    self._notes[before] = note

    # definitions

    def _function(self, node: Function, scope: Scope) -> None:
        name = scope.qualify(node.name)
        kind = {"class": "method", "module": "function"}.get(scope.kind, "nested function")
        if kind == "method" and node.decorator_list and not _PROPERTIES.isdisjoint(map(_last, node.decorator_list)):
            kind = "property"
        if kind == "nested function" and isinstance(node, ast.FunctionDef):
            scope.define(node)
        self._defined.add(node.name)
        doc = docstring_of(node.body)
        self.add(kind, name, _lines(node), function_signature(node), first_sentence(doc))
        self._deprecation(deprecated_by(doc), name, node)
        if node.decorator_list:
            self._decorators(node, name, scope)
        if node.name.startswith("test") and kind != "nested function":
            for path, call in called(node, scope):
                self._uses.add(CALLED, path, call, name)
        makes = kind == "method" and node.name in _MAKERS and node.args.args
        self_name = node.args.args[0].arg if makes else ""
        self._push(node.body, Scope("function", name, scope, self_name, node))

    def _class(self, node: ast.ClassDef, scope: Scope) -> None:
        name = scope.qualify(node.name)
        doc = docstring_of(node.body)
        self._raisers.define(node)
        self.add("class", name, _lines(node), class_signature(node), first_sentence(doc))
        if op := registrations.higher_order(node):
            scope.bind(node.name, Meaning("op class", op))
            self.add("op", cut(op, 200), _lines(node), class_signature(node), cut(f"operator: {name}", 240))
        self._deprecation(deprecated_by(doc), name, node)
        self._decorators(node, name, scope)
        self._push(node.body, Scope("class", name, scope, node=node))

    def _decorators(self, node: Function | ast.ClassDef, name: str, scope: Scope) -> None:
        for made in node.decorator_list:
            if not isinstance(node, ast.ClassDef):
                self._register(made, scope, name, node)
            self._deprecates(made, name, made, scope)
            self._uses.add(DECORATOR, decorator(made, scope), made, name)

    # bindings

    def _assign(self, node: ast.Assign, scope: Scope) -> None:
        value = node.value
        for target in node.targets:
            if isinstance(target, ast.Name):
                registrations.remember(target.id, value, scope)
                self._note(target.id, value, scope)
            self._bind(target, node, None, scope, value)
        if isinstance(value, ast.Call):
            self._register(value, scope, "", node)
            self.record.entries.extend(tuples.fields(node, scope, self.record.file))
            if isinstance(value.func, ast.Call) and isinstance(node.targets[0], ast.Name):
                self._deprecates(value.func, scope.qualify(node.targets[0].id), node, scope)
        elif isinstance(value, ast.Dict):
            for place, path, text, instead in remapped(node, scope):
                self.add("remap", path, _lines(place), text, instead)

    def _note(self, name: str, value: ast.expr, scope: Scope) -> None:
        """Keeps what a name is bound to, where that may be a message or an error that is raised."""
        if type(value) in _TOLD:
            scope.note(name, value)
        else:
            scope.forget(name)

    def _added(self, node: ast.AugAssign, scope: Scope) -> None:
        if isinstance(node.target, ast.Name) and isinstance(node.op, ast.Add):
            for value in scope.values(node.target.id)[-1:]:
                scope.note(node.target.id, value)
                scope.note(node.target.id, ast.BinOp(value, ast.Add(), node.value))

    def _annotated(self, node: ast.AnnAssign, scope: Scope) -> None:
        if node.value is not None and isinstance(node.target, ast.Name):
            registrations.remember(node.target.id, node.value, scope)
            self._note(node.target.id, node.value, scope)
        self._bind(node.target, node, node.annotation, scope, node.value)

    def _bind(
        self, target: ast.expr, node: _Binding, annotation: ast.expr | None, scope: Scope, value: ast.expr | None
    ) -> None:
        """Lists what a target binds, where a module's or class's readers can see it."""
        if isinstance(target, ast.Name):
            for item, op in registrations.marked(target.id, value, scope) if scope.kind != "function" else ():
                where = f"in {scope.qualify(target.id)}"
                self.add("side effect", cut(op, 200), _lines(item), expression(item, 200), where)
            if scope.kind != "function":
                self._name(target.id, node, annotation, scope, value)
        elif isinstance(target, ast.Attribute):
            if scope.self_name and scope.outer is not None and _is_name(target.value, scope.self_name):
                self._name(target.attr, node, annotation, scope.outer, value)
        elif isinstance(target, _DISPLAYS):
            for part, own in unpacked(target.elts, value):
                self._bind(part, node, annotation, scope, own)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, node, annotation, scope, None)

    def _name(
        self, name: str, node: _Binding, annotation: ast.expr | None, scope: Scope, value: ast.expr | None
    ) -> None:
        if name == "_" or name in scope.fields:
            return
        scope.fields.add(name)
        if scope.kind == "class":
            kind = "field"
        elif is_type_alias(name, annotation, value):
            kind = "type alias"
        else:
            kind = "constant" if constant_name(name, annotation) else "variable"
        if value is None and isinstance(node, ast.Assign):
            signature = unpacking(node)
        else:
            signature = assignment(name, annotation, value)
        self.add(kind, scope.qualify(name), _lines(node), signature, first_sentence(self._notes.get(node)))

    def _type_statement(self, node: Any, scope: Scope) -> None:
        signature = f"type {node.name.id}{generic_in(node)} = {expression(node.value)}"
        self.add("type alias", scope.qualify(node.name.id), _lines(node), signature)

    def _import(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        for binding in bindings(node, self.record.module, self._is_package):
            if binding.bound != "*":
                scope.bind(binding.bound, Meaning("path", binding.path))
                self._renamed[binding.bound] = binding.path.rpartition(".")[2]
            self.record.targets.append((len(self.record.entries), binding.target))
            statement = f"{binding.statement}  # {self._guard}" if self._guard else binding.statement
            self.add("import", scope.qualify(binding.bound), _lines(node), statement)

    # messages

    def _raise(self, node: ast.Raise, scope: Scope) -> None:
        if messages := raised(node, scope):
            self._errors(messages, node, scope)
        else:
            self._raisers.note(node, scope)

    def _assert(self, node: ast.Assert, scope: Scope) -> None:
        if node.msg is not None:
            self._errors([f"AssertionError: {text}" for text in templates([node.msg], scope)], node, scope)

    def _errors(self, messages: list[str], node: ast.stmt, scope: Scope) -> None:
        for message in messages:
            self.add("error", scope.prefix, _lines(node), message)

    def _deprecates(self, node: ast.expr, decorated: str, place: ast.expr | ast.stmt, scope: Scope) -> None:
        """Adds what a call or decorator says to be deprecated; a message that another file has is asked of it."""
        told, is_sure = deprecates(node, decorated != "")
        if told is None or not (is_sure or says_deprecated(told, scope.once)):
            return
        text = next(iter(templates([told], scope)), "")
        self._deprecation(text or expression(node, 200), decorated or scope.prefix, place)
        if not text and (path := scope.dotted(told)) != expression(told):
            self.record.wants.append(Want(path, "", self.record.entries[-1]))

    def _deprecation(self, text: str, name: str, node: ast.expr | ast.stmt) -> None:
        if text:
            self.add("deprecation", name, _lines(node), text, replaced_by(text))

    # registrations

    def _call(self, node: ast.Expr, scope: Scope) -> None:
        if not isinstance(node.value, ast.Call):
            return
        self._register(node.value, scope, "", node)
        self._errors(checked(node.value, scope) or self._raisers.own(node.value, scope), node, scope)
        self._deprecates(node.value, "", node, scope)

    def _return(self, node: ast.Return, scope: Scope) -> None:
        if isinstance(node.value, ast.Call):
            self._register(node.value, scope, "", node)
        self._errors(self._raisers.own(node, scope), node, scope)

    def _register(self, node: ast.expr, scope: Scope, decorated: str, place: ast.stmt) -> None:
        word = registrations.called_word(node, decorated != "")
        is_found = word == ""
        may_be = registrations.may_register(self._renamed.get(word, word))
        for found in registrations.find(node, scope) if may_be else ():
            is_found = is_found or not registrations.asked_of(found.op)
            name = decorated.rpartition(".")[2] or _target(place)
            if found.kind == "op" and name:
                scope.bind(name, Meaning("op", found.op))
            if depths(found.op):
                self._makers.add(found, scope)
                continue
            by = found.by or decorated
            is_schema = found.kind == "op" and not by
            signature = found.detail if is_schema else expression(node, 200)
            summary = "" if is_schema else f"{found.detail}: {by}" if by else found.detail
            made = Entry(cut(found.op, 200), found.kind, self.record.file, *_lines(place), signature, cut(summary, 240))
            self.record.keep(bound_ops.told_or_asked(made))
        is_asked = word in self._defined or may_hand_on(word) or may_raise(word)
        if is_asked and not is_found and isinstance(node, ast.Call):
            call = node.func if isinstance(node.func, ast.Call) else node
            name = _target(place)
            bound = decorated or (scope.qualify(name) if name and scope.kind != "function" else "")
            self._makers.calls.append(Call(call, scope, bound, _lines(place)))

    # statements that hold statements

    def _branches(self, node: ast.If | ast.While, scope: Scope) -> None:
        taken = left = ""
        if isinstance(node, ast.If) and self._guard != TYPING:
            if _last(node.test) == "TYPE_CHECKING":
                taken = TYPING
            elif scope.kind == "module":
                taken, left = conditions(node.test)
        self._push(node.orelse, scope, left)
        self._push(node.body, scope, taken)

    def _loop(self, node: ast.For | ast.AsyncFor, scope: Scope) -> None:
        registrations.go_over(node, scope)
        self._push(node.orelse, scope)
        self._push(node.body, scope)

    def _try(self, node: ast.Try | ast.TryStar, scope: Scope) -> None:
        self._push(node.finalbody, scope)
        self._push(node.orelse, scope)
        absence = any(catches_absence(handler.type) for handler in node.handlers)
        for handler in reversed(node.handlers):
            self._push(handler.body, scope, "where another is missing" if catches_absence(handler.type) else "")
        self._push(node.body, scope, "may be missing" if absence else "")

    def _with(self, node: ast.With | ast.AsyncWith, scope: Scope) -> None:
        absence = False
        for item in node.items:
            made = item.context_expr
            if isinstance(item.optional_vars, ast.Name):
                registrations.remember(item.optional_vars.id, made, scope)
            absence |= suppresses_absence(made)
        self._push(node.body, scope, "may be missing" if absence else "")

    def _match(self, node: ast.Match, scope: Scope) -> None:
        for case in reversed(node.cases):
            self._push(case.body, scope)


_Reader = Callable[[Statements, Any, Scope], None]
_READERS: dict[type[ast.stmt], _Reader] = {
    ast.FunctionDef: Statements._function,
    ast.AsyncFunctionDef: Statements._function,
    ast.ClassDef: Statements._class,
    ast.Assign: Statements._assign,
    ast.AnnAssign: Statements._annotated,
    ast.AugAssign: Statements._added,
    ast.Import: Statements._import,
    ast.ImportFrom: Statements._import,
    ast.Expr: Statements._call,
    ast.If: Statements._branches,
    ast.For: Statements._loop,
    ast.AsyncFor: Statements._loop,
    ast.While: Statements._branches,
    ast.Try: Statements._try,
    ast.TryStar: Statements._try,
    ast.With: Statements._with,
    ast.AsyncWith: Statements._with,
    ast.Match: Statements._match,
    ast.Raise: Statements._raise,
    ast.Assert: Statements._assert,
    ast.Return: Statements._return,
}
"""Statement -> how it is read. Statements that are not here neither bind names nor hold statements."""
if hasattr(ast, "TypeAlias"):  # `type X = ...` came with Python 3.12
    _READERS[ast.TypeAlias] = Statements._type_statement


def _lines(node: ast.stmt | ast.expr) -> tuple[int, int]:
    return node.lineno, node.end_lineno or node.lineno


def _last(decorator: ast.expr) -> str:
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _target(place: ast.stmt) -> str:
    """Returns the name that an assignment binds, '' for any other statement."""
    target = place.targets[0] if isinstance(place, ast.Assign) else None
    return target.id if isinstance(target, ast.Name) else ""
