"""What a query finds by other things than names: messages that code gives, types of signatures, words of summaries."""

import math
import re
from collections.abc import Callable, Iterator
from functools import cached_property

from kwindex.column import Column
from kwindex.pasted import Message, plain
from kwindex.rank import SUMMARY, WHOLE, Match
from kwindex.signatures import GAP, Asked
from kwindex.tables import Tables

MESSAGE = 880
"""For a text that is the message; a letter of it more counts more than where it is raised."""
SAME_ERROR = 10
"""For a message of the error that a pasted text begins with."""
MESSAGE_BEGUN = 600
MESSAGE_PART = 560
ERROR_CLASS = 150
TYPES = 640
FARTHEST_TYPES = 24
_LEAST_PASTED = 12
_HEAD = 20
"""Letters of a message's first piece by which messages are picked that a text may begin."""
_SAID = re.compile(r"^(?:[eE] )?(?:\[\w+\]:? )?")
"""What pytest and torchrun put before a line of a traceback."""
_NAMED = re.compile(r"([A-Za-z_][\w.]*): ")
_TRACEBACK = "Traceback (most recent call last)"
_TOLD = re.compile(r"(?:^| )[A-Za-z_][\w.]*(?:Error|Exception|Warning)\w*: ")
_ERROR = re.compile(r"error|exception|warning", re.IGNORECASE)
_WORD = re.compile(r"[a-z0-9_]+")
_STOPPED = """
a an the of to in into on for from by with and or is are was be it its this that which what where when who how do does
did at as if all each every one not no can there i my we our
"""
_STOP = frozenset(_STOPPED.split())
_ENDINGS = ("ings", "ing", "ies", "es", "ed", "s", "e")
_LEAST_COVERED = 0.6
_MOST_WORDS = 8
"""The rarest words of a query are looked for; more say nothing more."""


class Prose:
    """The messages, types and words of an index; each is laid out when it is first asked for.

    Args:
        tables: The index.
        is_class: Says whether a class of the index has a name.
    """

    def __init__(self, tables: Tables, is_class: Callable[[str], bool]) -> None:
        self._tables, self._is_class = tables, is_class

    @cached_property
    def _messages(self) -> list[tuple[str, str, str, int]]:
        """Each message's longest piece, the head of its first, its line, and the entry."""
        rows = []
        for line, number in zip(*self._tables.numbered("messages", "message_of"), strict=True):
            pieces = line.split(GAP)
            rows.append((max(pieces, key=len), pieces[0][:_HEAD], line, number))
        return rows

    def messages(self, text: str) -> Iterator[tuple[int, Match]]:
        """Yields the entries whose message a pasted text is, begins or is a part of."""
        error, said = self._split(text)
        pasted, error = plain(said), error.rpartition(".")[2]
        if len(pasted) < _LEAST_PASTED or " " not in pasted:
            return
        for longest, head, line, number in self._messages:
            if longest in pasted or head in pasted:
                message = Message.parse(line)
                if longest in pasted and message.answers(pasted):
                    points = MESSAGE + min(message.letters, 100) + self._is_of(number, error)
                    yield number, Match(points, "raises this message")
                elif letters := message.begun(pasted):
                    points = MESSAGE_BEGUN + min(letters // 2, 100) + self._is_of(number, error)
                    yield number, Match(points, "raises a message that begins so")
            elif pasted in longest:
                yield number, Match(MESSAGE_PART, "part of the message")

    def _is_of(self, number: int, error: str) -> int:
        """Returns what a message is worth for being of the error that a pasted text names."""
        return SAME_ERROR if error and self._tables.entry(number).signature.startswith(f"{error}: ") else 0

    def error(self, text: str) -> str:
        """Returns the name of the class that a pasted text begins with, "" where the index has none of that name."""
        last = self._split(text)[0].rpartition(".")[2]
        return last if self._is_error(last) else ""

    def _is_error(self, last: str) -> bool:
        """Says whether a name may be an error's: a class of the index has it, and it is written as classes are."""
        return "A" <= last[:1] <= "Z" and self._is_class(last)

    def _split(self, text: str) -> tuple[str, str]:
        """Returns the name of the error that a pasted text begins with, and the rest; of a traceback its end is taken.

        An error that was raised because of another has the other's name after its own.
        """
        text = " ".join(text.split())
        ends = [found.start() for found in _TOLD.finditer(text)] if _TRACEBACK in text else []
        text = _SAID.sub("", text[ends[-1] :].strip() if ends else text)
        error = ""
        while named := _NAMED.match(text):
            if not _ERROR.search(named[1]) and not self._is_error(named[1].rpartition(".")[2]):
                break
            error, text = error or named[1], text[named.end() :]
        return error, text

    @cached_property
    def _types(self) -> dict[str, list[int]]:
        types: dict[str, list[int]] = {}
        for line, number in zip(*self._tables.numbered("types", "type_of"), strict=True):
            types.setdefault(line, []).append(number)
        return types

    def typed(self, asked: Asked) -> Iterator[tuple[list[int], Match]]:
        """Yields the entries whose signatures have all types that are asked for, the nearest first."""
        heads = {kind.partition("[")[0].partition("|")[0] for kind in (*asked.parameters, asked.result)}
        lines = list(self._types)
        for head in sorted(heads, key=len, reverse=True):
            lines = [types for types in lines if head in types]
        found: dict[int, list[int]] = {}
        for types in lines:
            far = asked.distance(types)
            if far is not None and far <= FARTHEST_TYPES:
                found.setdefault(far, []).extend(self._types[types])
        for far in sorted(found):
            yield found[far], Match(TYPES - 10 * far, "these types" if far == 0 else "these types, and others")

    @cached_property
    def _docs(self) -> tuple[Column, list[int]]:
        numbers = self._tables.numbered("docs", "doc_of")[1]
        return Column(self._tables.section("docs"), before=b"\n"), numbers

    def described(self, text: str) -> Iterator[tuple[int, Match]]:
        """Yields the entries whose summary and name hold the words of a query, or most of them."""
        words = [_stem(word) for word in _WORD.findall(plain(text)) if word not in _STOP]
        column, numbers = self._docs
        column.ask()
        counts = {word: column.count(word) for word in dict.fromkeys(words)}
        counts = {word: counts[word] for word in sorted(counts, key=counts.__getitem__)[:_MOST_WORDS]}
        weights = {word: math.log(1 + len(numbers) / (1 + count)) for word, count in counts.items()}
        whole = sum(weights.values())
        covered: dict[int, float] = {}
        left = whole
        for word in sorted(counts, key=counts.__getitem__):
            if left >= _LEAST_COVERED * whole:  # a line that holds none of the rarer words cannot be covered any more
                for line in column.having((word,)):
                    covered[line] = covered.get(line, 0.0) + weights[word]
            else:
                for line, weight in covered.items():
                    if weight + left >= _LEAST_COVERED * whole and f" {word}" in column.line(line):
                        covered[line] = weight + weights[word]
            left -= weights[word]
        for line, weight in covered.items():
            if weight >= _LEAST_COVERED * whole and counts:
                text = column.line(line)
                name = text.partition("\t")[0]
                in_name = sum(weights[word] for word in counts if f" {word}" in name)
                points = 70 * weight / whole + 40 * in_name / whole + brevity(text)
                why = WHOLE if weight >= 0.99 * whole else f"{WHOLE}: most words"
                yield numbers[line], Match(SUMMARY + round(points), why)


def brevity(text: str) -> int:
    """Returns the points that a short summary with its name gets.

    Example:
        >>> brevity(" m f adds up"), brevity(200 * "x")
        (19, 0)
    """
    return max(0, 20 - len(text) // 10)


def _stem(word: str) -> str:
    """Returns a word without an ending, where enough is left to know it by."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word
