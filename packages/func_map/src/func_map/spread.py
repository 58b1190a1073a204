"""Which placement spec belongs to which leaf: flat sequences, trees, tree prefixes and names.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import torch
from torch.distributed.tensor import Placement

from comm_core.errors import ArgumentError, PlacementError
from func_map import pytree_compat
from func_map.naming import InputNames, OutputNames, keyword_parameters, positional_parameters, title
from func_map.placements import is_spec, words

AS_IT_IS: Final = "as it is"
"""Stands where nothing was said about a leaf: a DTensor is taken with the placements that it has."""

Wanted: TypeAlias = Sequence[Placement] | str | None
"""What was said about one leaf: a spec, None for "not a DTensor", or `AS_IT_IS`."""


@dataclass(frozen=True)
class InputSpecs:
    """One of `in_placements` and `in_grad_placements`, in the form in which the caller gave it.

    Args:
        option: the option's name, for messages.
        given: None, one spec for all, a sequence over the positional arguments, or a mapping by argument name.
        names: the names of the positional parameters.
        rest: the name of `*args`, or "".
    """

    option: str
    given: Any
    names: tuple[str, ...]
    rest: str


def parse_inputs(option: str, given: Any, func: Callable[..., Any]) -> InputSpecs:
    """Check the outer form of `in_placements` or `in_grad_placements`, before any call.

    Raises:
        PlacementError: not a spec, a sequence or a mapping.
        ArgumentError: a mapping names an argument that the function does not have.

    Example:
        >>> from torch.distributed.tensor import Shard
        >>> parse_inputs("in_placements", {"x": [Shard(0)]}, lambda x, w: x).names
        ('x', 'w')
    """
    names, rest = positional_parameters(func)
    if isinstance(given, Mapping):
        known = keyword_parameters(func)
        unknown = [key for key in given if known is not None and key not in known]
        if unknown:
            raise ArgumentError(
                f"{title(func)}, {option}", got=f"the name {unknown[0]!r}", need=f"names among {list(known or ())}"
            )
    elif given is not None and not isinstance(given, (list, tuple)):
        raise PlacementError(
            f"{title(func)}, {option}",
            got=f"a {type(given).__name__}",
            need="a sequence with an entry per argument, or a dict by argument name",
            hint="one entry is a list of placements, one per mesh axis, such as [Shard(0)]",
        )
    return InputSpecs(option, given, names, rest)


def spread_inputs(specs: InputSpecs, leaves: list[Any], names: InputNames) -> list[Wanted]:
    """Return what was said about each leaf of `(args, kwargs)`, in the order of the leaves.

    Raises:
        PlacementError: the count or the structure does not fit the arguments of this call.
    """
    given = specs.given
    if given is None:
        return [AS_IT_IS] * len(leaves)
    if is_spec(given):
        return [given] * len(leaves)
    if isinstance(given, Mapping):
        return _by_name(specs, names)
    positional, _ = pytree_compat.flatten(names.args)
    wanted = _over_positional(specs, positional, names)
    return wanted + [AS_IT_IS] * (len(leaves) - len(positional))


def _over_positional(specs: InputSpecs, positional: list[Any], names: InputNames) -> list[Wanted]:
    given = specs.given
    if is_flat(given, len(positional)):
        for index, (entry, leaf) in enumerate(zip(given, positional, strict=True)):
            if entry is not None and not isinstance(leaf, torch.Tensor):
                raise _not_a_tensor(names.leaf(index), leaf, specs.option)
        return list(given)
    if len(given) != len(names.args):
        raise PlacementError(
            f"{title(names.func)}, {specs.option}",
            got=f"{len(given)} entries",
            need=f"{len(names.args)}, one per positional argument, or {len(positional)}, one per leaf in them",
            hint="keyword arguments are addressed by a dict: {'name': [Shard(0)]}",
        )
    wanted: list[Wanted] = []
    for index, arg in enumerate(names.args):
        _spread(given[index], arg, specs.option, partial(names.positional, index), (), wanted)
    return wanted


def _by_name(specs: InputSpecs, names: InputNames) -> list[Wanted]:
    given = specs.given
    wanted: list[Wanted] = []
    fixed = len(specs.names)
    for index, arg in enumerate(names.args):
        if index < fixed:
            entry = given.get(specs.names[index], AS_IT_IS)
        else:
            entry = given.get(specs.rest, AS_IT_IS)
            if isinstance(entry, (list, tuple)) and not is_spec(entry):
                entry = entry[index - fixed] if index - fixed < len(entry) else AS_IT_IS
        _spread(entry, arg, specs.option, partial(names.positional, index), (), wanted)
    for name, value in names.kwargs.items():
        entry = given.get(name, AS_IT_IS)
        _spread(entry, value, specs.option, partial(names.keyword, name), (), wanted)
    return wanted


def spread_outputs(given: Any, out: Any, leaves: list[Any], names: OutputNames) -> list[Wanted]:
    """Return what `out_placements` says about each leaf of the output.

    Raises:
        PlacementError: the count or the structure does not fit what the body returned.
    """
    if given is None:
        return [None] * len(leaves)
    if is_spec(given) and len(leaves) != 1:
        raise PlacementError(
            f"{title(names.func)}, out_placements",
            got=f"one spec, {words(given)}, for {len(leaves)} outputs",
            need="one spec per output",
            hint="write a tuple of lists, such as ([Shard(0)], [Replicate()])",
        )
    if is_spec(given):
        return [_checked(given, 0, leaves[0], names)]
    if not isinstance(given, (list, tuple, Mapping)):
        raise PlacementError(
            f"{title(names.func)}, out_placements",
            got=f"a {type(given).__name__}",
            need="a list of placements, one per mesh axis, or a tuple or tree of such lists",
            hint="for one output on a 1-D mesh write [Shard(0)]",
        )
    if is_flat(given, len(leaves)):
        return [_checked(given[index], index, leaf, names) for index, leaf in enumerate(leaves)]
    wanted: list[Wanted] = []
    _spread(given, out, "out_placements", names.at, (), wanted)
    return wanted


def _checked(entry: Wanted, index: int, leaf: Any, names: OutputNames) -> Wanted:
    if entry is not None and not isinstance(leaf, torch.Tensor):
        raise _not_a_tensor(names.leaf(index), leaf, "out_placements")
    return entry


def is_flat(given: Any, count: int) -> bool:
    """Tell whether `given` has one entry, a spec or None, for each of `count` leaves: torch's own form.

    Example:
        >>> from torch.distributed.tensor import Shard
        >>> is_flat(([Shard(0)], None), 2), is_flat(([Shard(0)], {"a": None}), 2), is_flat({"a": None}, 1)
        (True, False, False)
    """
    if not isinstance(given, (list, tuple)) or len(given) != count:
        return False
    return all(entry is None or is_spec(entry) for entry in given)


def _spread(
    entry: Any,
    value: Any,
    option: str,
    name: Callable[[Sequence[str]], str],
    keys: tuple[str, ...],
    wanted: list[Wanted],
) -> None:
    """Append to `wanted` what `entry`, a tree prefix, says about each leaf of `value`."""
    leaves, _ = pytree_compat.flatten(value)
    is_leaf = len(leaves) == 1 and leaves[0] is value
    if entry is None or (isinstance(entry, str) and entry == AS_IT_IS) or is_spec(entry):
        if is_leaf and not isinstance(value, torch.Tensor) and is_spec(entry):
            raise _not_a_tensor(name(keys), value, option)
        wanted.extend([entry] * len(leaves))
    elif isinstance(entry, Mapping) and isinstance(value, Mapping) and set(entry) == set(value):
        for key in value:
            _spread(entry[key], value[key], option, name, (*keys, f"[{key!r}]"), wanted)
    elif isinstance(entry, (list, tuple)) and isinstance(value, (list, tuple)) and len(entry) == len(value):
        for index, (below, item) in enumerate(zip(entry, value, strict=True)):
            _spread(below, item, option, name, (*keys, f"[{index}]"), wanted)
    else:
        raise PlacementError(
            name(keys),
            got=f"{option} entry of the form {_form(entry)} for {_form(value)}",
            need="a list of placements, None, or the same structure as the value",
        )


def _form(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with the keys {list(value)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _not_a_tensor(where: str, value: Any, option: str) -> PlacementError:
    got = f"placements in {option} for a value of type {type(value).__name__}"
    return PlacementError(where, got=got, need="None for what is no tensor")
