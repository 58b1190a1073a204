"""The calls of batch_p2p: what `cases.py` has for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from comm_core.errors import RankError, ShapeError

from .case import Case, Differing, Refusal, Shape

Message = tuple[int, int, int, int]  # from, to, rows, tag


def mail(label: str, world: int, messages: Sequence[Message], rest: Shape = (), layout: str = "contiguous") -> Case:
    """A batch on every rank, from one list of all messages; each rank names its own in the order of the list."""
    sends = [[(to, rows, tag) for sender, to, rows, tag in messages if sender == rank] for rank in range(world)]
    got = [[(sender, rows, tag) for sender, to, rows, tag in messages if to == rank] for rank in range(world)]
    return Case(
        label,
        tuple((sum(rows for _, rows, _ in of), *rest) for of in sends),
        tuple({"sends": sent, "receives": received} for sent, received in zip(sends, got, strict=True)),
        layout,
    )


def batch_p2p(world: int) -> list[Case]:
    ring = [(rank, (rank + 1) % world, 2, 0) for rank in range(world)]
    back = [(rank, (rank - 1) % world, rank + 1, 3) for rank in range(world)]
    every = [(i, j, (i + 2 * j) % 3, 0) for i in range(world) for j in range(world)]
    return [
        mail("typical", world, ring, (3,)),
        mail("both ways", world, ring + back, (2,)),
        mail("everybody to everybody", world, every),
        mail("one message", world, [(0, world - 1, 4, 1)], (2,)),
        mail("two of one tag", world, ring + [(a, b, 1, t) for a, b, _, t in ring], (2,)),
        mail("tags that cross", world, [(0, world - 1, 2, 5), (0, world - 1, 3, 4)]),
        mail("nothing", world, [], (2,)),
        mail("messages without rows", world, [(a, b, 0, t) for a, b, _, t in ring], (2,)),
        mail("rows of no elements", world, ring, (0,)),
        mail("transposed", world, ring, (3,), "transposed"),
        mail("strided", world, ring + back, (), "strided"),
    ]


CASES: dict[str, Callable[[int], list[Case]]] = {"batch_p2p": batch_p2p}

REFUSED: dict[str, list[Refusal]] = {
    "batch_p2p": [
        ("a peer too high", (2,), {"sends": [(3, 2, 0)], "receives": []}, RankError),
        ("a negative peer", (0,), {"sends": [], "receives": [(-1, 2, 0)]}, RankError),
        ("another number of rows", (3,), {"sends": [(1, 2, 0)], "receives": []}, ShapeError),
        ("a pair", (2,), {"sends": [(1, 2)], "receives": []}, ShapeError),
        ("a negative tag", (2,), {"sends": [(1, 2, -1)], "receives": []}, ShapeError),
        ("a negative number of rows", (0,), {"sends": [], "receives": [(1, -2, 0)]}, ShapeError),
        ("no list", (0,), {"sends": None, "receives": []}, ShapeError),
        ("a 0-D tensor", (), {"sends": [], "receives": []}, ShapeError),
        (
            "a message to oneself that is not expected",
            (6,),
            {"sends": [(r, 2, 0) for r in range(3)], "receives": []},
            ShapeError,
        ),
    ],
}

DISAGREEMENTS: dict[str, Callable[[int], list[Differing]]] = {"batch_p2p": lambda world: []}
