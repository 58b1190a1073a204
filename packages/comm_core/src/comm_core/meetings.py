"""The meetings of simulated ranks: one for each collective of a group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch

from comm_core.collective import Collective, Params
from comm_core.errors import CommError, MismatchError, TransportError, first_line

if TYPE_CHECKING:
    from comm_core.simulate import SimulatedGroup, _Session


@dataclass(frozen=True, slots=True)
class Call:
    """What one rank brought to a meeting."""

    entry: Collective
    x: torch.Tensor
    params: Params

    def said(self) -> tuple[object, ...]:
        """Return what all ranks must say alike."""
        return (self.entry.name, *self.entry.agrees(self.x, **self.params))

    def __str__(self) -> str:
        said = self.said()
        facts = ", ".join(f"{said[i]} {said[i + 1]}" for i in range(1, len(said), 2))
        return f"{self.entry.name}({facts})"


@dataclass(slots=True)
class Meeting:
    """One collective of one group: who came, and what each takes away."""

    calls: dict[int, Call] = field(default_factory=dict)
    results: list[torch.Tensor] | None = None
    error: CommError | None = None

    @property
    def over(self) -> bool:
        """Whether there is something to take away, be it an error."""
        return self.results is not None or self.error is not None

    def hold(self, world: int) -> None:
        """Check that all ranks brought the same call, and lay out what its definition gives."""
        calls = [self.calls[rank] for rank in range(world)]
        try:
            if len({call.said() for call in calls}) > 1:
                who = "; ".join(f"rank {rank}: {call}" for rank, call in enumerate(calls))
                self.error = MismatchError(
                    calls[0].entry.name,
                    got=f"different calls: {who}",
                    need="the same call on every rank of the group",
                )
            else:
                self.results = calls[0].entry.oracle([call.x for call in calls], [call.params for call in calls])
        except CommError as error:
            self.error = error
        except Exception as error:  # whatever it is, every rank must be told
            self.error = TransportError(calls[0].entry.name, got=f"{type(error).__name__}: {first_line(error)}")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One rank's part in a meeting: what its `Pending` waits on.

    Args:
        session: the run.
        group: the rank's group.
        meeting: where it came to.
        what: what it says that it waits in.
    """

    session: _Session
    group: SimulatedGroup
    meeting: Meeting
    what: object

    def missing(self) -> set[int]:
        """Return the ranks of the world that have not come."""
        return {self.group.ranks[p] for p in range(self.group.world) if p not in self.meeting.calls}

    def wait(self) -> None:
        """Block until the meeting is over, and raise what went wrong there."""
        self.session.wait(self)
        if self.meeting.error is not None:
            raise self.meeting.error.again()

    def result(self, buffer: torch.Tensor) -> torch.Tensor:
        """Return the rank's result, in the place of an empty buffer like it."""
        return cast(list[torch.Tensor], self.meeting.results)[self.group.rank]
