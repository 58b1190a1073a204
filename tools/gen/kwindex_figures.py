"""How fast kwindex and the palette are, as their benches wrote it, for docs/understand/kwindex_index.md."""

from __future__ import annotations

import json
from typing import Any

from .sources import ROOT

PAGE = "docs/understand/kwindex_index.md"
FOLDER = "docs/assets/bench"
WHEN = {
    "palette.js": "with the page",
    "palette.css": "with the page",
    "scorer.js": "when the palette is first opened",
    "names.js": "then; from now on names are found",
    "messages.js": "when a query may be a message: it has a space and 12 letters, or quotes",
    "holes.js": "when a query is quoted: what is filled into messages",
    "types.js": "when a query has an arrow",
    "bound.js": "when a query has dots: what imports and bases lead to",
    "spans-*.js": "when a query names a file and a line: where the symbols of that file begin and end, 1,024 a file",
    "words-*.js": "when no name answers: those of the letters with which its words begin",
    "rows-*.js": "when one pauses: what the ten rows show besides names, 32 symbols a file",
}
"""Each kind of file of the palette, and when palette.js loads it."""
LIMIT_KB = 100


def parts() -> dict[str, list[str]]:
    """The generated parts of the page, by name."""
    return {"speed": speed(), "site": site(), "palette": palette(), "payload": payload()}


def result(name: str) -> dict[str, Any]:
    """What a bench wrote."""
    found: dict[str, Any] = json.loads((ROOT / FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def measured_on(name: str) -> str:
    """The command that measured, on what machine, and how busy that was."""
    on, load = result(name)["machine"], result(name)["figures"]["load"]
    where = f"{on['cores']} cores of an {on['processor']}, Python {on['python']}, torch {on['torch']}, {on['day']}, "
    where += f"load average {load:.1f}"
    return f"`python tools/bench/{name}.py` on {where}"


def speed() -> list[str]:
    """The time of builds and searches."""
    build, search = result("kwindex_build"), result("kwindex_search")["figures"]
    took = build["figures"]
    cold = (
        f"{took['cold s']:.1f} s ({took['cold, seconds of all processors']:.1f} s of processor time; the least of 5, "
        f"the slowest {took['cold, the slowest s']:.1f} s)"
    )
    said = (
        f"All of torch ({build['files']:,} files): {measured_on('kwindex_build')}; searches among "
        f"{search['entries']:,} entries, with ours: {measured_on('kwindex_search')}."
    )
    answered = (
        f"{search['search p95 ms']:.1f} ms (half of them: {search['search median ms']:.1f} ms; the slowest of "
        f"{search['queries']}: {search['search most ms']:.1f} ms)"
    )
    one, command = took["one changed file, update s"], took["one changed file, update command s"]
    peers = [
        f"| for comparison: {name.replace(' s ', ', ').replace('(', '').replace(')', '')} | {took[name]:.1f} s | |"
        for name in took
        if "one core" in name
    ]
    return [
        said,
        "",
        "| what | time | aim |",
        "|---|---|---|",
        f"| index from nothing, 2 processes | {cold} | 6 s |",
        f"| index again, nothing changed | {took['unchanged s']:.2f} s | 0.6 s |",
        f"| one changed file, `kwindex.update` in a running process | {one:.2f} s | 0.1 s |",
        f"| one changed file, the command `kwindex update` | {command:.2f} s | |",
        f"| search from a cold start of the command | {search['command ms'] / 1000:.2f} s | 0.15 s |",
        f"| search in a running process, 19 of 20 queries | {answered} | 10 ms |",
        *peers,
    ]


def site() -> list[str]:
    """The time that this site takes."""
    built = result("site_build")
    took = built["figures"]
    pages, least, slowest = built["pages"], took["least s"], took["slowest s"]
    return [
        f"This site, {pages:,} pages, is generated, built in two processes and checked in {least:.0f} s (aim: 30 s; "
        f"the least of {took['builds']}, the slowest {slowest:.0f} s): {measured_on('site_build')}."
    ]


def palette() -> list[str]:
    """The time that the palette takes."""
    whole = result("palette_keys")
    took = whole["figures"]
    said = (
        f"The palette with {whole['symbols']:,} symbols, in Chromium: {measured_on('palette_keys')}; every golden "
        f"query is typed key by key, {took['keys']:,} keys."
    )
    return [
        said,
        "",
        "| what | time | aim |",
        "|---|---|---|",
        f"| from the first key to an index that answers, the middle of {took['openings']} | "
        f"{took['opening ms'] / 1000:.2f} s | 0.5 s |",
        f"| a key: search, rows and layout, 99 of 100 | {took['99 of 100']:.1f} ms | 16 ms |",
        f"| the slowest key | {took['all']:.1f} ms | 16 ms |",
    ]


def payload() -> list[str]:
    """What the palette loads, and when."""
    whole = result("palette_keys")
    figures, symbols = whole["figures"], whole["symbols"]
    rows = []
    for name in filter(figures["bytes"].__contains__, WHEN):
        files, most, _ = figures["bytes"][name]
        each = f" each at most, {files} files" if files > 1 else ""
        rows.append(f"| `{name}` | {most / 1000:.1f} kB{each} | {WHEN[name]} |")

    def share(size: int) -> str:
        return f"{size * 10 / symbols:.0f} kB"

    return [
        f"Compressed with gzip, for {symbols:,} symbols:",
        "",
        "| file | size | when it is loaded |",
        "|---|---:|---|",
        *rows,
        "",
        f"For 10,000 symbols the names are {share(figures['bytes']['names.js'][1])}. With what it needs besides, half "
        f"of the golden queries load at most {share(figures['loads half'])} where they are the first that is asked, "
        f"and none more than {share(figures['loads most'])}; the aim is {LIMIT_KB} kB.",
    ]
