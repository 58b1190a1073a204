"""Plans as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from fsdp_collectives.lanes import Lane
from fsdp_collectives.plan_json import word

_HEADS = ("tensor", "shape", "lane", "offset", "block numel", "padding numel")


def table(head: str, lanes: Sequence[Lane], world: int) -> str:
    """Return one line on the plan and one on each tensor."""
    rows = [_HEADS, *(row for lane in lanes for row in _rows(lane, world))]
    return "\n".join([head, *aligned(rows)])


def _rows(lane: Lane, world: int) -> list[tuple[str, ...]]:
    return [
        (
            slot.spec.name,
            "x".join(map(str, slot.spec.shape)) or "0-D",
            str(word(lane.dtype)),
            str(slot.offset),
            str(slot.numel),
            "a copy each" if slot.spec.dim is None else str(slot.numel * world - slot.spec.numel),
        )
        for slot in lane.slots
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines of equal columns: the first column left, the others right.

    Example:
        >>> aligned([["a", "bytes"], ["long", "7"]])
        ['a     bytes', 'long      7']
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
