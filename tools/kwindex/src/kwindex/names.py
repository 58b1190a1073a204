"""The names of an index, laid out so that a query looks only at those it can answer.

For each name that may match, an upper bound of its points is found from inverted lists; `rank` alone says what it
really gets. Nothing that `rank` would match is left out.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from kwindex.rank import (
    EXACT,
    FARTHEST,
    FIRST_INITIALS,
    FOLDED,
    INITIALS,
    MIXED_INITIALS,
    PREFIX,
    SUBSTRING,
    SYNONYM,
    WORDS_IN_ORDER,
    NearWord,
    Query,
    allowed_edits,
)
from kwindex.spelling import fold, subtokens


class Vocabulary:
    """Words, sorted, each with the numbers of the texts that hold it."""

    def __init__(self, texts: Iterable[str]) -> None:
        lists: dict[str, list[int]] = {}
        for number, text in enumerate(texts):
            for token in dict.fromkeys(subtokens(text)):
                lists.setdefault(token, []).append(number)
        self.words = sorted(lists)
        self._lists = [lists[word] for word in self.words]

    def starting(self, beginning: str) -> set[int]:
        """Returns the texts that hold a word with this beginning.

        Example:
            >>> Vocabulary(["all_gather", "AllReduce", "gather"]).starting("ga")
            {0, 2}
        """
        first = bisect_left(self.words, beginning)
        found: set[int] = set()
        for place in range(first, len(self.words)):
            if not self.words[place].startswith(beginning):
                break
            found.update(self._lists[place])
        return found

    def near(self, word: str) -> set[int]:
        """Returns the texts that hold a word spelled nearly so."""
        near, allowed = NearWord(word), allowed_edits(word)
        found = self.starting(word)
        for place, other in enumerate(self.words):
            if abs(len(other) - len(word)) <= allowed and near.is_near(other):
                found.update(self._lists[place])
        return found


class Names:
    """The distinct last parts of the names of an index, by every spelling."""

    def __init__(self, shorts: Sequence[str]) -> None:
        self.shorts = shorts
        self._folds = [fold(name) for name in shorts]
        self._text = "\n" + "\n".join(self._folds) + "\n"
        self._starts = [0, *accumulate(len(folded) + 1 for folded in self._folds)]
        self.vocabulary = Vocabulary(shorts)
        self._by_name = {name: number for number, name in enumerate(shorts)}
        self._by_fold: dict[str, list[int]] = {}
        self._by_first: dict[str, list[tuple[str, int, int, int]]] = {}
        self._by_length: dict[int, list[tuple[int, int]]] = {}
        self._overloads = [number for number, name in enumerate(shorts) if "." in name]
        for number, folded in enumerate(self._folds):
            self._by_fold.setdefault(folded, []).append(number)
            self._by_length.setdefault(len(folded), []).append((_mask(folded), number))
            tokens = subtokens(shorts[number])
            if len(tokens) > 1:
                initials = "".join(token[0] for token in tokens)
                row = initials, _mask(initials), sum(map(len, tokens)), number
                for first in sorted({initials[:2], tokens[0][:2]}):
                    self._by_first.setdefault(first, []).append(row)

    def bounds(self, query: Query) -> dict[int, int]:
        """Returns the names that can answer a query by their last part, each with the most it can get.

        Example:
            >>> Names(["all_gather_into_tensor", "wait"]).bounds(Query.of("agit"))
            {0: 500}
        """
        bounds: dict[int, int] = {}
        if query.folded:
            self._letters(query.folded, bounds)
            if query.words:
                held = set.intersection(*map(self.vocabulary.starting, query.words))
                self._raise(bounds, held, WORDS_IN_ORDER, query.folded)
            for number in self._initials(query.folded):
                bounds[number] = max(bounds.get(number, 0), INITIALS, MIXED_INITIALS, FIRST_INITIALS)
            for name in query.names:
                bounds.update((number, SYNONYM) for number in self._by_fold.get(name, ()))
            bounds.update((number, FOLDED) for number in self._by_fold.get(query.folded, ()))
        exact = self._by_name.get(query.text)
        if exact is not None:
            bounds[exact] = EXACT
        return bounds

    def number(self, name: str) -> int:
        """Returns the number of a name that is here."""
        return self._by_name[name]

    def _letters(self, letters: str, bounds: dict[int, int]) -> None:
        """Finds the names that begin with the letters, and those that hold them where there are at least three."""
        sought = letters if len(letters) > 2 else "\n" + letters
        place = self._text.find(sought)
        while place >= 0:
            start = place if len(letters) > 2 else place + 1
            number = bisect_right(self._starts, start - 1) - 1
            layer = PREFIX if self._text[start - 1] == "\n" else SUBSTRING
            self._raise(bounds, (number,), layer, letters)
            place = self._text.find(sought, self._starts[number + 1])

    def _raise(self, bounds: dict[int, int], numbers: Iterable[int], layer: int, letters: str) -> None:
        for number in numbers:
            points = layer - min(len(self._folds[number]) - len(letters), FARTHEST)
            if points > bounds.get(number, 0):
                bounds[number] = points

    def _initials(self, letters: str) -> Iterator[int]:
        if len(letters) < 2:
            return
        missing = ~_mask(letters)
        for initials, mask, length, number in self._by_first.get(letters[:2], ()):
            if length >= len(letters) and (not mask & missing or initials.startswith(letters)):
                yield number

    def ending(self, folded: str) -> list[tuple[int, bool]]:
        """Returns the names whose letters, or whose overload's, begin so, and whether these are all its letters."""
        found = [(number, True) for number in self._by_fold.get(folded, ())]
        found += [(number, False) for number in self._overloads]
        place = self._text.find("\n" + folded) if folded else -1
        while place >= 0:
            number = bisect_right(self._starts, place) - 1
            if self._folds[number] != folded:
                found.append((number, False))
            place = self._text.find("\n" + folded, place + 1)
        return found

    def near(self, query: Query) -> set[int]:
        """Returns the names that may be meant by a misspelled query."""
        allowed, found = allowed_edits(query.folded), set[int]()
        if allowed:
            mask, length = _mask(query.folded), len(query.folded)
            for size in range(length - allowed, length + allowed + 1):
                for other, number in self._by_length.get(size, ()):
                    if (mask ^ other).bit_count() <= 2 * allowed:
                        found.add(number)
        if len(query.words) > 1:
            found |= set.intersection(*map(self.vocabulary.near, query.words))
        return found


def _mask(letters: str) -> int:
    """Returns a bit for each letter's first three occurrences: two sets of letters are compared in one step.

    A slip changes at most two bits.
    """
    mask = 0
    for letter in letters:
        bit = 1 << (ord(letter) & 63)
        if mask & bit:
            bit <<= 64
            if mask & bit:
                bit <<= 64
        mask |= bit
    return mask
