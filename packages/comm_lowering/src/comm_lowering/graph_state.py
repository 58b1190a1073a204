"""What is noted about the collectives of one graph while Inductor lowers it, and the log of finished graphs.

The notes hang on Inductor's graph object, so they end with it; the log keeps only plain data of the last graphs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from comm_lowering.choose import Choice, Kernel
from comm_lowering.policy import Policy
from comm_lowering.report import CollectiveRecord, Report

KEPT_GRAPHS = 64


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the compiled code: the operations fused into it, and whether it computes or communicates."""

    operations: frozenset[str]
    computes: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """The order in which the compiled code runs, and the buffers that fusion made unnecessary."""

    steps: tuple[Step, ...]
    removed_buffers: frozenset[str]

    def position(self, operation: str | None) -> int | None:
        """Return the step that an operation is in."""
        return next((at for at, step in enumerate(self.steps) if operation in step.operations), None)

    def kernels_between(self, first: int, last: int) -> int:
        """Return how many steps strictly between two compute something."""
        return sum(step.computes for step in self.steps[first + 1 : last])


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that was put in front of a collective: the buffer it reads and the operation that makes it."""

    source: str
    operation: str

    def outcome(self, schedule: Schedule | None) -> str:
        """Return what became of it."""
        at = None if schedule is None else schedule.position(self.operation)
        if schedule is None or at is None:
            return "asked for"
        if len(schedule.steps[at].operations) == 1:
            return "own kernel"
        return FUSED_AWAY if self.source in schedule.removed_buffers else "fused"


FUSED_AWAY = "fused away"  # the producer writes straight into the copy; the original is never stored


@dataclass(slots=True)
class Note:
    """One collective of the graph; what is learned later is filled in."""

    facts: dict[str, Any]
    choice: Choice
    copy: Copy | None = None
    start: str | None = None
    waits: list[str] = field(default_factory=list)

    def record(self, graph: int, phase: str, schedule: Schedule | None) -> CollectiveRecord:
        """Return what is known now as a frozen record."""
        wait, between = self._wait(schedule)
        copy = "none" if self.copy is None else self.copy.outcome(schedule)
        added = int(copy not in ("none", FUSED_AWAY))
        clones = self.choice.kernel in (Kernel.IN_PLACE, Kernel.COPY_THEN_IN_PLACE)
        return CollectiveRecord(
            **self.facts,
            kernel=self.choice.kernel.value,
            reason=self.choice.reason,
            rejected=tuple((kernel.value, why) for kernel, why in self.choice.rejected),
            copies_added=added,
            copies_saved=int(clones and not added),
            copy=copy,
            wait=wait,
            kernels_before_wait=between,
            graph=graph,
            phase=phase,
        )

    def _wait(self, schedule: Schedule | None) -> tuple[str, int | None]:
        if self.choice.kernel is Kernel.IDENTITY:
            return "none needed", 0
        if not self.waits:
            return "not in this graph", None
        if schedule is None:
            return "in program order", None
        begun, ended = schedule.position(self.start), schedule.position(self.waits[0])
        if begun is None or ended is None:
            return "not in the schedule", None
        between = schedule.kernels_between(begun, ended)
        return ("at once" if not between else f"after {between} kernel{'s' * (between > 1)}"), between


class GraphState:
    """The notes of one graph, by the name of the collective's node."""

    def __init__(self, policy: Policy, phase: str) -> None:
        self.policy = policy
        self.phase = phase
        self.notes: dict[str, Note] = {}

    def note_of_wait(self, wait: fx.Node) -> Note | None:
        """Return the note of the collective that a wait is for, looking through views in between."""
        node = wait.args[0]
        while isinstance(node, fx.Node):
            if node.name in self.notes:
                return self.notes[node.name]
            node = node.args[0] if node.op == "call_function" and node.args else None
        return None

    def report(self, graph: int = 0, schedule: Schedule | None = None) -> Report:
        """Return the notes as a report on this one graph."""
        records = tuple(note.record(graph, self.phase, schedule) for note in self.notes.values())
        return Report(records, self.policy, compiled=1)


class Log:
    """The reports of the last compiled graphs that had collectives, oldest first."""

    def __init__(self) -> None:
        self._states: deque[GraphState] = deque(maxlen=KEPT_GRAPHS)
        self._watchers: list[list[tuple[Any, GraphState]]] = []

    def begin(self, graph: Any, make: Callable[[], GraphState]) -> GraphState:
        """Start the notes of a graph."""
        state = make()
        self._states.append(state)
        for watcher in self._watchers:
            watcher.append((graph, state))
        return state

    def reports(self) -> tuple[Report, ...]:
        """Return a report for each graph in the log."""
        return tuple(state.report() for state in self._states)

    @contextmanager
    def watching(self) -> Iterator[list[tuple[Any, GraphState]]]:
        """Collect the graphs lowered inside, with Inductor's own graph objects."""
        seen: list[tuple[Any, GraphState]] = []
        self._watchers.append(seen)
        try:
            yield seen
        finally:
            self._watchers[:] = [watcher for watcher in self._watchers if watcher is not seen]


LOG = Log()
