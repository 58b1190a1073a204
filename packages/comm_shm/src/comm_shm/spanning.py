"""Collectives of ranks on several hosts: in shared memory inside each, over gloo between the ranks that speak for them.

First every rank learns what every rank is about to do, so a mismatch is found by all before any data moves. Then the
data. With S bytes a rank, n ranks, and H hosts, of which one has L of the ranks, a host sends to the others, and no
algorithm can send less (for all_reduce: of those that do not send parts twice):

    all_reduce, reduce      2 S (H - 1) / H, S for two hosts
    broadcast               S to each of the others, from the root's host
    all_gather              L S to each of the others
    reduce_scatter          S to each rank of the others, of the host's own sum
    all_to_all, gather      what its ranks have for theirs, straight from rank to rank
    agreement               48 bytes for each of its ranks, to each of the others

Reduction is in rank order inside a host, then in the order of the hosts' first ranks: the same bits on every rank.
16-bit floats are rounded once by each.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from comm_core.errors import CommError, RankFailedError
from comm_shm.across import GRACE_S, Across
from comm_shm.codes import COLLECTIVES, DTYPES, PREMUL_SUM, REDUCE_OPS
from comm_shm.faults import REBUILD, Scene, Status
from comm_shm.inside import Inside, memory

_RECORD = struct.Struct("<QQIIIQIQ")  # serial, collective .. as in RankState, then the bytes of an element
_SUM, _AVG = REDUCE_OPS.index("sum"), REDUCE_OPS.index("avg")
_AT_ONCE_BYTES = 64 * 1024  # up to this, whole inputs between more than two hosts too: one exchange in place of two


class Call(NamedTuple):
    """A collective as the C core is given it; the addresses are of memory that the caller keeps."""

    code: int
    dtype: int
    numel: int
    detail: int
    x: int
    out: int
    last: int
    limit: float

    @property
    def reduces(self) -> int:
        """The reduce op that hosts combine with: an average is a sum that is divided at the end."""
        return _SUM if self.last in (_AVG, PREMUL_SUM) else self.last


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
            CommError: a rank is late, gone, or failed before; all ranks of all hosts raise the same.
        """
        if self.across.failed is not None:
            raise self.across.failed.again()
        self.inside.where = COLLECTIVES[call.code]
        reducing = name in ("all_reduce_one_of", "reduce_scatter")
        op = reduce_op if reduce_op is not None else call.last if reducing else 0
        width = DTYPES[call.dtype].itemsize if reducing else call.last
        try:
            if self._disagree(call, (op, refusal, 0 if reducing else width), addressed=name == "all_to_all"):
                return Status.MISMATCH
            return Status.OK if refusal else self._bodies[name](call._replace(limit=call.limit + 2 * GRACE_S))
        except CommError as error:
            raise self._fail(error) from error
        except BaseException:  # interrupted
            who = f"{self._scene(call.limit).name(self.hosts.rank)}, which was interrupted"
            self._fail(RankFailedError(self.inside.where, got=who, need="every rank of the group", hint=REBUILD))
            raise

    def _fail(self, error: CommError) -> CommError:
        failed = self.across.first(error)
        self.inside.native.break_group(self.inside.handle)
        self.across.close()
        return failed

    def _scene(self, limit: float) -> Scene:
        return Scene(self.inside.where, self.hosts.rank, self.inside.ranks, limit, [], (0, 0))

    # -- agreement -----------------------------------------------------------------------------------------------

    def _disagree(self, call: Call, rest: tuple[int, int, int], addressed: bool) -> bool:
        """Tell every rank what this one is about to do, and learn whether all of them are about to do the same."""
        op, refusal, width = rest
        self._serial += 1
        counts = 16 * self.hosts.world  # bytes of splits, behind which the detail of that call stands
        detail = int(memory(call.detail + counts, 8).view(torch.int64)) if addressed else call.detail
        mine = _RECORD.pack(self._serial, call.numel, call.code, call.dtype, op, detail, refusal, width)
        table = self._gather(torch.frombuffer(bytearray(mine), dtype=torch.uint8), call.limit)
        records = [_RECORD.unpack(bytes(row.tolist())) for row in table]
        self.inside.said = [
            (serial, code, dtype, op, numel, detail, refused)
            for serial, numel, code, dtype, op, detail, refused, _ in records
        ]
        return len(set(records)) > 1

    def _gather(self, x: torch.Tensor, limit: float) -> torch.Tensor:
        """Return a row of bytes of every rank of the group."""
        hosts, own = self.hosts, self.inside.all_gather(x, limit)
        table = torch.empty((hosts.world, x.numel()), dtype=torch.uint8)
        if hosts.speaks:
            blocks = {host: own.new_empty((len(hosts.members[host]), x.numel())) for host in hosts.others}
            self._swap(dict.fromkeys(hosts.others, own), blocks, limit)
            for host, block in (blocks | {hosts.here: own}).items():
                table[list(hosts.members[host])] = block
        self.inside.broadcast(table, limit + 2 * GRACE_S)
        return table

    def _swap(self, outgoing: dict[int, torch.Tensor], incoming: dict[int, torch.Tensor], limit: float) -> None:
        self.across.swap(outgoing, incoming, self._scene(limit), limit + GRACE_S)

    # -- data ----------------------------------------------------------------------------------------------------

    def _all_reduce(self, call: Call) -> int:
        data = memory(call.out, call.numel * DTYPES[call.dtype].itemsize)
        self.inside.all_reduce(data, call.numel, (call.dtype, call.reduces), call.limit)
        if self.hosts.speaks:
            self._combine(data, call)
            self._divide(data, call)
        self.inside.broadcast(data, call.limit + 2 * GRACE_S)
        return Status.OK

    def _combine(self, data: torch.Tensor, call: Call) -> None:
        """Reduce the hosts' sums, in their order."""
        hosts, count = self.hosts, len(self.hosts.members)
        if count == 2 or data.numel() <= _AT_ONCE_BYTES:
            sums = {host: torch.empty_like(data) for host in hosts.others}
            self._swap(dict.fromkeys(hosts.others, data), sums, call.limit)
            self._reduce_here(data, sums, call)
            return
        lines = data.numel() // 64
        ends = [lines * host // count * 64 for host in range(count)] + [data.numel()]
        parts = [data[ends[host] : ends[host + 1]] for host in range(count)]
        mine = parts[hosts.here]
        sums = {host: torch.empty_like(mine) for host in hosts.others}
        self._swap({host: parts[host] for host in hosts.others}, sums, call.limit)
        self._reduce_here(mine, sums, call)
        self._swap(dict.fromkeys(hosts.others, mine), {host: parts[host] for host in hosts.others}, call.limit)

    def _reduce_here(self, mine: torch.Tensor, others: dict[int, torch.Tensor], call: Call) -> None:
        everyones = others | {self.hosts.here: mine}
        sources = [everyones[host].data_ptr() for host in sorted(everyones)]
        numel = mine.numel() // DTYPES[call.dtype].itemsize
        self.inside.native.reduce_here(mine.data_ptr(), sources, numel, call.dtype, call.reduces)

    def _divide(self, data: torch.Tensor, call: Call) -> None:
        if call.last == _AVG and data.numel():
            x = data.view(DTYPES[call.dtype])
            (torch.view_as_real(x) if x.is_complex() else x).div_(self.hosts.world)

    def _broadcast(self, call: Call) -> int:
        hosts, data = self.hosts, memory(call.out, call.numel * call.last)
        source = hosts.of(call.detail)
        if source == hosts.here:
            self.inside.broadcast(data, call.limit, hosts.mine.index(call.detail))
            if hosts.speaks:
                self._swap(dict.fromkeys(hosts.others, data), {}, call.limit)
            return Status.OK
        if hosts.speaks:
            self._swap({}, {source: data}, call.limit)
        self.inside.broadcast(data, call.limit + 2 * GRACE_S)
        return Status.OK

    def _all_gather(self, call: Call) -> int:
        hosts, part = self.hosts, call.numel * call.last
        out = memory(call.out, part * hosts.world).view(hosts.world, part)
        blocks = {host: _rows(out, ranks) for host, ranks in enumerate(hosts.members)}
        own = blocks.pop(hosts.here)
        self.inside.all_gather(memory(call.x, part), call.limit, own)
        if hosts.speaks:
            self._swap(dict.fromkeys(hosts.others, own), blocks, call.limit)
        for block in blocks.values():
            self.inside.broadcast(block, call.limit + 2 * GRACE_S)
        for host, block in (blocks | {hosts.here: own}).items():
            if block.untyped_storage().data_ptr() != out.untyped_storage().data_ptr():
                for rank, row in zip(hosts.members[host], block, strict=True):
                    out[rank].copy_(row)
        return Status.OK

    def _reduce_scatter(self, call: Call) -> int:
        hosts, part = self.hosts, call.numel * DTYPES[call.dtype].itemsize
        rows = memory(call.x, part * hosts.world).clone().view(hosts.world, part)
        self.inside.all_reduce(rows, call.numel * hosts.world, (call.dtype, call.reduces), call.limit)
        mine = _taken(rows, hosts.mine)
        if hosts.speaks:
            sums = {host: torch.empty_like(mine) for host in hosts.others}
            self._swap({host: _taken(rows, hosts.members[host]) for host in hosts.others}, sums, call.limit)
            self._reduce_here(mine, sums, call)
            self._divide(mine.view(-1), call)
        self.inside.broadcast(mine, call.limit + 2 * GRACE_S)
        memory(call.out, part).copy_(mine[hosts.local])
        return Status.OK

    def _all_to_all(self, call: Call) -> int:
        """Exchange inside the host in shared memory, with the others straight from rank to rank."""
        hosts, width = self.hosts, call.last
        said = self._gather(memory(call.detail, 16 * hosts.world), call.limit).view(torch.int64)
        sent, expected = said[:, : hosts.world], said[:, hosts.world :].t()
        wrong = (sent != expected).nonzero().tolist()
        if wrong:
            giver, taker = wrong[0]
            self.pair = (giver, taker, int(sent[giver, taker]), int(expected[giver, taker]))
            return Status.SPLITS
        give, take = (said[hosts.rank] * width).view(2, -1).tolist()
        inputs = list(memory(call.x, sum(give)).split(give))
        outputs = list(memory(call.out, sum(take)).split(take))
        near = [*(give[rank] for rank in hosts.mine), *(take[rank] for rank in hosts.mine)]
        came = torch.empty(sum(take[rank] for rank in hosts.mine), dtype=torch.uint8)
        self.inside.all_to_all(torch.cat([inputs[rank] for rank in hosts.mine]), came, near, call.limit)
        for rank, block in zip(hosts.mine, came.split([take[rank] for rank in hosts.mine]), strict=True):
            outputs[rank].copy_(block)
        far = [rank for rank in range(hosts.world) if rank not in hosts.mine]
        scene = self._scene(call.limit)
        incoming = {rank: outputs[rank] for rank in far}
        self.across.trade({rank: inputs[rank] for rank in far}, incoming, scene, call.limit + GRACE_S)
        return Status.OK


def _rows(out: torch.Tensor, ranks: Sequence[int]) -> torch.Tensor:
    """Return the rows of ranks that follow each other, else room for them."""
    if ranks[-1] - ranks[0] == len(ranks) - 1:
        return out[ranks[0] : ranks[-1] + 1]
    return out.new_empty((len(ranks), out.shape[1]))


def _taken(rows: torch.Tensor, ranks: Sequence[int]) -> torch.Tensor:
    """Return the rows of ranks, one after the other; a view where they are."""
    block = _rows(rows, ranks)
    if block.untyped_storage().data_ptr() != rows.untyped_storage().data_ptr():
        torch.cat([rows[rank] for rank in ranks], out=block.view(-1))
    return block
