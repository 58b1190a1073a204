"""The errors that our code raises, read from the calls that make them: class, words, and where."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kwindex.messages import Look, Looked, templates, unknown
from kwindex.render import string_of, unpacked
from kwindex.syntax import syntax_tree

from . import holes
from .mentions import names
from .reference import cell
from .sources import ROOT

Bound = dict[str, list[ast.expr]]
WORDS = ("where", "got", "need", "hint")
ERRORS = ROOT / "packages/comm_core/src/comm_core/errors.py"


@dataclass(frozen=True)
class Message:
    """One place that makes an error: its class, its words as templates, its file and line."""

    kind: str
    where: str
    got: str
    need: str
    hint: str
    file: str
    line: int


def of_file(file: Path) -> list[Message]:
    """The errors that a file makes, in the order of its lines."""
    tree = syntax_tree(file.read_text(encoding="utf-8"))
    return sorted(made(tree, file.relative_to(ROOT).as_posix(), 0), key=lambda message: message.line)


def of_function(function: Callable[..., Any]) -> list[Message]:
    """The errors that a function of ours makes, itself or in the functions of ours that it calls."""
    found, todo, seen = [], [function], {function}
    while todo:
        current = todo.pop(0)
        lines, start = inspect.getsourcelines(current)
        tree = syntax_tree(textwrap.dedent("".join(lines)))
        file = Path(inspect.getfile(current)).resolve()
        found += made(tree, file.relative_to(ROOT).as_posix(), start - 1)
        called = [current.__globals__.get(name) for name in dict.fromkeys(names(tree))]
        news = [one for one in called if inspect.isfunction(one) and one.__module__.startswith("comm_core")]
        todo += [one for one in news if one not in seen]
        seen.update(news)
    return found


def made(tree: ast.AST, file: str, before: int) -> list[Message]:
    """The errors that a piece of code makes; `before` lines stand above it."""
    found = []
    for node, look in calls(tree):
        if isinstance(node.func, ast.Name) and node.func.id in kinds():
            said = {word: shown(value, look) for word, value in zip(WORDS, node.args, strict=False)}
            said |= {word.arg: shown(word.value, look) for word in node.keywords if word.arg in WORDS}
            where, got, need, hint = (said.get(word, "") for word in WORDS)
            found.append(Message(node.func.id, where, got, need, hint, file, before + node.lineno))
    return found


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, Look]]:
    """Every call in a piece of code, with what tells what a name is bound to there."""
    stack: list[tuple[ast.AST, tuple[Bound, ...]]] = [(tree, ())]
    while stack:
        node, around = stack.pop()
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            around = (bound(node), *around)
        if isinstance(node, ast.Call):
            yield node, _look(around)
        stack += ((child, around) for child in ast.iter_child_nodes(node))


def _look(around: tuple[Bound, ...]) -> Look:
    known = ChainMap(*around)
    return lambda name: known.get(name, ())


def bound(scope: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> Bound:
    """The texts that the names of a module or function are bound to, in it or in what stands in it."""
    found: Bound = {}
    inside: Iterable[ast.AST] = scope.body if isinstance(scope, ast.Module) else ast.walk(scope)
    for node in inside:
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            pairs = unpacked(target.elts, node.value) if isinstance(target, ast.Tuple) else [(target, node.value)]
            for name, value in pairs:
                if isinstance(name, ast.Name) and value is not None:
                    found.setdefault(name.id, []).append(value)
    return found


def shown(node: ast.expr, look: Look = unknown) -> str:
    """The text of one word of a message, or the texts that it may be; what is filled in stands in braces, in words."""
    known = holes.worded(node)
    parts = known.values if isinstance(known, ast.JoinedStr) else [node]
    bare = "".join(string_of(part) or f"{{{holes.in_words(part)}}}" for part in parts)
    return " or ".join(templates([known], Looked(holes.looking(look)))) or bare


@cache
def kinds() -> dict[str, tuple[str, str]]:
    """Our error classes in the order of their file: each with its builtin base and its first sentence."""
    tree = syntax_tree(ERRORS.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {
        node.name: (ast.unparse(node.bases[-1]), (ast.get_docstring(node) or "").split("\n\n")[0]) for node in classes
    }


def link(kind: str) -> str:
    """An error class with a link to its description."""
    return f"[`{kind}`][comm_core.errors.{kind}]"


def words(text: str) -> str:
    """A template that may stand in a table."""
    return cell(f"`{' '.join(text.split()).replace('`', chr(39))}`") if text else ""
