"""Where in a call a value stands, in the words of the function's own signature. Only error paths come here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from func_map import pytree_compat


@dataclass(frozen=True)
class InputNames:
    """Names the arguments of one call.

    Args:
        func: the body.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Example:
        >>> def attend(q, kv, *, scale=1.0): ...
        >>> names = InputNames(attend, (1, [2, 3]), {"scale": 4})
        >>> names.leaf(2)
        "local_map(attend), argument 'kv'[1] (positional 1)"
        >>> names.leaf(3)
        "local_map(attend), kwargs['scale']"
    """

    func: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def leaf(self, index: int) -> str:
        """Name the index-th leaf of `(args, kwargs)`."""
        keys = pytree_compat.leaf_paths((tuple(self.args), dict(self.kwargs)))[index]
        if keys[0] == "[0]":
            return self.positional(int(keys[1][1:-1]), keys[2:])
        return self.keyword(keys[1][2:-2], keys[2:])

    def positional(self, index: int, keys: Sequence[str] = ()) -> str:
        """Name a positional argument, or what stands in it at `keys`."""
        below = "".join(keys)
        parameter = self._parameter(index)
        if parameter is None:
            return f"{title(self.func)}, positional {index}{below}"
        return f"{title(self.func)}, argument {parameter}{below} (positional {index})"

    def keyword(self, name: str, keys: Sequence[str] = ()) -> str:
        """Name a keyword argument, or what stands in it at `keys`."""
        return f"{title(self.func)}, kwargs[{name!r}]{''.join(keys)}"

    def _parameter(self, index: int) -> str | None:
        names, rest = positional_parameters(self.func)
        if index < len(names):
            return repr(names[index])
        return f"'{rest}'[{index - len(names)}]" if rest else None


@dataclass(frozen=True)
class OutputNames:
    """Names the results of one call.

    Args:
        func: the body.
        out: what it returned.

    Example:
        >>> def split(x): ...
        >>> OutputNames(split, (1, {"rest": 2})).leaf(1)
        "local_map(split), output[1]['rest']"
    """

    func: Callable[..., Any]
    out: Any

    def leaf(self, index: int) -> str:
        """Name the index-th leaf of the output."""
        return self.at(pytree_compat.leaf_paths(self.out)[index])

    def at(self, keys: Sequence[str]) -> str:
        """Name what stands in the output at `keys`."""
        return f"{title(self.func)}, output{''.join(keys)}"


@dataclass(frozen=True)
class Leaf:
    """One leaf of the arguments or the output, whose name is worked out only when a message is written.

    Example:
        >>> def scale(x): ...
        >>> str(Leaf(InputNames(scale, (1,), {}), 0))
        "local_map(scale), argument 'x' (positional 0)"
    """

    names: InputNames | OutputNames
    index: int

    def __str__(self) -> str:
        return self.names.leaf(self.index)


def title(func: Callable[..., Any]) -> str:
    """Return how messages call the mapped function."""
    name = getattr(func, "__name__", "") or type(func).__name__
    return f"local_map({name})"


def positional_parameters(func: Callable[..., Any]) -> tuple[tuple[str, ...], str]:
    """Return the names of the positional parameters, and of `*args` or "".

    Example:
        >>> positional_parameters(lambda q, k, *more, scale=1: None)
        (('q', 'k'), 'more')
    """
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return (), ""
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    return tuple(names), rest[0] if rest else ""


def keyword_parameters(func: Callable[..., Any]) -> tuple[str, ...] | None:
    """Return every parameter's name, or None when any name may be passed."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return tuple(p.name for p in parameters)
