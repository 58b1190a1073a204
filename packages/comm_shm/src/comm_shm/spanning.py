"""Collectives of ranks on several hosts: in shared memory inside each, over gloo between the ranks that speak for them.

First every rank learns what every rank is about to do, so a mismatch is found by all before any data moves. Then the
data. With S bytes a rank, n ranks, and H hosts, of which one has L of the ranks, a host sends to the others, and no
algorithm can send less (for all_reduce: of those that do not send parts twice):

    all_reduce, reduce      2 S (H - 1) / H, S for two hosts
    broadcast               S to each of the others, from the root's host
    all_gather              L S to each of the others
    reduce_scatter          S to each rank of the others, of the host's own sum
    all_to_all, gather      what its ranks have for theirs, straight from rank to rank
    agreement               64 bytes for each of its ranks, to each of the others

Reduction is in rank order inside a host, then in the order of the hosts' first ranks: the same bits on every rank.
16-bit floats are rounded once by each.

Where all ranks' inputs are 64 KiB at most, they come with the agreement, each to every host.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from comm_core.errors import CommError, RankFailedError, first_line
from comm_shm.across import GRACE_S, Across
from comm_shm.at_once import AT_ONCE_BYTES, AtOnce
from comm_shm.codes import COLLECTIVES, DTYPES
from comm_shm.faults import REBUILD, Scene, Status
from comm_shm.inside import Call, Inside, memory
from comm_shm.spanning_room import LACKING, SpanningRoom, follow, shares

# Serial, collective .. as in RankState, and the bytes of an element, in all of which ranks have to agree; then what may
# differ: what they have for each other in an all_to_all, see `_even`, and the bytes of the input that comes with it.
_RECORD = struct.Struct("<QQIIIQIQQQ")
_APART = 1 << 63  # an input that comes later


class Agreement(NamedTuple):
    """What all ranks have said of a collective."""

    same: bool
    """Whether they agree."""
    even: bool
    """Whether every rank has as much for every rank, in an all_to_all."""
    inputs: torch.Tensor | None
    """Every rank's input, where all of them came with it."""


class Spanning:
    """The collectives of one rank of a group on several hosts.

    Args:
        inside: its host.
        across: its connections to the others.
    """

    def __init__(self, inside: Inside, across: Across) -> None:
        self.inside = inside
        self.across = across
        self.hosts = inside.hosts
        self.pair = (0, 0, 0, 0)
        self._serial = 0
        self._at_once = AtOnce(inside)
        self._agreed = Agreement(True, False, None)
        self._room = SpanningRoom(inside.hosts)
        self._bodies: dict[str, Callable[[Call], int]] = {
            "announce": lambda call: Status.OK,
            "all_reduce_one_of": self._all_reduce,
            "broadcast": self._broadcast,
            "all_gather": self._all_gather,
            "reduce_scatter": self._reduce_scatter,
            "all_to_all": self._all_to_all,
        }

    def perform(self, name: str, call: Call, refusal: int = 0, reduce_op: int | None = None) -> int:
        """Run a collective; return a status of the C core's, of which only mismatches leave the group usable.

        Raises:
            TransportError: this rank has no memory for it; the others find a mismatch, and the group goes on.
            CommError: a rank is late, gone, or failed before; all ranks of all hosts raise the same.
        """
        if self.across.failed is not None:
            raise self.across.failed.again()
        self.inside.where = COLLECTIVES[call.code]
        lacking = None if refusal else self._room.take(name, call, self.inside.where)
        try:
            status = self._performed(name, call, refusal if lacking is None else LACKING, reduce_op)
        except CommError as error:
            raise self._fail(error) from error
        except BaseException as error:
            why = "was interrupted" if not isinstance(error, RuntimeError) else f"gave up: {first_line(error)}"
            who = f"{self._scene(call.limit).name(self.hosts.rank)}, which {why}"
            self._fail(RankFailedError(self.inside.where, got=who, need="every rank of the group", hint=REBUILD))
            raise
        finally:
            self._room.give_back()
        if lacking is not None:
            raise lacking
        return status

    def _performed(self, name: str, call: Call, refusal: int, reduce_op: int | None) -> int:
        reducing = name in ("all_reduce_one_of", "reduce_scatter")
        op = reduce_op if reduce_op is not None else call.last if reducing else 0
        width = DTYPES[call.dtype].itemsize if reducing else call.last
        self._agreed = self._agree(name, call, (op, refusal, 0 if reducing else width))
        if not self._agreed.same:
            return Status.MISMATCH
        if refusal:
            return Status.OK
        if self._agreed.inputs is None:
            return self._bodies[name](call._replace(limit=call.limit + 2 * GRACE_S))
        self._at_once.bodies[name](call, self._agreed.inputs)
        return Status.OK

    def abort(self) -> None:
        """Let what waits fail, here and on the other ranks."""
        got = f"a group that {self._scene(0.0).name(self.hosts.rank)} has aborted"
        self._fail(RankFailedError("abort", got=got, need="a group that has not failed", hint=REBUILD))

    def _fail(self, error: CommError) -> CommError:
        failed = self.across.first(error)
        self.inside.native.break_group(self.inside.handle, Status.DIED)
        self.across.close()
        return failed

    def _scene(self, limit: float) -> Scene:
        where, ranks, said = self.inside.where, self.inside.ranks, self.inside.said
        return Scene(where, self.hosts.rank, ranks, limit, [], (0, 0), announced=said)

    # -- agreement -----------------------------------------------------------------------------------------------

    def _agree(self, name: str, call: Call, rest: tuple[int, int, int]) -> Agreement:
        """Tell every rank what this one is about to do, and learn whether all of them are about to do the same."""
        op, refusal, width = rest
        self._serial += 1
        even, detail = 0, call.detail
        if name == "all_to_all":
            counts = memory(call.detail, 16 * self.hosts.world + 8).view(torch.int64)  # its detail stands behind them
            even, detail = _even(counts[:-1]), int(counts[-1])
        x = self._at_once.input_of(name, call, even)
        said = (self._serial, call.numel, call.code, call.dtype, op, detail, refusal, width)
        mine = _RECORD.pack(*said, even, _APART if x is None else x.numel())
        table, inputs = self._exchanged(torch.frombuffer(bytearray(mine), dtype=torch.uint8), x, call.limit)
        records = list(_RECORD.iter_unpack(bytes(table.view(-1).tolist())))
        self.inside.said = [
            (serial, code, dtype, op, numel, detail, refused)
            for serial, numel, code, dtype, op, detail, refused, *_ in records
        ]
        sizes = {size for *_, size in records}
        return Agreement(
            same=len({record[:-2] for record in records}) == 1,
            even=len({record[-2] for record in records}) == 1 and even > 0,
            inputs=inputs if len(sizes) == 1 and _APART not in sizes else None,
        )

    def _exchanged(
        self, mine: torch.Tensor, x: torch.Tensor | None, limit: float
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the record of every rank, and every rank's input if all have one of the same size."""
        hosts, width = self.hosts, mine.numel()
        own = self.inside.all_gather_alike(mine if x is None else torch.cat([mine, x]), limit)
        if own is None:  # inputs of different sizes, on this host alone
            own, x = self.inside.all_gather(mine, limit), None
        size = 0 if x is None else x.numel()
        table = torch.empty(hosts.world * (width + size), dtype=torch.uint8)
        records = table[: hosts.world * width].view(hosts.world, width)
        inputs = table[hosts.world * width :].view(hosts.world, size)
        if hosts.speaks:
            blocks = {host: own.new_empty(len(hosts.members[host]) * width + AT_ONCE_BYTES) for host in hosts.others}
            whole = torch.cat([own[:, :width].reshape(-1), own[:, width:].reshape(-1)])
            self._swap(dict.fromkeys(hosts.others, whole), blocks, limit)()
            for host, block in (blocks | {hosts.here: whole}).items():
                ranks, count = hosts.members[host], len(hosts.members[host])
                _put(records, ranks, block[: count * width].view(count, width))
                _put(inputs, ranks, block[count * width : count * (width + size)].view(count, size))
        self.inside.broadcast(table, limit + 2 * GRACE_S)
        return records, None if x is None else inputs

    def _gather(self, x: torch.Tensor, limit: float) -> torch.Tensor:
        """Return a row of bytes of every rank of the group."""
        hosts, own = self.hosts, self.inside.all_gather(x, limit)
        table = torch.empty((hosts.world, x.numel()), dtype=torch.uint8)
        if hosts.speaks:
            blocks = {host: own.new_empty((len(hosts.members[host]), x.numel())) for host in hosts.others}
            self._swap(dict.fromkeys(hosts.others, own), blocks, limit)()
            for host, block in (blocks | {hosts.here: own}).items():
                _put(table, hosts.members[host], block)
        self.inside.broadcast(table, limit + 2 * GRACE_S)
        return table

    def _swap(
        self, outgoing: dict[int, torch.Tensor], incoming: dict[int, torch.Tensor], limit: float
    ) -> Callable[[], None]:
        return self.across.swap(outgoing, incoming, self._scene(limit), limit + GRACE_S)

    # -- data ----------------------------------------------------------------------------------------------------

    def _all_reduce(self, call: Call) -> int:
        data = memory(call.out, call.numel * DTYPES[call.dtype].itemsize)
        self.inside.all_reduce(data, call.numel, (call.dtype, call.reduces), call.limit)
        if self.hosts.speaks:
            self._combine(data, call)
            self.inside.divide(data, call)
        self.inside.broadcast(data, call.limit + 2 * GRACE_S)
        return Status.OK

    def _combine(self, data: torch.Tensor, call: Call) -> None:
        """Reduce the hosts' sums, in their order."""
        hosts, ends = self.hosts, shares(data.numel(), len(self.hosts.members))
        parts = [data[begin:end] for begin, end in pairwise(ends)]
        mine = parts[hosts.here] if len(parts) > 1 else data
        sums = {host: self._room.piece(mine.numel()) for host in hosts.others}
        if len(parts) == 1:
            self._swap(dict.fromkeys(hosts.others, data), sums, call.limit)()
            self._fold(data, sums, call)
            return
        self._swap({host: parts[host] for host in hosts.others}, sums, call.limit)()
        self._fold(mine, sums, call)
        self._swap(dict.fromkeys(hosts.others, mine), {host: parts[host] for host in hosts.others}, call.limit)()

    def _fold(self, mine: torch.Tensor, others: dict[int, torch.Tensor], call: Call) -> None:
        everyones = others | {self.hosts.here: mine}
        self.inside.fold(mine, [everyones[host] for host in sorted(everyones)], call)

    def _broadcast(self, call: Call) -> int:
        hosts, data = self.hosts, memory(call.out, call.numel * call.last)
        source = hosts.of(call.detail)
        if source == hosts.here:
            outgoing = dict.fromkeys(hosts.others, data) if hosts.speaks else {}
            end = self._swap(outgoing, {}, call.limit) if hosts.speaks and call.detail == hosts.rank else None
            self.inside.broadcast(data, call.limit, hosts.mine.index(call.detail))
            if hosts.speaks:
                (end or self._swap(outgoing, {}, call.limit))()
            return Status.OK
        if hosts.speaks:
            self._swap({}, {source: data}, call.limit)()
        self.inside.broadcast(data, call.limit + 2 * GRACE_S)
        return Status.OK

    def _all_gather(self, call: Call) -> int:
        hosts, part = self.hosts, call.numel * call.last
        out = memory(call.out, part * hosts.world).view(hosts.world, part)
        blocks = {host: self._rows(out, ranks) for host, ranks in enumerate(hosts.members)}
        own = blocks.pop(hosts.here)
        self.inside.all_gather(memory(call.x, part), call.limit, own)
        if hosts.speaks:
            self._swap(dict.fromkeys(hosts.others, own), blocks, call.limit)()
        for block in blocks.values():
            self.inside.broadcast(block, call.limit + 2 * GRACE_S)
        for host, block in (blocks | {hosts.here: own}).items():
            if not follow(hosts.members[host]):
                _put(out, hosts.members[host], block)
        return Status.OK

    def _reduce_scatter(self, call: Call) -> int:
        hosts, part = self.hosts, call.numel * DTYPES[call.dtype].itemsize
        rows = self._room.piece(part * hosts.world).copy_(memory(call.x, part * hosts.world)).view(hosts.world, part)
        self.inside.all_reduce(rows, call.numel * hosts.world, (call.dtype, call.reduces), call.limit)
        mine = self._taken(rows, hosts.mine)
        if hosts.speaks:
            sums = {host: self._room.piece(mine.numel()).view_as(mine) for host in hosts.others}
            outgoing = {host: self._taken(rows, hosts.members[host]) for host in hosts.others}
            self._swap(outgoing, sums, call.limit)()
            self._fold(mine, sums, call)
            self.inside.divide(mine.view(-1), call)
        self.inside.broadcast(mine, call.limit + 2 * GRACE_S)
        memory(call.out, part).copy_(mine[hosts.local])
        return Status.OK

    def _all_to_all(self, call: Call) -> int:
        """Exchange inside the host in shared memory, with the others straight from rank to rank at the same time."""
        hosts, width = self.hosts, call.last
        counts = memory(call.detail, 16 * hosts.world)
        if not self._agreed.even and not self._meet(counts, call.limit):
            return Status.SPLITS
        give, take = (counts.view(torch.int64) * width).view(2, -1).tolist()
        x, out = memory(call.x, sum(give)), memory(call.out, sum(take))
        inputs, outputs = list(x.split(give)), list(out.split(take))
        far = [rank for rank in range(hosts.world) if rank not in hosts.mine]
        outgoing, incoming = {rank: inputs[rank] for rank in far}, {rank: outputs[rank] for rank in far}
        end = self.across.trade(outgoing, incoming, self._scene(call.limit), call.limit + GRACE_S)
        near = [*(give[rank] for rank in hosts.mine), *(take[rank] for rank in hosts.mine)]
        came, given = self._joined(out, take), self._joined(x, give)
        if not follow(hosts.mine):
            torch.cat([inputs[rank] for rank in hosts.mine], out=given)
        self.inside.all_to_all(given, came, near, call.limit)
        if not follow(hosts.mine):
            for rank, block in zip(hosts.mine, came.split([take[rank] for rank in hosts.mine]), strict=True):
                outputs[rank].copy_(block)
        end()
        return Status.OK

    def _meet(self, counts: torch.Tensor, limit: float) -> bool:
        """Return whether what every rank sends is what the others expect; if not, `pair` says who does not."""
        said = self._gather(counts, limit).view(torch.int64)
        sent, expected = said[:, : self.hosts.world], said[:, self.hosts.world :].t()
        wrong = (sent != expected).nonzero().tolist()
        if wrong:
            giver, taker = wrong[0]
            self.pair = (giver, taker, int(sent[giver, taker]), int(expected[giver, taker]))
        return not wrong

    def _joined(self, x: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        """Return the blocks of this host's ranks where they lie if they follow each other, else room for them."""
        ranks = self.hosts.mine
        size = sum(sizes[rank] for rank in ranks)
        return x.narrow(0, sum(sizes[: ranks[0]]), size) if follow(ranks) else self._room.piece(size)

    def _rows(self, out: torch.Tensor, ranks: Sequence[int]) -> torch.Tensor:
        """Return the rows of ranks that follow each other, else room for them."""
        if follow(ranks):
            return out[ranks[0] : ranks[-1] + 1]
        return self._room.piece(len(ranks) * out.shape[1]).view(len(ranks), -1)

    def _taken(self, rows: torch.Tensor, ranks: Sequence[int]) -> torch.Tensor:
        """Return the rows of ranks, one after the other; a view where they are."""
        block = self._rows(rows, ranks)
        if not follow(ranks):
            torch.cat([rows[rank] for rank in ranks], out=block.view(-1))
        return block


def _even(counts: torch.Tensor) -> int:
    """Return how many elements go from each rank to each, plus 1, or 0 where they differ."""
    first, *others = counts.tolist()
    return first + 1 if all(other == first for other in others) else 0


def _put(rows: torch.Tensor, ranks: Sequence[int], block: torch.Tensor) -> None:
    """Write the rows of ranks; indexing by a list takes ten times as long for few of them."""
    if follow(ranks):
        rows[ranks[0] : ranks[-1] + 1].copy_(block)
        return
    for rank, row in zip(ranks, block, strict=True):
        rows[rank].copy_(row)
