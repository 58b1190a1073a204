"""From the files' records to the entries of the index: what only all files together can tell."""

from collections.abc import Iterable

from kwindex.model import Entry, FileRecord

_LONGEST_CHAIN = 8


def link(records: Iterable[FileRecord]) -> list[Entry]:
    """Returns the entries of all records in the order of files and lines; imports say what they bring.

    Example:
        >>> one = FileRecord("a.py", "a", [Entry("a.f", "function", "a.py", 1, 1, "f()", "Adds.")], [])
        >>> taken = Entry("b.g", "import", "b.py", 1, 1, "from a import f as g", "")
        >>> link([FileRecord("b.py", "b", [taken], [(0, "a.f")]), one])[1].summary
        'Adds.'
    """
    ordered = sorted(records, key=lambda record: record.file)
    summaries: dict[str, str] = {}
    sources: dict[str, str] = {}
    for record in ordered:
        for entry in record.entries:
            if entry.kind != "import":
                summaries.setdefault(entry.name, entry.summary)
        for place, target in record.targets:
            sources.setdefault(record.entries[place].name, target)
    linked: list[Entry] = []
    for record in ordered:
        entries = list(record.entries)
        for place, target in record.targets:
            entries[place] = entries[place]._replace(summary=_summary(target, summaries, sources))
        linked += sorted(entries, key=lambda entry: (entry.line, -entry.end_line, entry))
    return linked


def _summary(target: str, summaries: dict[str, str], sources: dict[str, str]) -> str:
    """Returns the summary of a definition, followed through the modules that hand it on."""
    for _ in range(_LONGEST_CHAIN):
        if target in summaries:
            return summaries[target]
        if target not in sources:
            return ""
        target = sources[target]
    return ""
