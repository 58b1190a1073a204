"""What a query asks besides its words: `kind:`, `in:`, `pkg:`, "exact" in quotes, and notes by `Note [Title]`."""

import re
from typing import NamedTuple

from kwindex.errors import KwindexError
from kwindex.kinds import ELSEWHERE, NOTES, TABLE, UNNAMED
from kwindex.model import Entry
from kwindex.spelling import fold, short

_FILTER = re.compile(r"""(?<!\S)(kind|in|pkg):(?!:)(?:"([^"]*)"|([^\s"]+))(?!\S)""")

NOTED = r"^[# ]*(?:[Ss]ee )?(?:also )?N(?:ote|OTE) ?\[((?:[^\[\]]|\[[^\[\]]*\])*)(?:\].*)?$"
"""How a text names a note by its title; for JavaScript too."""


class Request(NamedTuple):
    """A query's words, and what every hit has to pass."""

    text: str
    exact: bool
    kinds: tuple[frozenset[str], ...]
    paths: tuple[str, ...]
    packages: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Request":
        """Returns what a query asks.

        Raises:
            KwindexError: A `kind:` names no kind of entry.

        Example:
            >>> request = Request.of('kind:func in:distributed "all_reduce"')
            >>> request.text, request.exact, request.kinds, request.paths
            ('all_reduce', True, (frozenset({'function'}),), ('distributed',))
            >>> Request.of("# See Note [Waits are late].").text
            'Waits are late'
        """
        asked: dict[str, list[str]] = {"kind": [], "in": [], "pkg": []}
        for found in _FILTER.finditer(text):
            asked[found[1]].append(found[2] if found[2] is not None else found[3])
        text = words(text)
        noted = re.match(NOTED, text)
        if noted is not None:
            text = noted[1].strip()
        exact = len(text) > 2 and text[0] == text[-1] == '"' and '"' not in text[1:-1]
        return cls(
            text[1:-1].strip() if exact else text,
            exact,
            (*map(_kinds, asked["kind"]), *[frozenset(NOTES)] * (noted is not None)),
            tuple(path.lower() for path in asked["in"]),
            tuple(asked["pkg"]),
        )

    @property
    def unnamed(self) -> bool:
        """Whether entries are asked for whose names only say where they stand."""
        return any(kinds & UNNAMED for kinds in self.kinds)

    def accept(self, entry: Entry) -> bool:
        """Says whether an entry passes all filters.

        Example:
            >>> entry = Entry("lib.m.f", "function", "src/lib/m.py", 1, 1, "f()", "")
            >>> [Request.of(text).accept(entry) for text in ('in:lib pkg:lib "f"', "pkg:li", "kind:class", '"F"')]
            [True, False, False, False]
        """
        return (
            all(entry.kind in kinds for kinds in self.kinds)
            and all(path in entry.file.lower() for path in self.paths)
            and all(_is_in(package, entry) for package in self.packages)
            and (not self.exact or self._is_exact(entry))
        )

    def _is_exact(self, entry: Entry) -> bool:
        if entry.kind in UNNAMED:
            return self.text in entry.signature
        return self.text in (entry.name, short(entry.name)) or entry.name.endswith((f".{self.text}", f"::{self.text}"))


def words(text: str) -> str:
    """Returns a query without its filters.

    Example:
        >>> words("in:distributed all  reduce kind:op")
        'all reduce'
    """
    return " ".join(_FILTER.sub(" ", text).split())


def _is_in(package: str, entry: Entry) -> bool:
    """Says whether an entry is a package's: by its name, or by its file where the name says nothing of that."""
    if entry.name == package or entry.name.startswith(f"{package}."):
        return True
    path = entry.file.removesuffix(".py").replace("/", ".")
    return entry.kind in ELSEWHERE and f".{package}." in f".{path}."


def _kinds(word: str) -> frozenset[str]:
    """Returns the kinds that a word names or begins, singular or plural."""
    asked = fold(word)
    whole = frozenset(kind.word for kind in TABLE if asked in (fold(kind.word), fold(kind.plural)))
    begun = frozenset(kind.word for kind in TABLE if asked and fold(kind.word).startswith(asked))
    if not whole and not begun:
        known = ", ".join(kind.word for kind in TABLE)
        raise KwindexError(f"kind:{word} names no kind of entry; the kinds are {known}")
    return whole or begun
