"""Operators that a module binds to its names: what other modules register for them is asked of it, see `given`."""

import ast
from collections.abc import Iterable, Iterator

from kwindex.given import IS_OP, MAKES, operator
from kwindex.model import Entry, Want
from kwindex.registrations import asked_of
from kwindex.scope import Scope


def told_or_asked(entry: Entry) -> Entry | Want:
    """Returns an entry, or what asks another module for the operator that it is for.

    Example:
        >>> entry = Entry("=lib.prims.seed", "lowering", "m.py", 1, 1, "register_lowering(prims.seed)", "lowering: m.f")
        >>> told_or_asked(entry).target, told_or_asked(entry._replace(name="mine::add")).name
        ('lib.prims.seed(=)', 'mine::add')
    """
    other = asked_of(entry.name)
    return Want(f"{other}{IS_OP}", "", entry._replace(name="")) if other else entry


def given(module: Scope, wants: Iterable[Want]) -> Iterator[tuple[str, str]]:
    """Yields the names of a module that are operators for sure, each with which one, or with what makes it."""
    for name, op in module.operators().items():
        if _is_bound_once(name, module):
            yield module.qualify(name) + IS_OP, operator(op)
    for want in wants:
        holder, _, name = want.entry.summary.rpartition(".")
        if want.target.endswith(MAKES) and holder == module.prefix and _is_made(name, want.entry, module):
            yield module.qualify(name) + IS_OP, operator("", want.target, want.key)


def _is_made(name: str, call: Entry, module: Scope) -> bool:
    """Says whether a name of a module is bound to a call, and never to another thing."""
    made = module.once(name)
    is_call = len(made) == 1 and isinstance(made[0], ast.Call)
    return is_call and (made[0].lineno, made[0].end_lineno) == call[3:5] and _is_bound_once(name, module)


def _is_bound_once(name: str, module: Scope) -> bool:
    return len(module.binding(name)[1]) == 1 and not module.binds_by_the_way(name)
