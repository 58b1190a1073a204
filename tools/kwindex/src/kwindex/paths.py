"""What a dotted query names as Python would read it: through imports, their aliases, and what modules hand on.

`nn.Linear` is nowhere in torch the name of a class: `nn` is what files import torch.nn as, and torch.nn takes `Linear`
from a module below it. The imports of an index tell both.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from kwindex.exported import ALL, Exported
from kwindex.kinds import TABLE
from kwindex.link import bases_of, bound_to, is_definition
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
OF_CLASS = 840
"""For what a class inherits whose name a path begins with."""
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
MOST_KNOWN = 4096
"""Names whose entries are kept for the next query: each step of a path asks for the same ones."""
OWN, STAR, BASE = range(3)
"""How a name comes where a path leads: it is there itself, a star brings it, or a base of the class has it."""
_OPERATOR = 3
"""Parts of an operator's name with its overload."""
_IMPORT, _CLASS = ([kind.word for kind in TABLE].index(word) for word in ("import", "class"))


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
        self._known: dict[str, list[tuple[int, Entry]]] = {}
        self._exported: dict[str, Exported | None] = {}

    def exactly(self, full: str) -> list[tuple[int, Entry]]:
        """Returns the entries of a qualified name, with their numbers."""
        if full not in self._known:
            if len(self._known) == MOST_KNOWN:
                self._known.clear()
            entries = self._searcher.entries
            numbered = ((number, entries[number]) for number in self._searcher.exactly(full))
            self._known[full] = [(number, entry) for number, entry in numbered if entry.name == full]
        return self._known[full]

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

    def hands_on(self, module: str, name: str) -> bool:
        """Says whether a star takes a name of a module: what `__all__` has, else what is public and no module below."""
        exported = self.exported(module)
        taken = exported.has(name) if exported is not None else None
        return not name.startswith("_") and not self.is_module(f"{module}.{name}") if taken is None else taken

    def exported(self, module: str) -> Exported | None:
        """Returns what a module's `__all__` tells, None where it has none or that is computed."""
        if module not in self._exported:
            told = (Exported.of(entry.signature) for _, entry in self.exactly(f"{module}.{ALL}"))
            self._exported[module] = next(told, None)
        return self._exported[module]

    def bases(self, owner: str) -> list[str]:
        """Returns the bases of a class as it names them, and its metaclass."""
        return [base for _, entry in self.exactly(owner) if entry.kind == "class" for base in bases_of(entry.signature)]

    def classes(self, name: str) -> list[str]:
        """Returns the classes of a name, in order."""
        tables, entries = self._searcher.tables, self._searcher.entries
        found = (entries[number] for number in self._searcher.named(name) if tables.kinds[number] == _CLASS)
        return sorted({entry.name for entry in found})

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
        self._inherited: set[str] = set()
        """What was found in a base of what was looked for, or in its metaclass."""
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
            yield from self._of_classes(OF_CLASS, self._whole)
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
            yield from self._of_classes(OF_CLASS, self._begun)

    def near(self) -> Iterator[Reached]:
        """Yields what stands where the path leads and is spelled nearly as its last part."""
        if allowed_edits(fold(self._last)):
            yield from self._near(self._owner, Match(TYPO, ""))
            yield from self._bound(self._first, TYPO, self._near)
            yield from self._of_classes(TYPO, self._near)

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

    def _of_classes(self, points: int, look: Callable[[str, Match], Iterator[Reached]]) -> Iterator[Reached]:
        """Yields what classes inherit whose name the first of two parts is: their own needs no path."""
        for name in self._paths.classes(self._first)[:MOST_TARGETS] if self._first and not self._middle else ():
            yield from look(name, Match(points, f"of {name}"))

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
        first: dict[str, str] = {}
        for owner, how in self._handing(path).items():
            for name, entry, counts in self._paths.inside(owner, less):
                if how == STAR and not self._paths.hands_on(owner, name):
                    continue
                if how == BASE and first.get(name, owner) != owner:
                    continue  # the class has its own
                first.setdefault(name, owner)
                leads = self._find(entry.name) if entry.kind == "import" else [entry.name]
                self._inherited.update(leads if how == BASE else ())
                yield name, leads, counts

    def _reached(self, last: str, names: Iterable[str], match: Match) -> Iterator[Reached]:
        """Yields the entries of names, but of those that end in the path as it is written: they need no import."""
        for name in names:
            entries = self._paths.exactly(name) if not f".{name}".endswith(f".{self._owner}.{last}") else []
            defined = [number for number, entry in entries if entry.kind != "import"]
            numbers = defined or [number for number, _ in entries]
            if numbers:
                why = f"{match.why}; inherited" if name in self._inherited else match.why
                yield Reached(numbers, name, Match(match.points, why))

    def _handing(self, path: str) -> dict[str, int]:
        """Returns what a path leads to, the modules whose public names it has by a star, and its bases, as which."""
        owners = dict.fromkeys(self._find(path), OWN)
        left = [*owners]
        while left:
            owner = left.pop()
            handing = {**dict.fromkeys(self._paths.stars(owner), STAR), **dict.fromkeys(self._bases(owner, 0), BASE)}
            for one, how in handing.items():
                if one not in owners:
                    owners[one] = how
                    left.append(one)
        return owners

    def _bases(self, owner: str, depth: int) -> Iterator[str]:
        """Yields what a class's bases are, and its metaclass, where the index has them."""
        for base in self._paths.bases(owner):
            place = owner.rpartition(".")[0]
            found = self._find(f"{place}.{base}", depth + 1)
            while not found and place and not self._paths.is_module(place):
                place = place.rpartition(".")[0]
                found = self._find(f"{place}.{base}", depth + 1)
            yield from found

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
        self._found[full] = [*found] or ([full] if imports else self._from_bases(full, depth))
        return self._found[full]

    def _from_bases(self, full: str, depth: int) -> list[str]:
        """Returns the names of what a class has from the first of its bases that has it."""
        owner, _, last = full.rpartition(".")
        found = (self._find(f"{base}.{last}", depth + 1) for base in self._bases(owner, depth) if base != owner)
        names: list[str] = next(filter(None, found), [])
        self._inherited.update(names)
        return names

    def _handed(self, full: str, depth: int) -> list[str]:
        """Returns where else a name may be: where the stars of its owner are from, and where the owner itself is."""
        owner, _, last = full.rpartition(".")
        handed = [f"{star}.{last}" for star in self._paths.stars(owner) if self._paths.hands_on(star, last)]
        owners = self._find(owner, depth + 1) if owner else []
        return handed + [f"{one}.{last}" for one in owners if one != owner]
