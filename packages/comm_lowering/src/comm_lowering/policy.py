"""What the user wants of the lowering, as one frozen value that goes into the cache key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

from comm_core.catalog import CATALOG
from comm_core.errors import ArgumentError

InPlace = Literal["auto", "never"]
LoneGroup = Literal["skip", "call"]
_WORDS: dict[str, tuple[str, ...]] = {"in_place": get_args(InPlace), "lone_group": get_args(LoneGroup)}


@dataclass(frozen=True, slots=True)
class Policy:
    """Say which collectives are taken over and which kernels may be chosen for them.

    Args:
        in_place: `"auto"` runs a collective in its input's buffer where the input dies; `"never"` copies first
            even there, as the op is defined (for comparison; where Inductor fuses the copy away the report says so).
        lone_group: `"skip"` lowers a collective over a group of one rank to no call at all; `"call"` keeps the call.
        collectives: catalogue names to take over; `None` for all. The others stay with Inductor's own lowering.

    Raises:
        ArgumentError: a field has a value that is not in this list.

    Example:
        >>> Policy(in_place="never").describe()
        'in_place=never lone_group=skip collectives=all'
        >>> Policy(in_place="often")
        Traceback (most recent call last):
        comm_core.errors.ArgumentError: Policy.in_place: got 'often'; need one of 'auto', 'never'
    """

    in_place: InPlace = "auto"
    lone_group: LoneGroup = "skip"
    collectives: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                need = "one of " + ", ".join(map(repr, words))
                raise ArgumentError(f"Policy.{name}", got=repr(getattr(self, name)), need=need)
        if self.collectives is not None:
            object.__setattr__(self, "collectives", _known(self.collectives))

    def takes(self, collective: str) -> bool:
        """Return whether a collective of this catalogue name is taken over."""
        return self.collectives is None or collective in self.collectives

    def describe(self) -> str:
        """Return the policy in one line, as it stands in a report and in the cache key."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        shown["collectives"] = "all" if self.collectives is None else "+".join(self.collectives) or "none"
        return " ".join(f"{name}={value}" for name, value in shown.items())

    def as_dict(self) -> dict[str, object]:
        """Return the fields as plain data for a report."""
        return asdict(self)


def _known(names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ArgumentError("Policy.collectives", got=repr(names), need="a list of catalogue names, or None for all")
    listed = tuple(dict.fromkeys(names))
    unknown = [name for name in listed if name not in CATALOG]
    if unknown:
        raise ArgumentError("Policy.collectives", got=repr(unknown[0]), need="one of " + ", ".join(sorted(CATALOG)))
    return tuple(sorted(listed))
