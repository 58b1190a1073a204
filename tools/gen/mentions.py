"""Who mentions a name: functions of our own files, found in their syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from kwindex.syntax import syntax_tree

from .sources import ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def functions(pattern: str) -> tuple[tuple[str, str, frozenset[str]], ...]:
    """Every top-level function of the files that match: file, name, and the names that stand in it."""
    found = []
    for file in sorted(ROOT.glob(pattern)):
        for node in syntax_tree(file.read_text(encoding="utf-8")).body:
            if isinstance(node, Function):
                found.append((file.relative_to(ROOT).as_posix(), node.name, frozenset(names(node))))
    return tuple(found)


def names(tree: ast.AST) -> Iterator[str]:
    """The names and attributes that stand in a piece of code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def mentioning(pattern: str, wanted: set[str]) -> list[tuple[str, str]]:
    """File and name of the functions in which one of the wanted names stands."""
    return [(file, name) for file, name, inside in functions(pattern) if inside & wanted]


@cache
def file_names(pattern: str) -> tuple[tuple[Path, frozenset[str]], ...]:
    """Every file that matches, with the names that stand in it."""
    files = sorted(ROOT.glob(pattern))
    return tuple((file, frozenset(names(syntax_tree(file.read_text(encoding="utf-8"))))) for file in files)


def files_mentioning(pattern: str, wanted: set[str]) -> list[Path]:
    """The files in which one of the wanted names stands."""
    return [file for file, inside in file_names(pattern) if inside & wanted]


@cache
def docstring_of(file: str, name: str) -> str:
    """The docstring of a top-level function."""
    tree = syntax_tree((ROOT / file).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, Function) and node.name == name]
    return ast.get_docstring(found[0]) or "" if found else ""
