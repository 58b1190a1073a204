"""Pictures of who holds what, drawn from a run: the colour of a box says whose elements are in it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from .examples import Flow, Holding, Sources

COLOURS = ("#5e35b1", "#00695c", "#1565c0", "#c2410c")
EMPTY = "#6b7280"
LETTERS = "abcd"
HEIGHT, GAP, MARGIN, HEAD = 26, 4, 58, 34
PER_LINE = 4
LETTER_WIDTH = 9.0


@dataclass(frozen=True)
class Grid:
    """Where the boxes of one side of the picture stand."""

    left: float
    width: float

    def place(self, index: int, top: float) -> tuple[float, float]:
        """The upper left corner of a rank's box of this number."""
        line, column = divmod(index, PER_LINE)
        return self.left + column * (self.width + GAP), top + line * (HEIGHT + GAP)


def drawn(flow: Flow, title: str, words: tuple[str, str]) -> str:
    """The picture as SVG that stands in a page and follows its colours.

    Args:
        flow: what the ranks hold before and after.
        title: what the picture shows, for those who do not see it.
        words: the headings of both sides.
    """
    before = Grid(MARGIN, box_width(flow.before))
    after = Grid(MARGIN + PER_LINE * (before.width + GAP) + 50, box_width(flow.after))
    width = after.left + PER_LINE * (after.width + GAP)
    parts = [heading(before, words[0]), heading(after, words[1])]
    top = float(HEAD)
    for rank, (had, has) in enumerate(zip(flow.before.ranks, flow.after.ranks, strict=True)):
        parts.append(f'<text x="4" y="{top + 17:g}" class="word">rank {rank}</text>')
        parts += boxes(had, before, top) + boxes(has, after, top)
        lines = max(-(-len(had) // PER_LINE), -(-len(has) // PER_LINE), 1)
        top += lines * (HEIGHT + GAP) + 10
    style = (
        "<style>.who text{font:600 12px system-ui,sans-serif;fill:#fff;text-anchor:middle}"
        ".who .word{font-weight:400;fill:var(--md-default-fg-color,#555);text-anchor:start}</style>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="who" viewBox="0 0 {width:g} {top:g}" role="img" '
        f'style="max-width:{width:g}px;width:100%"><title>{escape(title)}</title>{style}{"".join(parts)}</svg>'
    )


def heading(grid: Grid, word: str) -> str:
    """The words above one side."""
    return f'<text x="{grid.left:g}" y="20" class="word">{escape(word)}</text>'


def boxes(values: tuple[Sources, ...], grid: Grid, top: float) -> list[str]:
    """All boxes of a rank on one side; a rank that holds nothing shows a line."""
    if not values:
        x, y = grid.place(0, top)
        return [f'<text x="{x:g}" y="{y + 17:g}" class="word">(nothing)</text>']
    return [box(value, *grid.place(index, top), grid.width) for index, value in enumerate(values)]


def box(value: Sources, x: float, y: float, width: float) -> str:
    """One element: a stripe for each rank that is in it, and of what it is made."""
    ranks = sorted({rank for rank, _ in value})
    stripe = width / max(len(ranks), 1)
    fills = [
        f'<rect x="{x + index * stripe:g}" y="{y:g}" width="{stripe:g}" height="{HEIGHT}" fill="{COLOURS[rank]}"/>'
        for index, rank in enumerate(ranks)
    ] or [f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{HEIGHT}" fill="{EMPTY}"/>']
    return f'{"".join(fills)}<text x="{x + width / 2:g}" y="{y + 17:g}">{label(value)}</text>'


def label(value: Sources) -> str:
    """What an element is made of: `a0+b0` for the sum of the first elements of ranks 0 and 1."""
    terms = [f"{'' if times == 1 else f'{times:g}·'}{LETTERS[rank]}{row}" for (rank, row), times in value.items()]
    return "+".join(terms) or "0"


def box_width(holding: Holding) -> float:
    """Wide enough for the longest label."""
    longest = max((len(label(value)) for rank in holding.ranks for value in rank), default=1)
    return max(34.0, longest * LETTER_WIDTH + 10)
