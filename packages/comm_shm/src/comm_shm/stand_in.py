"""A function of ours in the place of one of torch's, and taken out again without taking anybody else's with it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple


class _Place(NamedTuple):
    owner: Any
    torchs: Any
    ours: Any


class StandIn:
    """A function that stands where torch has one of that name, and is told what it stands for.

    Args:
        name: what torch calls it.
        owners: the modules or classes that have it under that name.
        function: called with what stood there, then with what the caller gave.

    Example:
        >>> class Torch:
        ...     @staticmethod
        ...     def answer():
        ...         return 41
        >>> stands = StandIn("answer", [Torch], lambda torchs: torchs() + 1)
        >>> stands.install()
        >>> Torch.answer()
        42
        >>> stands.uninstall()
        >>> Torch.answer()
        41
    """

    def __init__(self, name: str, owners: list[Any], function: Callable[..., Any]) -> None:
        self._name, self._owners, self._function = name, owners, function
        self._places: list[_Place] = []

    def install(self) -> None:
        """Put it there; a second time changes nothing."""
        if self._places:
            return
        made: dict[int, Any] = {}  # owners that share a function go on sharing one
        for owner in self._owners:
            torchs = getattr(owner, self._name)
            ours = made.setdefault(id(torchs), _standing_for(torchs, self._function))
            setattr(owner, self._name, ours)
            self._places.append(_Place(owner, torchs, ours))

    def uninstall(self) -> None:
        """Put back what stood there wherever ours still stands; what was put over ours stays, and may call ours."""
        while self._places:
            owner, torchs, ours = self._places.pop()
            if getattr(owner, self._name) is ours:
                setattr(owner, self._name, torchs)


def _standing_for(torchs: Any, function: Callable[..., Any]) -> Any:
    @functools.wraps(torchs)
    def ours(*args: Any, **named: Any) -> Any:
        return function(torchs, *args, **named)

    return ours
