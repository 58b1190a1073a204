"""How ranks of different libraries take turns in one run.

Only the standard library is used: the peers have environments of their own.

A rank sits in a blocking read of its own pipe until it is its library's turn, so that a library that waits uses no
processor time and cannot disturb the one that is measured.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

Call = Callable[[], object]
Prepared = dict[str, Call]


def serve(folder: str, name: str, prepare: Callable[[int], Prepared], meet: Call) -> None:
    """Answer `bytes calls` with the seconds of each call of each variant, until the pipe closes."""
    ways: dict[int, Prepared] = {}
    with open(Path(folder) / f"{name}.in") as orders, open(Path(folder) / f"{name}.out", "w") as answers:
        for order in orders:
            size, calls = map(int, order.split())
            if size not in ways:
                ways.clear()  # one size at a time is in memory
                ways[size] = prepare(size)
            seen = {}
            for variant, call in ways[size].items():
                meet()
                seen[variant] = [_seconds(call) for _ in range(calls)]
            answers.write(json.dumps(seen) + "\n")
            answers.flush()


def _seconds(call: Call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Ranks:
    """The driver's end: the pipes to the ranks of one library.

    Args:
        folder: where the pipes are made.
        library: the name that the pipes begin with.
        world: how many ranks.
    """

    def __init__(self, folder: Path, library: str, world: int) -> None:
        self.names = [f"{library}.{rank}" for rank in range(world)]
        self._folder = folder
        for name in self.names:
            os.mkfifo(folder / f"{name}.in")
            os.mkfifo(folder / f"{name}.out")

    def connect(self) -> None:
        """Open the pipes; the ranks must have been started."""
        self._orders = [(self._folder / f"{name}.in").open("w") for name in self.names]
        self._answers = [(self._folder / f"{name}.out").open() for name in self.names]

    def turn(self, size: int, calls: int) -> list[dict[str, list[float]]]:
        """Let every rank measure, and return the seconds by rank and variant."""
        for pipe in self._orders:
            pipe.write(f"{size} {calls}\n")
            pipe.flush()
        return [json.loads(pipe.readline()) for pipe in self._answers]

    def close(self) -> None:
        """Tell the ranks to end."""
        for pipe in [*self._orders, *self._answers]:
            pipe.close()
