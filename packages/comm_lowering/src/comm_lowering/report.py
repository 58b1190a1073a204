"""What the compiler made of every collective, as frozen data that prints as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from comm_lowering.policy import Policy


@dataclass(frozen=True, slots=True)
class CollectiveRecord:
    """One collective of one compiled graph.

    Args:
        op: the catalogue name.
        form: the op that reached the lowering, for example `all_reduce_` where Inductor re-inplaced it.
        source: the line of the user's program, `file:line in function`, or why there is none.
        nbytes: bytes of the input, None where symbolic.
        size: the same in words, for example `192` or `4*s77`.
        dtype: dtype of the input.
        group: name of the process group.
        world: ranks in the group.
        kernel: what was chosen.
        reason: why.
        rejected: the alternatives, each with the reason against it.
        copies_added: copies of the input that the compiled code makes for it.
        copies_saved: copies that the op asks for and that were left out.
        copy: what became of the copy: `none`, `own kernel`, `fused` into another one, `fused away` (its source is
            never stored), or `asked for` where the schedule was not seen.
        wait: where the wait landed, in words.
        kernels_before_wait: compute kernels between start and wait; None where the schedule was not seen.
        graph: index of the compiled graph in the report.
        phase: `forward`, `backward` or `inference`.
    """

    op: str
    form: str
    source: str
    nbytes: int | None
    size: str
    dtype: str
    group: str
    world: int
    kernel: str
    reason: str
    rejected: tuple[tuple[str, str], ...]
    copies_added: int
    copies_saved: int
    copy: str
    wait: str
    kernels_before_wait: int | None
    graph: int
    phase: str


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the collectives of a function.

    Args:
        collectives: one record each, in program order.
        policy: the policy they were lowered with.
        graphs: graphs that Dynamo traced, None where it was not watched; more than one means graph breaks.
        compiled: graphs that Inductor compiled, forward and backward.
        graph_breaks: the reasons for graph breaks that Dynamo gave.

    Example:
        >>> print(Report((), Policy(), graphs=1, compiled=1))
        lowering report: no collectives in 1 compiled graph (1 traced)
        policy: in_place=auto lone_group=skip collectives=all
    """

    collectives: tuple[CollectiveRecord, ...]
    policy: Policy
    graphs: int | None = None
    compiled: int = 0
    graph_breaks: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self._headline(), f"policy: {self.policy.describe()}"]
        parts += [f"graph break: {reason.partition(chr(10))[0]}" for reason in self.graph_breaks]
        if self.collectives:
            parts += _table(self.collectives)
        return "\n".join(parts)

    def to_json(self) -> str:
        """Return the report as JSON, for tools and for comparing ranks."""
        return json.dumps(asdict(self), indent=2)

    def _headline(self) -> str:
        found = _count(len(self.collectives), "collective") if self.collectives else "no collectives"
        traced = "" if self.graphs is None else f" ({self.graphs} traced)"
        return f"lowering report: {found} in {_count(self.compiled, 'compiled graph')}{traced}"


_COLUMNS = ("#", "op", "bytes", "dtype", "group", "ranks", "kernel", "copies", "wait", "source")


def _table(records: Sequence[CollectiveRecord]) -> list[str]:
    rows = [_COLUMNS, *(_row(number, record) for number, record in enumerate(records, 1))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    out = lines[:1]
    for line, record in zip(lines[1:], records, strict=True):
        out += [line, f"     why: {record.reason}"]
        out += [f"     not {kernel}: {why}" for kernel, why in record.rejected]
    return out


def _row(number: int, record: CollectiveRecord) -> tuple[str, ...]:
    copies = f"+{record.copies_added} -{record.copies_saved}" + (f" ({record.copy})" if record.copy != "none" else "")
    where = f"{record.source} ({record.phase})"
    group = (record.group, str(record.world))
    return (
        str(number), record.op, record.size, record.dtype, *group, record.kernel, copies, record.wait, where,
    )  # fmt: skip


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def merge(reports: Iterable[Report], policy: Policy) -> Report:
    """Return one report for several compiled graphs, in the order they were compiled."""
    parts = tuple(reports)
    records = tuple(record for part in parts for record in part.collectives)
    return Report(records, policy, compiled=sum(part.compiled for part in parts))
