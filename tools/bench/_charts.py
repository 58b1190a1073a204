"""Draw the charts and tables of the pages of speed in docs from the results in docs/assets/bench.

    python tools/bench/_charts.py [--check]

The results are what the benches wrote with --json. With --check nothing is written, and it fails when something
would change.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from html import escape
from pathlib import Path
from typing import Any

from _machine import sentence

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULTS = DOCS / "assets" / "bench"
PAGES = tuple(
    DOCS / f"{page}.md"
    for page in (
        "understand/shared_memory_speed",
        "understand/eager_speed",
        "understand/checked_mode",
        "do/use_shm_backend",
        "do/share_buffers_between_ranks",
        "do/several_hosts",
    )
)
COLOURS = ("#5e35b1", "#b93a00", "#22692a", "#1565c0", "#6d4c41")
GROUND, INK, PALE = "#eef0f4", "#374151", "#b6bcc6"
"""A picture brings its own ground: it knows nothing of the colours of the page that shows it."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 340, 80, 110, 20, 40

Curves = dict[str, list[tuple[float, float]]]


def size_words(size: float) -> str:
    """Return 4, 64 Ki, 1 Mi."""
    for unit, word in ((1 << 20, " Mi"), (1 << 10, " Ki")):
        if size >= unit:
            return f"{size / unit:g}{word}"
    return f"{size:g}"


def chart(title: str, curves: Curves) -> str:
    """Return an SVG with both axes logarithmic: bytes and microseconds."""
    xs = [x for points in curves.values() for x, _ in points]
    ys = [y for points in curves.values() for _, y in points]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(x / min(xs)) / math.log(max(xs) / min(xs))

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(y) - low) / (high - low)

    parts = []
    for power in range(low, high + 1):
        y = down(10.0**power)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{PALE}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} us</text>')
    for x in sorted(set(xs))[::2]:
        parts.append(f'<text x="{across(x):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{size_words(x)}</text>')
    labels = _apart({name: down(points[-1][1]) for name, points in curves.items()})
    for colour, (name, points) in zip(COLOURS, curves.items(), strict=False):
        line = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = WIDTH - RIGHT + 6, labels[name] + 4
        parts.append(f'<text x="{x}" y="{y:.1f}" fill="{colour}">{escape(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="12" '
        f'font-family="sans-serif" fill="{INK}"><title>{escape(title)}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{GROUND}"/>{"".join(parts)}</svg>\n'
    )


def _apart(heights: dict[str, float]) -> dict[str, float]:
    """Return where the names stand so that none covers another one."""
    placed: dict[str, float] = {}
    for name, y in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = max([y, *(other + 14 for other in placed.values())])
    return placed


def curves_of(rows: list[dict[str, Any]], names: dict[str, str]) -> Curves:
    """Return a curve for each column."""
    return {word: [(row["bytes"], row[key]) for row in rows] for key, word in names.items()}


def table(result: dict[str, Any], columns: dict[str, str]) -> str:
    """Return a Markdown table; what misses its limit stands in bold."""
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns)]
    for row in result["rows"]:
        over = missed(result, row)
        lines.append("| " + " | ".join(_cell(row, key, key in over) for key in columns) + " |")
    return "\n".join(lines)


def missed(result: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Return the columns in which a row is over its limit.

    A row's own `limit` is that of its `ratio`, or else of its time in `shm_ms` or `ms`. Each of a result's `limits` is
    the `most` of a `column`, in rows of `from` to `to` bytes where it says so.
    """
    own = next((key for key in ("ratio", "shm_ms", "ms") if key in row), None)
    over = [own] if own is not None and row.get("limit") is not None and row[own] > row["limit"] else []
    for limit in result.get("limits", []):
        within = limit.get("from", 0) <= row["bytes"] <= limit.get("to", math.inf)
        if within and row[limit["column"]] > limit["most"]:
            over.append(limit["column"])
    return over


def _cell(row: dict[str, Any], key: str, bold: bool) -> str:
    value = row[key]
    if key == "bytes":
        return size_words(value)
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 1000 else 0
    words = f"{value:.{digits}f}"
    return f"**{words}**" if bold else words


MPIS = {"shm": "comm_shm", "impi-rt": "Intel MPI", "openmpi": "Open MPI", "mpich": "MPICH"}
GLOO = {"shm_us": "comm_shm", "gloo_us": "gloo"}
FLOOR = {f"{what}_us": what for what in ("all_reduce", "flags", "memcpy", "crossing", "kept")}
OF_FLOOR = {"of_flags": "in exchanges", "of_memcpy": "in copies", "of_crossing": "in crossings"}
LAYOUT = {
    "shm_against_mpi": (MPIS, {"bytes": "bytes", **MPIS, "ratio": "of the best", "limit": "at most"}),
    "shm_all_reduce_2": (GLOO, {"bytes": "bytes", **GLOO, "ratio": "of gloo", "limit": "at most", "p99": "p99/median"}),
    "shm_all_reduce_4": (None, {"bytes": "bytes", **GLOO, "ratio": "of gloo", "limit": "at most", "p99": "p99/median"}),
    "shm_all_reduce_8": (None, {"bytes": "bytes", **GLOO, "ratio": "of gloo", "limit": "at most", "p99": "p99/median"}),
    "shm_p2p": (
        None,
        {
            "way": "way",
            "bytes": "bytes",
            "gloo_us": "gloo",
            "shm_us": "comm_shm",
            "shm_gb_s": "GB/s",
            "ratio": "of gloo",
        },
    ),
    "shm_cost": (None, {"what": "what", "shm_ms": "comm_shm", "peer_ms": "peer", "limit": "at most"}),
    "shm_fully_shard": (None, {"what": "what", "ms": "ms a step", "ratio": "of gloo", "limit": "at most"}),
    "eager_overhead": (
        None,
        {"name": "call", "ours_us": "ours, us", "torch_us": "torch's, us", "ratio": "ratio", "limit": "at most"},
    ),
    "over_gloo": (
        None,
        {"name": "function", "bytes": "bytes", "us": "ours, us", "ratio": "of torch's", "low": "from", "high": "to"},
    ),
    "checked_mode": (None, {"way": "call", "us": "us", "ratio": "of an unchecked one", "limit": "at most"}),
    "checked_mode_faults": (None, {"fault": "what differs", "ms": "ms until the error", "limit": "at most"}),
    "shm_symmetric": (
        None,
        {
            "bytes": "bytes",
            "two_shot": "two-shot",
            "one_shot": "one-shot",
            "all_reduce shm": "`dist.all_reduce`, shm",
            "all_reduce gloo": "`dist.all_reduce`, gloo",
            "view": "`all_gather()`",
            "copied": "`all_gather(out)`",
            "all_gather shm": "gather, shm",
            "all_gather gloo": "gather, gloo",
        },
    ),
    "shm_hosts": (
        None,
        {"collective": "collective", "bytes": "bytes", "gloo_us": "gloo", "shm_us": "comm_shm", "ratio": "of gloo"},
    ),
    "shm_floor": (FLOOR, {"bytes": "bytes", **FLOOR, **OF_FLOOR}),
}


def made() -> dict[Path, str]:
    """Return every file that is made, with its text."""
    files, pages = {}, {page: page.read_text() for page in PAGES}
    for name, (names, columns) in LAYOUT.items():
        result = json.loads((RESULTS / f"{name}.json").read_text())
        known = {key: word for key, word in (names or {}).items() if key in result["rows"][0]}
        if known:
            files[RESULTS / f"{name}.svg"] = chart(name, curves_of(result["rows"], known))
        shown = {key: word for key, word in columns.items() if key in result["rows"][0]}
        words = f"{table(result, shown)}\n\nMeasured on {sentence(result['machine'])}."
        begin, end = f"<!-- made from {name}.json -->", "<!-- end -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        part = f"{begin}\n{words}\n{end}"
        pages = {page: pattern.sub(lambda _, part=part: part, text) for page, text in pages.items()}  # type: ignore[misc]
    return {**files, **pages}


def main() -> None:
    """Write what changed, or say what would."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    stale = {path: text for path, text in made().items() if not path.exists() or path.read_text() != text}
    if parser.parse_args().check and stale:
        raise SystemExit(f"stale: {', '.join(path.name for path in stale)}; run python tools/bench/_charts.py")
    for path, text in stale.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
