"""An index for the palette: its columns as two scripts, names first, and what is shown and searched besides later.

They are scripts and not JSON so that a page that was opened as a file can load them. Columns compress well: names that
follow each other share their owners, and lines only grow. What other columns tell is left out: an entry's name in its
signature, and an import's summary where what it brings has it.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from kwindex import pieces, prose, rank, searcher
from kwindex.kinds import TABLE
from kwindex.link import LONGEST_CHAIN, link
from kwindex.model import Entry
from kwindex.spelling import fold, short
from kwindex.synonyms import LIBRARY
from kwindex.synonyms import TABLE as SYNONYMS

PAGE, BY_NAME, IN_FILE, IN_FILE_AND_LINE = "0", "1", "2", "3"
"""Where on its page an entry stands: nowhere, under its qualified name, under its name in the file, with its line."""


MARK = "§"
"""Stands for an entry's own name in its signature, and before the summary of an import that is not linked."""


class Address(NamedTuple):
    """Where a site shows an entry: the page from the site's root, '' where it has none, and how the anchor is made."""

    page: str
    anchor: str = PAGE


class Payload(NamedTuple):
    """The two scripts."""

    names: str
    details: str


def payload(entries: Iterable[Entry], address: Callable[[Entry], Address]) -> Payload:
    """Returns the scripts that hold an index for the palette.

    Args:
        entries: The entries of an index.
        address: Where the site shows each; the entries of one file are all shown on one page.

    Example:
        >>> entry = Entry("m.f", "function", "m.py", 1, 2, "f()", "Does it.")
        >>> payload([entry], lambda entry: Address("m/", BY_NAME)).details
        'kwindexDetails({"signatures":"§()","summaries":"Does it."})'
    """
    ordered = sorted(entries, key=lambda entry: entry.file)
    addresses = [address(entry) for entry in ordered]
    kinds = {kind.word: number for number, kind in enumerate(TABLE)}
    owners, owner = _numbered([entry.name[: len(entry.name) - len(short(entry.name))] for entry in ordered])
    files, file = _numbered([(entry.file, place.page) for entry, place in zip(ordered, addresses, strict=True)])
    columns = {
        "settings": settings(),
        "files": files,
        "owners": owners,
        "kinds": "".join(base36(kinds[entry.kind]) for entry in ordered),
        "anchors": "".join(place.anchor for place in addresses),
        "shorts": "\n".join(short(entry.name) for entry in ordered),
        "owner": owner,
        "file": file,
        "lines": ",".join(_lines(ordered)),
        "ends": ",".join(
            base36(entry.end_line - entry.line) if entry.end_line > entry.line else "" for entry in ordered
        ),
    }
    details = {
        "signatures": _column(map(_signature, ordered)),
        "summaries": _column(_summaries(ordered)),
    }
    return Payload(f"kwindexNames({_encoded(columns)})", f"kwindexDetails({_encoded(details)})")


def settings() -> dict[str, Any]:
    """Returns the numbers and tables of the search, so that they stand in one place.

    Example:
        >>> settings()["EXACT"] == rank.EXACT
        True
    """
    numbers = {
        name: value for module in (rank, prose) for name, value in vars(module).items() if _is_number(name, value)
    }
    return {
        **numbers,
        "LEAST_COVERED": prose._LEAST_COVERED,
        "LEAST_PASTED": prose._LEAST_PASTED,
        "HEAD": prose._HEAD,
        "FILLERS": sorted(rank._FILLERS),
        "MANY": searcher._MANY,
        "MOST_NAME_WORDS": searcher._MOST_WORDS,
        "MOST_PROSE_WORDS": prose._MOST_WORDS,
        "WORDY": searcher._WORDY,
        "STOP": sorted(prose._STOP),
        "ENDINGS": list(prose._ENDINGS),
        "NAME_LETTERS": pieces._NAME_LETTERS,
        "NAME_WORDS": pieces._NAME_WORDS,
        "SPOKEN": sorted(pieces._SPOKEN),
        "KINDS": [
            {"word": kind.word, "plural": kind.plural, "weight": kind.weight, "named": kind.named} for kind in TABLE
        ],
        "MARK": MARK,
        "LONGEST_CHAIN": LONGEST_CHAIN,
        "LIBRARY": LIBRARY,
        "SYNONYMS": {fold(word): list(names) for names, words in SYNONYMS for word in words},
    }


def base36(number: int) -> str:
    """Returns a number from 0 in the digits that JavaScript's parseInt(text, 36) reads.

    Example:
        >>> base36(0), base36(35), base36(36)
        ('0', 'z', '10')
    """
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = digits[number % 36]
    while number >= 36:
        number //= 36
        text = digits[number % 36] + text
    return text


def _is_number(name: str, value: object) -> bool:
    return name.isupper() and not name.startswith("_") and isinstance(value, int)


def _numbered(values: Sequence[Any]) -> tuple[list[Any], str]:
    """Returns the different values, and for each value its number, equal ones that follow each other as runs."""
    numbers: dict[Any, int] = {}
    runs = []
    for value, run in groupby(values):
        number = numbers.setdefault(value, len(numbers))
        times = sum(1 for _ in run)
        runs.append(base36(number) + (f"*{base36(times)}" if times > 1 else ""))
    return list(numbers), ",".join(runs)


def _lines(ordered: Sequence[Entry]) -> Iterable[str]:
    """Yields each line as the step from the one before it in the same file."""
    for _, group in groupby(ordered, key=lambda entry: entry.file):
        before = 0
        for entry in group:
            yield base36(entry.line - before)
            before = entry.line


def _signature(entry: Entry) -> str:
    """Returns a signature with a mark for the entry's name; of `from m import NAME` only the module and the mark."""
    text, own = entry.signature, short(entry.name)
    if MARK in text:
        return f"{MARK}{MARK}{text}"
    found = re.fullmatch(rf"from (\S+) import {re.escape(own)}((?: .*)?)", text) if entry.kind == "import" else None
    if found is not None:
        return f"{found[1]}{MARK}{found[2]}"
    return text.replace(own, MARK, 1) if own else text


def _summaries(ordered: Sequence[Entry]) -> Iterable[str]:
    """Yields summaries; of an import nothing where linking gives its summary, else a mark before it."""
    linked = link([entry._replace(summary="") if entry.kind == "import" else entry for entry in ordered])
    for entry, made in zip(ordered, linked, strict=True):
        known = entry.kind == "import" and entry.summary == made.summary
        yield "" if known else f"{MARK}{entry.summary}" if entry.kind == "import" else entry.summary


def _column(texts: Iterable[str]) -> str:
    return "\n".join(text.replace("\n", " ") for text in texts)


def _encoded(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
