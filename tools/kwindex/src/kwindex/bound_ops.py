"""Operators that a module binds to its names: what other modules register for them is asked of it, see `given`."""

import ast
from collections.abc import Iterable, Iterator

from kwindex.given import IS_OP, MAKES, operator
from kwindex.model import Entry, FileRecord, Want
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


def given(module: Scope, record: FileRecord, is_package: bool) -> Iterator[tuple[str, str]]:
    """Yields the names of a module that are operators for sure, each with which one, or with what makes it.

    Of a package these are also the names that it hands on.
    """
    for name, op in module.operators().items():
        if _is_bound_once(name, module):
            yield module.qualify(name) + IS_OP, operator(op)
    for want in record.wants:
        holder, _, name = want.entry.summary.rpartition(".")
        if want.target.endswith(MAKES) and holder == module.prefix and _is_made(name, want.entry, module):
            yield module.qualify(name) + IS_OP, operator("", want.target, want.key)
    if is_package:
        yield from handed_on(module, ((record.entries[place].name, target) for place, target in record.targets))


def handed_on(module: Scope, imports: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yields the names that a package has from modules of its own tree, each with where it may be an operator.

    Args:
        module: The package.
        imports: The qualified names that its imports bind, each with what the statement asks for.

    Example:
        >>> package = Scope("module", "lib", None, node=ast.parse("from lib.ops import seed"))
        >>> dict(handed_on(package, [("lib.seed", "lib.ops.seed"), ("lib.f.os", "os")]))
        {'lib.seed(=)': '["", "lib.ops.seed(=)", ""]'}
    """
    tree = f"{module.prefix.partition('.')[0]}."
    for bound, target in imports:
        holder, _, name = bound.rpartition(".")
        if target.startswith(tree) and holder == module.prefix and _is_bound_once(name, module):
            yield f"{bound}{IS_OP}", operator("", f"{target}{IS_OP}")


def _is_made(name: str, call: Entry, module: Scope) -> bool:
    """Says whether a name of a module is bound to a call, and never to another thing."""
    made = module.once(name)
    is_call = len(made) == 1 and isinstance(made[0], ast.Call)
    return is_call and (made[0].lineno, made[0].end_lineno) == call[3:5] and _is_bound_once(name, module)


def _is_bound_once(name: str, module: Scope) -> bool:
    return len(module.binding(name)[1]) == 1 and not module.binds_by_the_way(name)
