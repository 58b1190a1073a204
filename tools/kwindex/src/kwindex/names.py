"""The names of an index as a query sees them: which can answer it, layer by layer, and at most how well.

Each layer is found by going through text at the speed of C; `rank` alone says what a name really gets. Nothing that
`rank` would match is left out, and no layer is looked at before those above it.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property

from kwindex.column import Column
from kwindex.nametable import TEXTS, mask
from kwindex.rank import (
    EXACT,
    FARTHEST,
    FOLDED,
    INITIALS,
    JOINED_PREFIX,
    LONGEST_INITIALS,
    MIXED_INITIALS,
    PREFIX,
    SAME_LETTERS,
    SUBSTRING,
    SYNONYM,
    WORDS_IN_ORDER,
    NearWord,
    Query,
    allowed_edits,
)
from kwindex.spelling import fold, segments
from kwindex.tables import Tables

Bounded = Iterator[tuple[int, int]]
"""Names, each after the most points that it can get, the most first."""
Layer = tuple[int, Callable[[], Bounded]]


class Names:
    """The distinct last parts of the names of an index, by every spelling."""

    def __init__(self, tables: Tables) -> None:
        table = tables.names
        self._names, self._folds, self.words, self._initials = (
            Column(text, table.starts_of(number)) for number, text in enumerate(table[:TEXTS])
        )
        self._masks = tables.numbers("masks", "Q")

    def name(self, number: int) -> str:
        """Returns a name by its line."""
        return self._names.line(number)

    def number(self, name: str) -> int:
        """Returns the line of a name, -1 for one that is not here."""
        return next(self._names.exactly(name), -1)

    def folded(self, letters: str) -> Iterator[int]:
        """Yields the names of these letters."""
        return self._folds.exactly(letters)

    def layers(self, query: Query) -> list[Layer]:
        """Returns the layers in which names can answer a query by their last part, the best first.

        Example:
            >>> from kwindex.model import Entry
            >>> entries = [Entry(name, "function", "m.py", 1, 1, "", "") for name in ("gather", "wait")]
            >>> names = Names(Tables.of(entries))
            >>> [(bound, names.name(n)) for _, layer in names.layers(Query.of("gat")) for bound, n in layer()]
            [(700, 'gather'), (597, 'gather'), (297, 'gather')]
        """
        for column in (self.words, self._names, self._folds, self._initials):
            column.ask()
        exact: Layer = (EXACT, lambda: ((EXACT, number) for number in (self.number(query.text),) if number >= 0))
        if not query.folded:
            return [exact]
        return [
            exact,
            (FOLDED, lambda: ((FOLDED, number) for number in self.folded(query.folded))),
            (SYNONYM, lambda: ((SYNONYM, number) for name in query.names for number in self.folded(name))),
            (JOINED_PREFIX if query.apart else PREFIX + SAME_LETTERS, lambda: self._beginning(query)),
            (WORDS_IN_ORDER, lambda: self._by_words(query)),
            (INITIALS, lambda: self._by_initials(query.folded)),
            (SUBSTRING, lambda: self._inside(query.folded)),
        ]

    def _beginning(self, query: Query) -> Bounded:
        """Yields names that begin with a query's letters, the shortest first."""
        best = JOINED_PREFIX if query.apart else PREFIX + SAME_LETTERS
        yield from self._sorted(best, self._folds.starting(query.folded), query.folded)

    def _by_words(self, query: Query) -> Bounded:
        if query.words:
            yield from self._sorted(WORDS_IN_ORDER, self.having(query.words), query.folded)

    def having(self, beginnings: "tuple[str, ...]") -> Collection[int]:
        """Returns the names, in any order, that hold a word with each of these beginnings."""
        return self.words.having(beginnings)

    def covering(self, words: Sequence[str], needed: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
        """Yields names that hold words, all that are needed and one at least; with which other words they lack."""
        having = {word: set(self.words.having((word,))) for word in words}
        begun = set.intersection(*map(having.__getitem__, needed)) if needed else set().union(*having.values())
        held = dict.fromkeys(begun, 0)
        for place, word in enumerate(having):
            for number in begun & having[word]:
                held[number] |= 1 << place
        groups: dict[int, list[int]] = {}
        for number, bits in held.items():
            groups.setdefault(bits, []).append(number)
        for bits, numbers in groups.items():
            yield numbers, [word for place, word in enumerate(having) if not bits >> place & 1]

    def _by_initials(self, letters: str) -> Bounded:
        if len(letters) < 2:
            return
        for number in self._initials.starting(letters):
            yield INITIALS, number
        if 2 < len(letters) <= LONGEST_INITIALS:
            first, *rest = map(re.escape, letters)  # the initials are some of the letters, in their order
            spelled = re.compile(f" {first}{''.join(f'(?:{letter}|[^ ]* {letter})' for letter in rest)}[^ ]*")
            for number in self._initials.matching(f"\n{first}{''.join(f'(?:{letter})?' for letter in rest)}(?=\n)"):
                if spelled.fullmatch(self.words.line(number)):
                    yield MIXED_INITIALS, number

    def _inside(self, letters: str) -> Bounded:
        if len(letters) > 2:
            yield from self._sorted(SUBSTRING, self._folds.holding(letters), letters)

    def _sorted(self, layer: int, numbers: Iterable[int], letters: str) -> Bounded:
        length = self._folds.length
        longer = ((min(length(number) - len(letters), FARTHEST), number) for number in numbers)
        for farther, number in sorted(longer):
            yield layer - farther, number

    def beginning(self, letters: str) -> Iterator[int]:
        """Yields the names whose letters begin so."""
        return self._folds.starting(letters)

    def overloads(self, letters: str) -> list[int]:
        """Returns the operators whose overload's letters begin so."""
        return [number for number, overload in self._overloads if overload.startswith(letters)]

    @cached_property
    def _overloads(self) -> list[tuple[int, str]]:
        numbers = dict.fromkeys(self._names.holding("."))
        return [(number, fold((segments(self.name(number)) or [""])[-1])) for number in numbers]

    def sharing(self, parts: Iterable[str]) -> set[int]:
        """Returns the names whose letters hold any of these parts."""
        return {number for part in parts for number in self._folds.holding(part)}

    def near(self, query: Query) -> set[int]:
        """Returns the names that may be meant by a misspelled query."""
        found = set(self._near_letters(query.folded))
        if len(query.words) > 1:
            found |= set.intersection(*map(self._near_word, query.words))
        return found

    def _near_letters(self, letters: str) -> Iterator[int]:
        allowed = allowed_edits(letters)
        if not allowed:
            return
        own, masks = mask(letters), self._masks
        for size in range(len(letters) - allowed, len(letters) + allowed + 1):
            for number in self._by_length.get(size, ()):
                if (masks[number] ^ own).bit_count() <= 2 * allowed:
                    yield number

    @cached_property
    def _by_length(self) -> dict[int, list[int]]:
        lengths: dict[int, list[int]] = {}
        for number in range(len(self._folds.starts) - 1):
            lengths.setdefault(self._folds.length(number), []).append(number)
        return lengths

    def _near_word(self, word: str) -> set[int]:
        """Returns the names that hold a word spelled nearly so."""
        near, allowed, own = NearWord(word), allowed_edits(word), mask(word)
        found = set(self.having((word,)))
        for length in range(len(word) - allowed, len(word) + allowed + 1) if allowed else ():
            for other, letters in self._words_by_length.get(length, ()):
                if (letters ^ own).bit_count() <= 2 * allowed and near.is_near(other):
                    found.update(self.words.words.lines[other])
        return found

    @cached_property
    def _words_by_length(self) -> dict[int, list[tuple[str, int]]]:
        lengths: dict[int, list[tuple[str, int]]] = {}
        for word in self.words.words.lines:
            lengths.setdefault(len(word), []).append((word, mask(word)))
        return lengths
