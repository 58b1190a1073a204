"""An exhaustive checker for programs of a few threads on memory that orders nothing but what release and acquire order.

Each thread has a view: of every location, which write it knows of. A load may return any write that is not older than
the thread's view; a releasing store carries the view with it, an acquiring load takes it over, a relaxed one does not.
Sequentially consistent operations and fences also go through one view that all threads share. Data that is not atomic
must be ordered: reading it while a write is unknown, or writing it while a read or a write is unknown, is a race,
whatever a processor would make of it. (The model is that of C11 without reordering a load with a later store.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

Location = Any
View = dict[Location, int]


class Wrong(Exception):  # the word that the tests use
    """The program has a race, reads a wrong value, or never ends."""


@dataclass(frozen=True)
class Op:
    """One instruction: what it does, where, with which value, and how it is ordered.

    Args:
        kind: read and write (data), store, await, load, add (atomic), fence, sleep, wake, jump.
        at: the location.
        value: what is written, expected, or at least awaited.
        order: relaxed, release, acquire or sc.
        target: where a jump goes to when `value(register)` is true.
    """

    kind: str
    at: Location = None
    value: Any = None
    order: str = "relaxed"
    target: int = 0


@dataclass
class Memory:
    """What the threads have done so far."""

    places: list[int]
    views: list[View]
    registers: list[Any]
    asleep: list[Location]
    writes: dict[Location, list[tuple[Any, View]]] = field(default_factory=dict)
    reads: dict[Location, int] = field(default_factory=dict)
    shared: View = field(default_factory=dict)
    kernel: View = field(default_factory=dict)

    def copy(self) -> Memory:
        """Return one of its own."""
        return replace(
            self,
            places=self.places[:],
            views=[dict(view) for view in self.views],
            registers=self.registers[:],
            asleep=self.asleep[:],
            writes={at: messages[:] for at, messages in self.writes.items()},
            reads=dict(self.reads),
            shared=dict(self.shared),
            kernel=dict(self.kernel),
        )

    def key(self) -> Any:
        """Return what tells it from others."""
        views = tuple(tuple(sorted(view.items(), key=repr)) for view in (*self.views, self.shared, self.kernel))
        return tuple(self.places), tuple(self.registers), tuple(self.asleep), views

    def messages(self, at: Location) -> list[tuple[Any, View]]:
        """Return all writes to a location; all begin with 0."""
        return self.writes.setdefault(at, [(0, {})])


def join(view: View, other: View) -> None:
    """Let `view` know what `other` knows."""
    for at, time in other.items():
        if time > view.get(at, 0):
            view[at] = time


class Checker:
    """Runs the threads in every order and with every value that a load may return.

    Args:
        threads: a program for each thread.
        weakest: follow one execution only, in which every await returns the earliest write that it may. Where each
            location has one writer and threads only await and store, a later write carries at least the views of the
            earlier ones, so what is ordered in this execution is ordered in all of them.
    """

    def __init__(self, threads: list[list[Op]], weakest: bool = False) -> None:
        self._threads = threads
        self._weakest = weakest
        self.states = 0

    def run(self) -> int:
        """Return the number of states.

        Raises:
            Wrong: there is an execution with a race, a wrong value, or no end.
        """
        count = len(self._threads)
        first = Memory([0] * count, [{} for _ in range(count)], [None] * count, [None] * count)
        seen, todo = set(), [first]
        while todo:
            memory = todo.pop()
            (self._follow if self._weakest else self._private)(memory)
            key = memory.key()
            if key in seen:
                continue
            seen.add(key)
            after = [state for thread in range(count) for state in self._steps(memory, thread)]
            if not after and any(at < len(self._threads[thread]) for thread, at in enumerate(memory.places)):
                raise Wrong(f"nobody can go on: places {memory.places}, asleep {memory.asleep}")
            todo += after
        self.states = len(seen)
        return self.states

    def _op(self, memory: Memory, thread: int) -> Op | None:
        program, place = self._threads[thread], memory.places[thread]
        return program[place] if place < len(program) and memory.asleep[thread] is None else None

    def _private(self, memory: Memory) -> None:
        """Do what no other thread can tell the moment of: data, whose races do not depend on it, and jumps."""
        for thread in range(len(self._threads)):
            while (op := self._op(memory, thread)) is not None and op.kind in ("read", "write", "jump"):
                getattr(self, f"_{op.kind}")(memory, thread, op)

    def _follow(self, memory: Memory) -> None:
        """Go on as far as it goes, without looking at other orders."""
        moved = True
        while moved:
            moved = False
            self._private(memory)
            for thread in range(len(self._threads)):
                op = self._op(memory, thread)
                choices = self._choices(memory, thread, op) if op is not None else []
                if op is not None and len(choices) > 0:
                    memory.places[thread] += 1
                    self._act(memory, thread, op, choices[0])
                    moved = True

    def _read(self, memory: Memory, thread: int, op: Op) -> None:
        messages, view = memory.messages(op.at), memory.views[thread]
        if view.get(op.at, 0) != len(messages) - 1:
            raise Wrong(f"race: thread {thread} reads {op.at} while a write is not ordered before")
        if messages[-1][0] != op.value:
            raise Wrong(f"thread {thread} reads {messages[-1][0]} at {op.at} instead of {op.value}")
        mark = (op.at, "read by", thread)
        memory.reads[mark] = view[mark] = memory.reads.get(mark, 0) + 1
        memory.places[thread] += 1

    def _write(self, memory: Memory, thread: int, op: Op) -> None:
        messages, view = memory.messages(op.at), memory.views[thread]
        marks = [(op.at, "read by", other) for other in range(len(self._threads))]
        known = all(view.get(mark, 0) == memory.reads.get(mark, 0) for mark in marks)
        if view.get(op.at, 0) != len(messages) - 1 or not known:
            raise Wrong(f"race: thread {thread} writes {op.at} while another access is not ordered before")
        messages.append((op.value, {}))
        view[op.at] = len(messages) - 1
        memory.places[thread] += 1

    def _jump(self, memory: Memory, thread: int, op: Op) -> None:
        taken = op.value is None or op.value(memory.registers[thread])
        memory.places[thread] = op.target if taken else memory.places[thread] + 1

    def _steps(self, memory: Memory, thread: int) -> Iterator[Memory]:
        op = self._op(memory, thread)
        if op is None:
            return
        for choice in self._choices(memory, thread, op):
            state = memory.copy()
            state.places[thread] += 1
            view = state.views[thread]
            if op.order == "sc":
                join(view, state.shared)
            self._act(state, thread, op, choice)
            if op.order == "sc":
                join(state.shared, view)
            yield state

    def _choices(self, memory: Memory, thread: int, op: Op) -> range | list[int]:
        """Return which writes a load may return; one of no meaning for what loads nothing."""
        if op.kind not in ("load", "await", "sleep"):
            return [0]
        view = dict(memory.views[thread])
        join(view, memory.shared if op.order == "sc" else memory.kernel if op.kind == "sleep" else {})
        messages = memory.messages(op.at)
        choices = range(view.get(op.at, 0), len(messages))
        return choices if op.kind != "await" else [at for at in choices if messages[at][0] >= op.value]

    def _act(self, state: Memory, thread: int, op: Op, choice: int) -> None:
        view, messages = state.views[thread], state.messages(op.at)
        if op.kind in ("load", "await"):
            value, carried = messages[choice]
            view[op.at] = max(choice, view.get(op.at, 0))
            if op.order in ("acquire", "sc"):
                join(view, carried)
            if op.kind == "load":
                state.registers[thread] = value
        elif op.kind in ("store", "add"):
            value = op.value if op.kind == "store" else messages[-1][0] + op.value
            if op.kind == "add" and op.order != "relaxed":
                join(view, messages[-1][1])
            view[op.at] = len(messages)
            messages.append((value, dict(view) if op.order != "relaxed" else {}))
        elif op.kind == "sleep":  # the kernel compares the word with what was loaded, under its own lock
            join(view, state.kernel)
            if messages[choice][0] == state.registers[thread]:
                state.asleep[thread] = op.at
            join(state.kernel, view)
        elif op.kind == "wake":
            join(view, state.kernel)
            state.asleep = [None if at == op.at else at for at in state.asleep]
            join(state.kernel, view)


def check(threads: list[list[Op]], weakest: bool = False) -> int:
    """Return how many states there are, all of them right."""
    return Checker(threads, weakest).run()
