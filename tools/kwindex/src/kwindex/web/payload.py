"""An index for the palette: the names as one script, and besides them parts, of which a query loads those it needs.

They are scripts and not JSON so that a page that was opened as a file can load them. Columns compress well: names that
follow each other share their owners. What only other queries ask for stays away: words by their first letter, messages,
types, what imports lead to, and what a row of hits shows.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from kwindex import code, grammar, paths, pieces, places, prose, rank, searcher
from kwindex.exported import ALL, Exported
from kwindex.kinds import ELSEWHERE, NOTES, TABLE, UNNAMED
from kwindex.link import bases_of, bound_to
from kwindex.model import Entry
from kwindex.signatures import GAP
from kwindex.spelling import fold, segments, short
from kwindex.synonyms import LIBRARY
from kwindex.synonyms import TABLE as SYNONYMS

PAGE, BY_NAME, IN_FILE, IN_FILE_AND_LINE = "0", "1", "2", "3"
"""Where on its page an entry stands: nowhere, under its qualified name, under its name in the file, with its line."""

ROWS = 32
"""Entries whose rows are one part."""
SPANS = 1024
"""Entries whose lines are one part."""

_INDEXED = re.compile("[a-z0-9_]")
"""What a word that can be asked for begins with."""
_HOLE = re.compile(r"\{([^{}]*)\}")
"""What is filled into a message: only queries in quotes ask for it as it is written."""
_LETTERS = [f"words-{letter}" for letter in "0abcdefghijklmnopqrstuvwxyz"]


class Address(NamedTuple):
    """Where a site shows an entry: the page from the site's root, '' where it has none, and how the anchor is made."""

    page: str
    anchor: str = PAGE


class Payload(NamedTuple):
    """The script of the names, and those of the parts, by name."""

    names: str
    parts: dict[str, str]


def payload(entries: Iterable[Entry], address: Callable[[Entry], Address]) -> Payload:
    """Returns the scripts that hold an index for the palette.

    Args:
        entries: The entries of an index.
        address: Where the site shows each; the entries of one file are all shown on one page.

    Example:
        >>> entry = Entry("m.f", "function", "m.py", 1, 2, "f()", "Does it.")
        >>> made = payload([entry], lambda entry: Address("m/", BY_NAME))
        >>> list(made.parts)
        ['messages', 'holes', 'types', 'bound', 'words-d', 'words-f', 'words-i', 'words-m', 'rows-0', 'spans-0']
        >>> made.parts["rows-0"]
        'kwindexPart("rows-0",{"lines":"1","signatures":"f()","summaries":"Does it."})'
    """
    ordered = sorted(entries, key=lambda entry: (entry.file, entry.line, entry))  # ties are broken by this order
    docs = [pieces.doc(entry) for entry in ordered]
    words = _words([doc for doc in docs if doc])
    said = [entry.signature if entry.kind in UNNAMED else "" for entry in ordered]
    values: dict[str, object] = {
        "messages": _column(_HOLE.sub("{}", text) for text in said),
        "holes": _column(GAP.join(_HOLE.findall(text)) for text in said),
        "types": _column(pieces.types(entry) for entry in ordered),
        "bound": _bound(ordered),
        **words,
        **{f"rows-{number}": _rows(part) for number, part in enumerate(_parted(ordered, ROWS))},
        **{f"spans-{number}": _spans(part) for number, part in enumerate(_parted(ordered, SPANS))},
    }
    parts = {name: f'kwindexPart("{name}",{_encoded(value)})' for name, value in values.items()}
    names = {**_names(ordered, address), "none": sorted({*_LETTERS} - {*words})}
    brevities = [
        (entry.kind, base36(prose.brevity(doc)) if doc else "-") for entry, doc in zip(ordered, docs, strict=True)
    ]
    names["told"] = sorted({kind for kind, brevity in brevities if brevity != "-"})  # the kinds that have any
    names["docs"] = "".join(brevity for kind, brevity in brevities if kind in names["told"])
    return Payload(f"kwindexNames({_encoded(names)})", parts)


def _names(ordered: Sequence[Entry], address: Callable[[Entry], Address]) -> dict[str, Any]:
    addresses = [address(entry) for entry in ordered]
    kinds = {kind.word: number for number, kind in enumerate(TABLE)}
    owners, owner = _numbered([entry.name[: len(entry.name) - len(short(entry.name))] for entry in ordered])
    shorts = [short(entry.name) for entry in ordered]
    # A letter that stands for itself in JSON where there is one: of 10,000 names, 0.7 kB less than with line ends.
    between = next(mark for mark in (*" ~^|", "\n") if not any(mark in name for name in shorts))
    files, file = _numbered([(entry.file, place.page) for entry, place in zip(ordered, addresses, strict=True)])
    return {
        "settings": settings(),
        "files": files,
        "owners": list(_led(owners, ordered)),
        "kinds": "".join(base36(kinds[entry.kind]) for entry in ordered),
        "anchors": "".join(place.anchor for place in addresses),
        "shorts": between.join(shorts),
        "between": between,
        "owner": owner,
        "file": file,
    }


def _led(owners: Sequence[str], ordered: Sequence[Entry]) -> Iterator[str]:
    """Yields owners, in the order of their first entries: how far back an entry is that it begins with, and its rest.

    One that begins with no entry before its first one stands whole.

    Example:
        >>> names = "m", "m.C", "m.C.f", "m.C.f.lib.g", "op::h"
        >>> entries = [Entry(name, "class", "m.py", 1, 1, "", "") for name in names]
        >>> list(_led(["", "m.", "m.C.", "m.C.f.lib.", "op::"], entries))
        [':', '1:', '1:', '1:lib.', ':op::']
    """
    last: dict[str, int] = {}
    left = iter(owners)
    wanted = next(left, None)
    for number, entry in enumerate(ordered):
        if wanted is not None and entry.name == wanted + short(entry.name):
            head = wanted.rpartition(".")[0]
            while head and head not in last:
                head = head.rpartition(".")[0]
            yield f"{base36(number - last[head])}:{wanted[len(head) + 1 :]}" if head else f":{wanted}"
            wanted = next(left, None)
        last[entry.name] = number


def settings() -> dict[str, Any]:
    """Returns the numbers and tables of the search, so that they stand in one place.

    Example:
        >>> settings()["EXACT"] == rank.EXACT
        True
    """
    numbers = {
        name: value
        for module in (rank, prose, paths, places)
        for name, value in vars(module).items()
        if _is_number(name, value)
    }
    return {
        **numbers,
        "LEAST_COVERED": prose._LEAST_COVERED,
        "LEAST_PASTED": prose._LEAST_PASTED,
        "HEAD": prose._HEAD,
        "UNKNOWN": rank.UNKNOWN,
        "FORMS": code.FORMS,
        "NOTED": grammar.NOTED,
        "NOTES": NOTES,
        "FILE_NAMED": places.FILE_NAMED,
        "FUNCTION_NAMED": places.FUNCTION_NAMED,
        "LINE_NAMED": places.LINE_NAMED,
        "FILLERS": sorted(rank._FILLERS),
        "MANY": searcher._MANY,
        "MOST_NAME_WORDS": searcher._MOST_WORDS,
        "MOST_PROSE_WORDS": prose._MOST_WORDS,
        "WORDY": searcher._WORDY,
        "STOP": sorted(prose._STOP),
        "ENDINGS": list(prose._ENDINGS),
        "NAME_LETTERS": pieces._NAME_LETTERS,
        "NAME_WORDS": pieces._NAME_WORDS,
        "KINDS": [
            {"word": kind.word, "plural": kind.plural, "weight": kind.weight, "named": kind.named} for kind in TABLE
        ],
        "ELSEWHERE": sorted(ELSEWHERE),
        "ROWS": ROWS,
        "SPANS": SPANS,
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
    """Returns the different values, and how far back from the next new one each is, as runs where equal ones follow.

    What comes again has mostly been there shortly before: small numbers that are alike, which compress well.

    Example:
        >>> _numbered(["a", "a", "b", "a", "c"])
        (['a', 'b', 'c'], '0*2,0,2,0')
    """
    numbers: dict[Any, int] = {}
    runs = []
    for value, run in groupby(values):
        back = len(numbers) - numbers.setdefault(value, len(numbers))
        times = sum(1 for _ in run)
        runs.append(base36(back) + (f"*{base36(times)}" if times > 1 else ""))
    return list(numbers), ",".join(runs)


def _bound(ordered: Sequence[Entry]) -> dict[str, Any]:
    """Returns what each import's name stands for: what that stands in, and its own last part where that is another.

    With it the bases of each class, as it names them, and what stars take of modules whose `__all__` tells. Nothing is
    told of what is not in the index: it leads nowhere.
    """
    known = {segments(entry.name)[0] for entry in ordered if segments(entry.name)}
    imports = [entry for entry in ordered if entry.kind == "import"]
    targets = [target if target.partition(".")[0] in known else "" for target in map(bound_to, imports)]
    owners, owner = _numbered([target.rpartition(".")[0] for target in targets])
    last = [target.rpartition(".")[2] for target in targets]
    lasts = ["" if one == short(entry.name) else one or "-" for one, entry in zip(last, imports, strict=True)]
    bases = _column(" ".join(bases_of(entry.signature)) for entry in ordered if entry.kind == "class")
    return {
        "owners": owners,
        "owner": owner,
        "lasts": _column(lasts),
        "bases": bases,
        "stars": _stars(imports, ordered),
    }


def _stars(imports: Sequence[Entry], ordered: Sequence[Entry]) -> dict[str, str]:
    """Returns for each module that a star takes names of these names, and last `*` where there may be more."""
    taken = {bound_to(entry) for entry in imports if short(entry.name) == "*"}
    named = {
        entry.name.removesuffix(f".{ALL}"): entry.signature for entry in reversed(ordered) if short(entry.name) == ALL
    }
    told = {module: Exported.of(named[module]) for module in sorted(taken & named.keys())}
    return {name: " ".join([*sorted(one.names), *"*" * one.more]) for name, one in told.items() if one is not None}


def _words(docs: Sequence[str]) -> dict[str, str]:
    """Returns by first letter the words of the docs, each with the steps from one doc that has it to the next.

    A word is found by its beginning, so one that another word of the same doc begins with is left out.
    """
    numbers: dict[str, list[int]] = {}
    for number, doc in enumerate(docs):
        words = sorted({word for word in doc.split(" ") if _INDEXED.match(word)})
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if not following.startswith(word):
                numbers.setdefault(word, []).append(number)
    lines: dict[str, list[str]] = {}
    for word in sorted(numbers):
        steps = [base36(b - a) for a, b in zip([0, *numbers[word]], numbers[word], strict=False)]
        letter = word[0] if word[0].isalpha() else "0"
        lines.setdefault(f"words-{letter}", []).append(f"{word} {','.join(steps)}")
    return {part: "\n".join(lines[part]) for part in sorted(lines)}


def _rows(entries: Sequence[Entry]) -> dict[str, str]:
    return {
        "lines": ",".join(base36(entry.line) for entry in entries),
        "signatures": _column(entry.signature for entry in entries),
        "summaries": _column(entry.summary for entry in entries),
    }


def _parted(entries: Sequence[Entry], many: int) -> Iterator[Sequence[Entry]]:
    return (entries[first : first + many] for first in range(0, len(entries), many))


def _spans(entries: Sequence[Entry]) -> str:
    """Returns for each entry how many lines it begins after the one before, and how many lines more than one it has."""
    first = [0, *(entry.line for entry in entries)]
    steps = (
        f"{entry.line - before},{entry.end_line - entry.line}" for before, entry in zip(first, entries, strict=False)
    )
    return " ".join(step.removesuffix(",0") for step in steps)


def _column(texts: Iterable[str]) -> str:
    return "\n".join(text.replace("\n", " ") for text in texts)


def _encoded(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
