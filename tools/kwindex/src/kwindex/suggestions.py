"""Names to offer where a query found nothing."""

from collections.abc import Iterable

from kwindex.kinds import TABLE, UNNAMED
from kwindex.model import Entry
from kwindex.names import Names
from kwindex.rank import NearWord, among
from kwindex.spelling import fold, subtokens
from kwindex.tables import Tables

_LEAST_LIKE = 0.2
_UNOFFERED = frozenset(number for number, kind in enumerate(TABLE) if kind.word in {*UNNAMED, "import"})


def suggest(text: str, entries: Iterable[Entry], limit: int = 5) -> list[str]:
    """Returns the names that share most letter triples with a query that found nothing.

    Example:
        >>> entry = Entry("m.reduce_scatter", "function", "m.py", 1, 1, "", "")
        >>> suggest("scatter_everything", [entry]), suggest("zzz", [entry])
        (['reduce_scatter'], [])
    """
    tables = Tables.of(list(entries))
    return near_names(text, tables, Names(tables), limit)


def near_names(text: str, tables: Tables, names: Names, limit: int = 5) -> list[str]:
    """Returns the names of an index that are likest to a query, the likest first."""
    asked = _triples(fold(text))
    words = [NearWord(word) for word in subtokens(text) if len(word) > 2]
    best: dict[str, float] = {}
    for number in names.sharing(asked):
        name = names.name(number)
        own = _triples(fold(name))
        shared = len(asked & own)
        likeness = 2 * shared / (len(asked) + len(own)) + sum(map(among(subtokens(name)), words))
        if likeness >= _LEAST_LIKE and any(tables.kinds[entry] not in _UNOFFERED for entry in tables.named(number)):
            best[name] = likeness
    return sorted(best, key=lambda name: (-best[name], name))[:limit]


def _triples(letters: str) -> set[str]:
    return {letters[place : place + 3] for place in range(len(letters) - 2)}
