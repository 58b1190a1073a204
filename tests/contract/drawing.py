"""Calls of any entry of the catalogue, drawn at random: what the tests with hypothesis share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from comm_core.catalog import CATALOG

ALONG_DIM = {name for name, entry in CATALOG.items() if "dim" in entry.parameters}
ALONG_ROWS = {"all_to_all", "batch_p2p"}
few = st.sampled_from((2, 3, 1, 2, 1, 0))  # sizes; few that are empty, which would leave nothing to compare
Drawn = dict[str, Any]
Calls = tuple[list[Drawn], list[int | None]]  # by rank: the parameters, and the size that goes in along the dim


@st.composite
def calls_of(draw: st.DrawFn, name: str, world: int, ndim: int, ops: Sequence[str]) -> Calls:
    """Draw a call on every rank: the entry's parameters, and the size that goes in along the dim if not any does."""
    params, sizes = draw(exchanges(name, world) if name in ALONG_ROWS else arguments(name, world, ndim, ops))
    return [{key: of[key] for key in CATALOG[name].parameters} for of in params], sizes


@st.composite
def arguments(draw: st.DrawFn, name: str, world: int, ndim: int, ops: Sequence[str]) -> Calls:
    """The parameters of all collectives that ranks call alike, and the sizes that fit this one's."""
    ranks = range(world)
    alike: Drawn = {
        "reduce_op": draw(st.sampled_from(ops)),
        "dst": draw(st.sampled_from(ranks)),
        "src": draw(st.sampled_from(ranks)),
        "dim": draw(st.integers(-ndim, ndim - 1)) if ndim else 0,
        "sizes": [draw(few) for _ in ranks],
        "reverse": draw(st.booleans()),
        "destinations": [to if draw(st.booleans()) else -1 for to in draw(st.permutations(ranks))],
    }
    sizes: list[int | None] = [None] * world
    if name in ("all_gather_v", "gather"):
        sizes = list(alike["sizes"])
    if name == "scatter":
        sizes = [sum(alike["sizes"]) if rank == alike["src"] else 0 for rank in ranks]
    if name == "reduce_scatter_v":
        sizes = [sum(alike["sizes"])] * world
    if name == "reduce_scatter":
        sizes = [draw(few) * world] * world
    if name == "gather" and draw(st.booleans()):
        alike["sizes"], sizes = None, [None] * world
    return [alike] * world, sizes


@st.composite
def exchanges(draw: st.DrawFn, name: str, world: int) -> Calls:
    """A table of who sends how many rows to whom, as each rank's splits or messages."""
    table = [[draw(st.integers(0, 2)) for _ in range(world)] for _ in range(world)]
    columns = [list(column) for column in zip(*table, strict=True)]
    if name == "all_to_all" and draw(st.booleans()):
        even = draw(st.integers(0, 2)) * world
        return [{"input_splits": None, "output_splits": None}] * world, [even] * world
    reverse = draw(st.booleans())
    params: list[Drawn] = [
        {
            "input_splits": sent,
            "output_splits": got,
            "sends": [(peer, rows, peer % 2) for peer, rows in enumerate(sent)],
            "receives": [(peer, rows, rank % 2) for peer, rows in enumerate(got)],
            "reverse": reverse,
        }
        for rank, (sent, got) in enumerate(zip(table, columns, strict=True))
    ]
    return params, [sum(sent) for sent in table]
