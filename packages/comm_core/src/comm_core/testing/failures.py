"""What went wrong on the ranks of a run, and which rank was first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from comm_core.errors import RankFailedError, RankTimeoutError

_LOST_PEER = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|socket closed|remote (worker|process)|timed out waiting",
    re.IGNORECASE,
)
_TRANSPORT_KINDS = {"TransportError", "DistBackendError", "DistNetworkError", "DistStoreError", "RankFailedError"}
DIED = "died"
UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class RankFailure:
    """How one rank of a run ended, when it did not return.

    Args:
        rank: the rank's position in the run.
        kind: the name of the exception's type, or `"died"`, or `"unfinished"`.
        message: the exception's own words, or how the process ended.
        traceback: the rank's full traceback; for an unfinished rank, where it was.
        output: what the rank wrote to stdout and stderr during the run.
        exception: the exception itself, where it could be sent.
        when: when it happened, in `time.monotonic` seconds.
    """

    rank: int
    kind: str
    message: str
    traceback: str = ""
    output: str = ""
    exception: BaseException | None = None
    when: float = 0.0

    def __str__(self) -> str:
        return f"rank {self.rank}: {self.summary}"

    @property
    def summary(self) -> str:
        """One line: the kind and the first line of the message."""
        first = self.message.strip().splitlines()[:1]
        return ": ".join([self.kind, *first]) if self.kind not in (DIED, UNFINISHED) else "".join(first)


class RanksFailedError(RankFailedError):
    """A rank of a run raised or died.

    Args:
        world: how many ranks took part.
        errors: each failed rank's end, by rank; `errors[rank]` is the one that caused the others.
        rank: the rank that failed first.
    """

    def __init__(self, world: int, errors: Mapping[int, RankFailure], rank: int) -> None:
        super().__init__(f"rank {rank} of {world}", got=errors[rank].summary)
        self.world = world
        self.errors = dict(errors)
        self.rank = rank
        self.cause = errors[rank].exception

    def __reduce__(self) -> tuple[type[RanksFailedError], tuple[object, ...]]:  # type: ignore[override]
        return type(self), (self.world, self.errors, self.rank)

    def __str__(self) -> str:
        first = self.errors[self.rank]
        parts = [super().__str__(), _block(f"traceback of rank {self.rank}", first.traceback)]
        others = [failure for rank, failure in sorted(self.errors.items()) if rank != self.rank]
        parts.append(_block("other ranks", "\n".join(_other(failure) for failure in others)))
        parts += [_block(f"output of rank {failure.rank}", failure.output) for failure in (first, *others)]
        return "\n".join(part for part in parts if part)


class RanksTimedOutError(RankTimeoutError):
    """Ranks of a run had not finished at the time limit.

    Args:
        world: how many ranks took part.
        errors: each unfinished rank, by rank, with the place where it was as its traceback.
        timeout: the limit in seconds.
    """

    def __init__(self, world: int, errors: Mapping[int, RankFailure], timeout: float) -> None:
        unfinished = tuple(sorted(errors))
        finished = [rank for rank in range(world) if rank not in errors]
        super().__init__(
            f"{_ranks(unfinished)} of {world}",
            got=f"no result after {timeout:g} s" + (f"; {_ranks(finished)} had returned" if finished else ""),
            hint=(
                f"did {_ranks(finished)} leave out a collective that {_ranks(unfinished)} waits in?"
                if finished
                else "do all ranks call the same collectives in the same order? Slow work needs a larger timeout="
            ),
        )
        self.world = world
        self.errors = dict(errors)
        self.timeout = timeout
        self.unfinished = unfinished
        self.stacks = {rank: failure.traceback for rank, failure in errors.items()}

    def __reduce__(self) -> tuple[type[RanksTimedOutError], tuple[object, ...]]:  # type: ignore[override]
        return type(self), (self.world, self.errors, self.timeout)

    def __str__(self) -> str:
        parts = [super().__str__()]
        for rank, failure in sorted(self.errors.items()):
            parts.append(_block(f"rank {rank} was here", failure.traceback or "unknown: it gave no stack"))
        parts += [_block(f"output of rank {rank}", self.errors[rank].output) for rank in self.unfinished]
        return "\n".join(part for part in parts if part)


def first_failure(failures: Mapping[int, RankFailure]) -> int:
    """Return the rank whose failure explains the others.

    A rank that lost its peer is a consequence, and so is one that was still running; of the rest the earliest counts.

    Example:
        >>> lost = RankFailure(0, "RuntimeError", "Connection closed by peer", when=1.0)
        >>> first_failure({0: lost, 1: RankFailure(1, "died", "it was ended by SIGKILL", when=1.5)})
        1
    """
    return min(failures.values(), key=lambda failure: (_blame(failure), failure.when)).rank


def _blame(failure: RankFailure) -> int:
    if failure.kind == UNFINISHED:
        return 2
    if failure.kind in _TRANSPORT_KINDS:
        return 1
    return int(failure.kind == "RuntimeError" and bool(_LOST_PEER.search(failure.message)))


def _other(failure: RankFailure) -> str:
    if failure.kind == UNFINISHED and failure.traceback:
        return f"{failure}\n{failure.traceback.rstrip()}"
    return str(failure)


def _block(title: str, text: str) -> str:
    return f"--- {title} ---\n{text.rstrip()}" if text.strip() else ""


def _ranks(ranks: tuple[int, ...] | list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))
