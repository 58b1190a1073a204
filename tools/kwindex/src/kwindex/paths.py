"""What a dotted query names as Python would read it: through imports, their aliases, and what modules hand on.

`nn.Linear` is nowhere in torch the name of a class: `nn` is what files import torch.nn as, and torch.nn takes `Linear`
from a module below it. The imports of an index tell both.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from kwindex.kinds import TABLE
from kwindex.link import bound_to, is_definition
from kwindex.model import Entry
from kwindex.nametable import mask
from kwindex.rank import FARTHEST, TYPO, Match, Query, allowed_edits
from kwindex.spelling import edits, fold, short

if TYPE_CHECKING:
    from kwindex.searcher import Searcher

PATH = 990
"""For what a path leads to, through imports, that begins with a module of the index."""
BOUND = 870
"""For what a path leads to that begins with a name which imports bind."""
FOLDED_LESS = 30
"""For a last part that is spelled otherwise."""
BEGUN_LESS = 210
"""For a last part that is the beginning of one."""
ALIAS = 890
"""For what a name alone is that imports bind to something of another name."""
OVERLOAD = 855
SLIP = 20
"""For each letter of a last part that differs."""
MOST_TARGETS = 8
"""Things that one name is bound to up to which what they have is looked at."""
LONGEST_PATH = 12
LONGEST_CHAIN = 16
"""Imports, and parts of names, through which one thing is followed."""
_OPERATOR = 3
"""Parts of an operator's name with its overload."""
_IMPORT = next(number for number, kind in enumerate(TABLE) if kind.word == "import")


Less = Callable[[str], int | None]
"""How much less than the best a name of these letters answers a path's last part, None where it does not."""


class Reached(NamedTuple):
    """Entries of one name that a path leads to, and how well they answer it."""

    numbers: list[int]
    name: str
    match: Match


class Paths:
    """The imports of an index, followed."""

    def __init__(self, searcher: "Searcher") -> None:
        self._searcher = searcher
        self._meanings: dict[str, list[tuple[str, int]]] = {}

    def exactly(self, full: str) -> list[tuple[int, Entry]]:
        """Returns the entries of a qualified name, with their numbers."""
        entries = self._searcher.entries
        numbered = ((number, entries[number]) for number in self._searcher.exactly(full))
        return [(number, entry) for number, entry in numbered if entry.name == full]

    def inside(self, owner: str, less: "Less") -> Iterator[tuple[str, Entry, int]]:
        """Yields the entries in a module or class whose last part answers, with that part and what it counts less."""
        searcher = self._searcher
        files = dict.fromkeys(searcher.tables.file_of(number) for number, _ in self.exactly(owner))
        for number, name in searcher.inside(owner, files):
            counts = less(fold(name))
            if counts is not None:
                entry = searcher.entries[number]
                if entry.name == f"{owner}.{name}":  # owners are told apart by their letters alone
                    yield name, entry, counts

    def stars(self, owner: str) -> list[str]:
        """Returns the modules all whose public names a module takes."""
        return self._stars.get(owner, [])

    @cached_property
    def _stars(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for number in self._searcher.named("*"):
            star = self._searcher.entries[number]
            found.setdefault(star.name.removesuffix(".*"), []).append(bound_to(star))
        return found

    def is_module(self, name: str) -> bool:
        """Says whether a name is that of a module of the index."""
        return any(entry.kind == "module" for _, entry in self.exactly(name))

    def is_name(self, last: str) -> bool:
        """Says whether any entry's name ends in this part."""
        return bool(self._searcher.named(last))

    def meanings(self, name: str) -> list[tuple[str, int]]:
        """Returns what imports bind a name to, with how many files do, the most usual first.

        A name that is a module of the index means that module, and nothing else.

        Example:
            >>> from kwindex.searcher import Searcher
            >>> imports = [Entry(f"{m}.np", "import", f"{m}.py", 1, 1, "import numpy as np", "") for m in "ab"]
            >>> Paths(Searcher(imports)).meanings("np")
            [('numpy', 2)]
        """
        if name not in self._meanings:
            files: dict[str, set[str]] = {}
            tables, entries = self._searcher.tables, self._searcher.entries
            for number in self._searcher.named(name) if not self.is_module(name) else ():
                if tables.kinds[number] == _IMPORT:
                    files.setdefault(bound_to(entries[number]), set()).add(entries[number].file)
            counts = [(target, len(some)) for target, some in files.items() if target]
            self._meanings[name] = sorted(counts, key=lambda row: (-row[1], row[0]))
        return self._meanings[name]


class Path:
    """One dotted query, and what it leads to that its letters alone do not."""

    def __init__(self, paths: Paths, query: Query) -> None:
        self._paths = paths
        self._found: dict[str, list[str]] = {}
        is_path = 1 < len(query.parts) <= LONGEST_PATH and ".".join(query.parts) == query.text
        self._first, *self._middle = query.parts[:-1] if is_path else [""]
        self._last = query.parts[-1] if is_path else ""
        self._owner = ".".join([self._first, *self._middle])
        self._name = query.text if query.parts == (query.text,) else ""
        self._operator = query.parts if len(query.parts) == _OPERATOR else ()

    def whole(self) -> Iterator[Reached]:
        """Yields what the path leads to as it is written."""
        if self._last and self._paths.is_name(self._last):
            written = f"{self._owner}.{self._last}"
            yield from self._reached(self._last, self._find(written), Match(PATH, f"imported as {written}"))
            yield from self._bound(self._first, BOUND, self._whole)
        yield from self._bound(self._name, ALIAS, self._alias)
        if self._operator:
            space, word, overload = self._operator
            match = Match(OVERLOAD, f"overload {overload} of {space}::{word}")
            yield from self._reached(word, [f"{space}::{word}"], match)

    def begun(self) -> Iterator[Reached]:
        """Yields what stands where the path leads and begins with the letters of its last part."""
        if fold(self._last):
            for name, leads, less in self._inside(self._owner, self._beginning):
                yield from self._reached(name, leads, Match(BOUND - less, f"imported as {self._owner}.{name}"))
            yield from self._bound(self._first, BOUND, self._begun)

    def near(self) -> Iterator[Reached]:
        """Yields what stands where the path leads and is spelled nearly as its last part."""
        if allowed_edits(fold(self._last)):
            yield from self._near(self._owner, Match(TYPO, ""))
            yield from self._bound(self._first, TYPO, self._near)

    def _bound(self, first: str, points: int, look: Callable[[str, Match], Iterator[Reached]]) -> Iterator[Reached]:
        """Yields what is found where the first part means what imports bind it to."""
        place = 0
        for target, files in self._paths.meanings(first) if first else ():
            why = f"{first} is {target} in {files} file{'s' * (files > 1)}"
            reached = list(look(".".join([target, *self._middle]), Match(points - 2 * place, why)))
            yield from reached
            place += bool(reached)
            if place == MOST_TARGETS:
                return

    def _whole(self, path: str, match: Match) -> Iterator[Reached]:
        path = f"{path}.{self._last}"
        return self._reached(self._last, self._find(path) or [path], match)

    def _alias(self, path: str, match: Match) -> Iterator[Reached]:
        leads = [lead for lead in self._find(path) if short(lead) != self._name]
        return self._reached(self._name, leads if short(path) != self._name else [], match)

    def _begun(self, path: str, match: Match) -> Iterator[Reached]:
        for name, leads, less in self._inside(path, self._beginning):
            yield from self._reached(name, leads, match._replace(points=match.points - less))

    def _beginning(self, folded: str) -> int | None:
        letters = fold(self._last)
        farther = min(len(folded) - len(letters), FARTHEST)
        return (BEGUN_LESS + farther if farther else FOLDED_LESS) if folded.startswith(letters) else None

    def _near(self, path: str, match: Match) -> Iterator[Reached]:
        for _, leads, less in self._inside(path, self._differing):
            differ = (
                f"one letter of {self._last} differs"
                if less == SLIP
                else f"{less // SLIP} letters of {self._last} differ"
            )
            said = f"near spelling: {differ}"
            why = f"{said}; {match.why}" if match.why else said
            yield from self._reached(self._last, leads, Match(match.points - less, why))

    def _differing(self, folded: str) -> int | None:
        letters = fold(self._last)
        allowed = allowed_edits(letters)
        if (mask(letters) ^ mask(folded)).bit_count() > 2 * allowed:
            return None
        differing = edits(letters, folded, allowed)
        return SLIP * differing if differing <= allowed else None

    def _inside(self, path: str, less: "Less") -> Iterator[tuple[str, list[str], int]]:
        """Yields names there that answer the last part: what each leads to, and how much less it counts."""
        for owner, wholly in self._handing(path).items():
            for name, entry, counts in self._paths.inside(owner, less):
                if wholly or _is_handed_on(name, entry.kind == "module"):
                    yield name, self._find(entry.name) if entry.kind == "import" else [entry.name], counts

    def _reached(self, last: str, names: Iterable[str], match: Match) -> Iterator[Reached]:
        """Yields the entries of names, but of those that end in the path as it is written: they need no import."""
        for name in names:
            entries = self._paths.exactly(name) if not f".{name}".endswith(f".{self._owner}.{last}") else []
            defined = [number for number, entry in entries if entry.kind != "import"]
            numbers = defined or [number for number, _ in entries]
            if numbers:
                yield Reached(numbers, name, match)

    def _handing(self, path: str) -> dict[str, bool]:
        """Returns what a path leads to, and the modules whose public names it has by a star: False for these."""
        owners = dict.fromkeys(self._find(path), True)
        left = [*owners]
        while left:
            for star in self._paths.stars(left.pop()):
                if star not in owners:
                    owners[star] = False
                    left.append(star)
        return owners

    def _find(self, full: str, depth: int = 0) -> list[str]:
        """Returns the names of what a path means: its own for a definition, or an import of what is outside."""
        if full in self._found or depth == LONGEST_CHAIN:
            return self._found.get(full, [])
        self._found[full] = []  # what leads to itself leads nowhere
        entries = [entry for _, entry in self._paths.exactly(full)]
        if any(map(is_definition, entries)):
            self._found[full] = [full]
            return [full]
        imports = [entry for entry in entries if entry.kind == "import"]
        nexts = [*map(bound_to, imports)] if imports else self._handed(full, depth)
        found = dict.fromkeys(name for path in nexts for name in self._find(path, depth + 1))
        self._found[full] = [*found] or [full] * bool(imports)
        return self._found[full]

    def _handed(self, full: str, depth: int) -> list[str]:
        """Returns where else a name may be: where the stars of its owner are from, and where the owner itself is."""
        owner, _, last = full.rpartition(".")
        stars = [f"{star}.{last}" for star in self._paths.stars(owner)]
        handed = [star for star in stars if _is_handed_on(last, self._paths.is_module(star))]
        owners = self._find(owner, depth + 1) if owner else []
        return handed + [f"{one}.{last}" for one in owners if one != owner]


def _is_handed_on(name: str, is_module: bool) -> bool:
    """Says whether a star takes a name of a module: not private ones, nor the modules below it."""
    return not name.startswith("_") and not is_module
