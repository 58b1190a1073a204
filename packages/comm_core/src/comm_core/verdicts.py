"""What the ranks of a group say before a checked collective, and what follows from it: pure, without any transport."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from comm_core import errors
from comm_core.collective import Collective, Params
from comm_core.errors import CommError, MismatchError, RankFailedError, RankTimeoutError

_BETWEEN = "\x1e"
_FACTS = "\x1f"
_RAISED = {kind.__name__: kind for kind in (MismatchError, RankFailedError, RankTimeoutError)}


@dataclass(frozen=True, slots=True)
class Said:
    """What one rank is about to do.

    Args:
        facts: the collective, then word and value in turn: what every rank must say alike, as one string.
        own: what ranks may say differently and still fit together, as JSON; empty where there is nothing.
        where: the line of the call.
        refused: why the rank cannot do it; empty where it can.
    """

    facts: str
    own: str = ""
    where: str = ""
    refused: str = ""

    def encode(self) -> bytes:
        """Return it as bytes for another rank."""
        return _BETWEEN.join((self.facts, self.own, self.where, self.refused)).encode()

    @staticmethod
    def decode(data: bytes) -> Said:
        """Read it back.

        Example:
            >>> said = Said("all_reduce", "", "train.py:3")
            >>> Said.decode(said.encode()) == said
            True
        """
        return Said(*data.decode().split(_BETWEEN))

    @property
    def collective(self) -> str:
        """The collective's name."""
        return self.facts.partition(_FACTS)[0]

    def cells(self) -> dict[str, str]:
        """Return the facts by their words."""
        words = self.facts.split(_FACTS)[1:]
        return dict(zip(words[::2], words[1::2], strict=True))

    def __str__(self) -> str:
        words = ", ".join(f"{word} {value}" for word, value in self.cells().items())
        return f"{self.collective}({words}) at {self.where}"


def said_of(entry: Collective, x: torch.Tensor, params: Params, where: str) -> Said:
    """Put into words a call whose parameters `check` has parsed.

    Example:
        >>> from comm_core.catalog import BROADCAST
        >>> said_of(BROADCAST, torch.ones(2), {"src": 1}, "train.py:7").cells()["shape"]
        '(2,)'
    """
    alike = entry.agrees(x, **params)
    own = ""
    if any(name.replace("_", " ") not in alike[::2] for name in params):
        own = json.dumps({"entry": entry.name, "shape": list(x.shape), "dtype": str(x.dtype), "params": params})
    return Said(_FACTS.join((entry.name, *map(str, alike))), own, where)


def said_of_list(
    entry: Collective, xs: Sequence[torch.Tensor], params: Sequence[Params], name: str, where: str
) -> Said:
    """Put into words a call on a list of tensors: how many there are, and each one's own facts.

    Example:
        >>> from comm_core.catalog import ALL_GATHER
        >>> list(said_of_list(ALL_GATHER, [torch.ones(2)], [{"dim": 0}], "several", "train.py:7").cells())
        ['tensors', 'tensor 0']
    """
    facts = [name, "tensors", str(len(xs))]
    for place, (x, of) in enumerate(zip(xs, params, strict=True)):
        alike = entry.agrees(x, **of)
        words = (f"{word} {value}" for word, value in zip(alike[::2], alike[1::2], strict=True))
        facts += [f"tensor {place}", ", ".join(words)]
    return Said(_FACTS.join(facts), "", where)


def verdict(said: Mapping[int, Said]) -> CommError | None:
    """Say whether the calls of all ranks fit together: None, or what every rank has to raise.

    Example:
        >>> verdict({0: Said("barrier"), 1: Said("barrier")}) is None
        True
    """
    first = said[0]
    if any(one.facts != first.facts or one.refused for one in said.values()):
        refused = [f"rank {rank} refused the call: {one.refused}" for rank, one in said.items() if one.refused]
        return MismatchError(
            first.collective,
            got="; ".join(refused) or "calls that differ",
            need="the same call on every rank of the group",
            hint=f"what each rank said:\n{table(said)}",
        )
    if first.own:
        return _pairing(said)
    return None


def _pairing(said: Mapping[int, Said]) -> CommError | None:
    """Run the collective's definition on tensors without values: it knows which parameters fit together."""
    from comm_core.catalog import CATALOG

    calls = [json.loads(said[rank].own) for rank in sorted(said)]
    xs = [torch.empty(of["shape"], dtype=getattr(torch, of["dtype"].partition(".")[2]), device="meta") for of in calls]
    params = [{name: _hashable(value) for name, value in of["params"].items()} for of in calls]
    try:
        CATALOG[calls[0]["entry"]].oracle(xs, params)
    except CommError as error:
        return MismatchError(error.where, error.got, error.need, f"what each rank said:\n{table(said)}")
    return None


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def table(said: Mapping[int, Said]) -> str:
    """Return who said what: one line for each rank, one column for each word on which anybody has something to say.

    Example:
        >>> print(table({0: Said("all_reduce", where="a.py:1"), 1: Said("broadcast", where="b.py:2")}))
          rank  collective  where
          0     all_reduce  a.py:1
          1     broadcast   b.py:2
    """
    words = list(dict.fromkeys(word for one in said.values() for word in one.cells()))
    rows = [["rank", "collective", *words, "where"]]
    for rank, one in sorted(said.items()):
        cells = one.cells()
        rows.append([str(rank), one.collective, *(cells.get(word, "-") for word in words), one.where])
        if one.own:
            own = json.loads(one.own)["params"]
            rows[-1][-1] += "  " + ", ".join(f"{name} {value}" for name, value in own.items())
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(size) for cell, size in zip(row, wide, strict=True)).rstrip() for row in rows)
    return "\n".join(f"  {line}" for line in lines)


def late(call: Said, missing: Iterable[int], last: Mapping[int, Said], limit_s: float) -> CommError:
    """Name the ranks that did not come to a call within a time limit, and what each did last."""
    who = "; ".join(f"rank {rank} has not come: {_last(last, rank)}" for rank in missing)
    return RankTimeoutError(
        call.collective,
        got=f"{who}; waited {limit_s:g} s for {call}",
        need="every rank of the group to make the call",
        hint="read what that rank did last: it stands, or went on, from there",
    )


def gone(call: Said, ranks: Sequence[int], last: Mapping[int, Said]) -> CommError:
    """Name the ranks whose process ended or left the group, and what each did last."""
    who = "; ".join(f"rank {rank} has ended: {_last(last, rank)}" for rank in ranks)
    return RankFailedError(
        call.collective, got=f"{who}; it is needed for {call}", hint="read the output of the rank that has ended"
    )


def _last(last: Mapping[int, Said], rank: int) -> str:
    return f"last {last[rank]}" if rank in last else "it has made no checked call on this group"


def packed(error: CommError) -> bytes:
    """Return an error as bytes for another rank."""
    return json.dumps([type(error).__name__, error.where, error.got, error.need, error.hint]).encode()


def unpacked(data: bytes) -> CommError:
    """Make the error again.

    Example:
        >>> unpacked(packed(MismatchError("all_reduce", got="two calls")))
        MismatchError('all_reduce', 'two calls', '', '')
    """
    name, *words = json.loads(data)
    return _RAISED.get(name, errors.CommError)(*words)
