"""The public names of each package, read without importing it: what `__all__` lists, defined where."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import cast

import griffe

from .sources import ROOT, Distribution

ANOTHER = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
SHORT = 40


@dataclass(frozen=True)
class PublicName:
    """One name of a package's `__all__`: where it is defined, what it is, its first sentence."""

    name: str
    path: str
    kind: str
    signature: str
    summary: str


@cache
def load(package: str, where: str) -> griffe.Module:
    """Loads one package with griffe, which is also what mkdocstrings shows."""
    return cast(
        griffe.Module,
        griffe.load(package, search_paths=[ROOT / where / "src"], resolve_aliases=True, allow_inspection=False),
    )


def public_names(distribution: Distribution) -> list[PublicName]:
    """The names that the package's door exports, in the order of its `__all__`."""
    if distribution.package is None:
        return []
    door = load(distribution.package, distribution.where)
    return [describe(door, str(name)) for name in door.exports or ()]


def describe(door: griffe.Module, name: str) -> PublicName:
    """Follows one exported name to its definition; an import wins over a submodule of that name."""
    imported = door.imports.get(name)
    found = door.modules_collection[imported] if imported else door.members[name]
    target = found.final_target if isinstance(found, griffe.Alias) else found
    summary = first_sentence(target) or stands_for(target)
    return PublicName(name, target.path, target.kind.value, signature(target), summary)


def stands_for(target: griffe.Object) -> str:
    """What a name without a docstring is: the same as another one, a short value, or something of a type."""
    if not isinstance(target, griffe.Attribute):
        return ""
    value = str(target.value or "")
    if ANOTHER.fullmatch(value):
        return f"The same as `{value}`."
    if 0 < len(value) <= SHORT:
        return f"`{target.name} = {value}`"
    return f"`{target.name}: {target.annotation}`" if target.annotation else ""


def signature(target: griffe.Object) -> str:
    """Parameter names, with `=` where there is a default, as `(x, group=, *, dim=)`."""
    if not isinstance(target, griffe.Class | griffe.Function):
        return ""
    parameters = [one for one in target.parameters if one.name != "self"]
    words = [word for one in split_by_kind(parameters) for word in one]
    return f"({', '.join(words)})"


def split_by_kind(parameters: list[griffe.Parameter]) -> list[list[str]]:
    """The parameters in the order of a call, with the `/` and `*` that separate the kinds."""
    kinds = griffe.ParameterKind
    by_kind: dict[griffe.ParameterKind | None, list[str]] = {kind: [] for kind in kinds}
    for one in parameters:
        star = {kinds.var_positional: "*", kinds.var_keyword: "**"}.get(one.kind or kinds.positional_only, "")
        by_kind[one.kind].append(f"{star}{one.name}{'' if one.default is None or star else '='}")
    if by_kind[kinds.positional_only]:
        by_kind[kinds.positional_only].append("/")
    if by_kind[kinds.keyword_only] and not by_kind[kinds.var_positional]:
        by_kind[kinds.var_positional].append("*")
    order = (kinds.positional_only, kinds.positional_or_keyword, kinds.var_positional, kinds.keyword_only)
    return [by_kind[kind] for kind in (*order, kinds.var_keyword)]


def first_sentence(target: griffe.Object) -> str:
    """The docstring up to its first blank line, on one line."""
    return " ".join(target.docstring.value.split("\n\n")[0].split()) if target.docstring else ""


def linked(dotted: str, distributions: list[Distribution]) -> str | None:
    """Where the reference describes what a dotted name stands for, or None if it is not there."""
    package, _, rest = dotted.partition(".")
    for distribution in distributions:
        if distribution.package == package and rest:
            return canonical(load(package, distribution.where), rest, distribution)
    return None


def canonical(door: griffe.Module, rest: str, distribution: Distribution) -> str | None:
    """The path under which a name's definition is documented, if its module has a page."""
    first, _, inner = rest.partition(".")
    from_module = inner and isinstance(door.members.get(first), griffe.Module)  # where a function has its module's name
    found: griffe.Object | griffe.Alias = door
    for part in rest.split("."):
        imported = None if from_module or found is not door else door.imports.get(part)
        if not imported and part not in found.all_members:
            return None
        found = door.modules_collection[imported] if imported else found.all_members[part]
        found = found.final_target if isinstance(found, griffe.Alias) else found
    pages = {module.name for module in distribution.modules if module.public}
    private = any(part.startswith("_") for part in found.path.split("."))
    return None if private or found.module.path not in pages else found.path
