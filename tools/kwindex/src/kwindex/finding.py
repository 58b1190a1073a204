"""The commands `kwindex search` and `kwindex evaluate`."""

import argparse
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from kwindex.cli import NOTHING_FOUND, OK, USAGE
from kwindex.errors import KwindexError
from kwindex.grammar import words
from kwindex.rank import Hit
from kwindex.ready import open_searcher
from kwindex.searcher import Searcher
from kwindex.store import paths_of

FROM_STDIN = "-"
"""The query that says that stdin has the queries."""
_PAGER = "less -FRX"

_LONGEST = 400
"""Letters of a signature that are shown: an `__all__` is kept whole, however long it is."""


def run_search(options: argparse.Namespace) -> int:
    """Prints what answers a query, the best first."""
    query = os.fsencode(" ".join(options.query)).decode("utf-8", "replace").strip()
    if query == FROM_STDIN:
        return _run_searches(options)
    if not query:
        raise KwindexError("the query is empty; give a name, such as all_reduce")
    searcher = open_searcher(options.index)
    hits = searcher.search(query, options.limit)
    if options.json:
        print(json.dumps(located([hit.as_dict() for hit in hits], paths_of(options.index)), indent=1))
    else:
        coloured = _coloured(options.color)
        lines = [*shown(hits, coloured, paths_of(options.index) if coloured else {})]
        _print(lines, not options.no_pager)
    return OK if hits else _say_nothing_found(query, searcher)


def _run_searches(options: argparse.Namespace) -> int:
    """Answers the queries that stdin has, one a line: in JSON a line for each, else the hits below the query.

    One that cannot be asked, as of a kind that there is not, is answered by nothing; stderr says why.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    searcher, code = open_searcher(options.index), OK
    coloured = _coloured(options.color)
    paths = paths_of(options.index) if coloured or options.json else {}
    for query in filter(None, map(str.strip, sys.stdin)):
        hits, refused = [], ""
        try:
            hits = searcher.search(query, options.limit)
        except KwindexError as error:
            refused = str(error)
        if options.json:
            print(json.dumps(located([hit.as_dict() for hit in hits], paths)))
        else:
            print(f"{query}:", *(f"  {line}" for line in shown(hits, coloured, paths)), sep="\n")
        if refused:
            print(f"kwindex: {query!r}: {refused}", file=sys.stderr)
        code = max(code, USAGE if refused else OK if hits else _say_nothing_found(query, searcher))
    return code


def _say_nothing_found(query: str, searcher: Searcher) -> int:
    print(f"kwindex: nothing found for {query!r}{_hint(query, searcher)}", file=sys.stderr)
    return NOTHING_FOUND


def _hint(query: str, searcher: Searcher) -> str:
    """Returns what may lead on where a query found nothing."""
    asked = words(query)
    if asked and asked != " ".join(query.split()) and (kept := searcher.search(asked, 1)):
        return f"; without its filters there is {kept[0].entry.name}"
    if near := searcher.suggest(query):
        return f"; did you mean {', '.join(near)}?"
    return f" among {len(searcher.entries)} entries; try a part of the name, or words of what it does"


def shown(hits: Iterable[Hit], coloured: bool, paths: Mapping[str, str]) -> Iterable[str]:
    r"""Yields the lines that show hits to people: plain text, or in colours, places as links to where the files are.

    Example:
        >>> from kwindex.model import Entry
        >>> hit = Hit(Entry("m.f", "function", "m.py", 3, 4, "f()", ""), 900, "exact name")
        >>> list(shown([hit], False, {}))
        ['m.f  function  (exact name)', '  m.py:3', '  f()']
        >>> list(shown([hit], True, {"m.py": "/src/m.py"}))[1]
        '  \x1b]8;;file:///src/m.py#L3\x1b\\\x1b[36mm.py:3\x1b[0m\x1b]8;;\x1b\\'
    """
    bold, dim, kind, place, plain = ("\x1b[1m", "\x1b[2m", "\x1b[35m", "\x1b[36m", "\x1b[0m") if coloured else [""] * 5
    for hit in hits:
        entry = hit.entry
        yield f"{bold}{entry.name}{plain}  {kind}{entry.kind}{plain}  {dim}({hit.why}){plain}"
        text = f"{place}{entry.file}:{entry.line}{plain}"
        if entry.file in paths:
            text = _link(paths[entry.file], entry.line, text)
        yield f"  {text}"
        yield from (f"  {text}" for text in (_cut(entry.signature), entry.summary) if text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def located(rows: Iterable[dict[str, Any]], paths: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns rows of entries with the path at which each file is on this machine, '' where that is not known.

    Example:
        >>> located([{"file": "m.py", "line": 3}], {"m.py": "/src/m.py"})
        [{'file': 'm.py', 'line': 3, 'path': '/src/m.py'}]
    """
    return [{**row, "path": paths.get(row["file"], "")} for row in rows]


def _link(path: str, line: int, text: str) -> str:
    """Returns text that terminals show as a link to a line of a file."""
    from urllib.parse import quote

    return f"\x1b]8;;file://{quote(path)}#L{line}\x1b\\{text}\x1b]8;;\x1b\\"


def _print(lines: list[str], paged: bool) -> None:
    """Prints lines, through a pager where they are more than the screen has."""
    text = "".join(f"{line}\n" for line in lines)
    command = os.environ.get("KWINDEX_PAGER", os.environ.get("PAGER", _PAGER))
    if paged and command and sys.stdout.isatty() and len(lines) >= os.get_terminal_size().lines > 0:
        import shlex
        import subprocess

        sys.stdout.flush()
        try:
            data = text.encode(sys.stdout.encoding, "backslashreplace")
            subprocess.run(shlex.split(command), input=data, check=False)
            return
        except (OSError, ValueError):
            pass  # there is no such pager, or its quotes do not close: the screen has to do
    sys.stdout.write(text)


def _coloured(wanted: str) -> bool:
    if wanted != "auto":
        return wanted == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def run_evaluate(options: argparse.Namespace) -> int:
    """Asks golden queries and prints the figures of each stratum, and the queries that failed."""
    from kwindex.quality import as_dict, evaluate, read_golden, table

    results = evaluate(open_searcher(options.index).search, read_golden(options.golden))
    print(json.dumps(as_dict(results), indent=1) if options.json else table(results))
    return OK
