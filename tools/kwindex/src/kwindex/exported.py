"""What a star takes of a module, by the signature of its `__all__`."""

import re
from typing import NamedTuple

ALL = "__all__"
MORE = "…"
"""Stands last in the list where it has more than is known."""
_KNOWN = re.compile(r"__all__(?:: [^=]+)? = \[((?:'\w+'(?:, )?)*)(…?)\]")


class Exported(NamedTuple):
    """The names that a star takes, and whether there may be more of them."""

    names: frozenset[str]
    more: bool

    @classmethod
    def of(cls, signature: str) -> "Exported | None":
        """Returns what the signature of an `__all__` tells, as `all_names` writes it; None where that is nothing.

        Example:
            >>> told = Exported.of("__all__ = ['f', …]")
            >>> sorted(told.names), told.more, Exported.of("__all__ = sorted(x)")
            (['f'], True, None)
        """
        found = _KNOWN.fullmatch(signature)
        return cls(frozenset(re.findall(r"\w+", found[1])), bool(found[2])) if found else None

    def has(self, name: str) -> bool | None:
        """Says whether a star takes a name; None where that is not known."""
        return True if name in self.names else None if self.more else False
