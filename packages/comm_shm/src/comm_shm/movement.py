"""Collectives that move data, and those that reduce on the way: broadcast, all_gather, reduce_scatter, all_to_all.

torch has several names for one collective; both spellings of a renamed method stand here (torch 2.11 to 2.14).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from comm_core.errors import ArgumentError, DtypeError, ReduceOpError, ShapeError, TransportError
from comm_shm import sparse
from comm_shm.agreement import GLOO
from comm_shm.calls import CallingGroup, Step
from comm_shm.codes import REDUCE_OPS, defined, reduce_code
from comm_shm.entrance import no_memory, undense, unreachable
from comm_shm.layout import apart, expanded, flat_of, joined, put, room_for_all, scaled, target_of
from comm_shm.terms import Terms, terms

Tensors = list[torch.Tensor]


class MovingGroup(CallingGroup):
    """The collectives of a group over shared memory that give their result in another tensor, and broadcast.

    Inputs and outputs may have any strides: what is not contiguous goes through a copy.
    """

    def broadcast(  # type: ignore[override]  # the forms of all overloads
        self, tensors: Tensors | torch.Tensor, *given: Any, **named: Any
    ) -> dist.Work:
        """Copy the root's tensor into everyone's, in place.

        Args:
            tensors: the tensor, or a list that holds just it; of any dtype.
            given: `dist.BroadcastOptions`, or the root's rank in the group and a timeout; root 0 by default.
            named: the same by name.

        Raises:
            MismatchError: sizes, dtypes or roots differ; raised on every rank, no data was touched.
        """
        asked = terms(*given, **named)
        x = tensors if isinstance(tensors, torch.Tensor) else self._only("broadcast", tensors)
        root = self._root("broadcast", asked.root)
        self._check("broadcast", x, x, writes=self._rank != root)
        flat = flat_of(x)
        finish = None if flat is x or self._rank == root else lambda: put(x, flat)
        return self.run([Step("broadcast", "broadcast", x.numel(), root, (flat, flat), None, finish)], [x], asked)

    def all_gather_single(  # type: ignore[override]  # the forms of all overloads
        self, out: torch.Tensor, x: torch.Tensor, *given: Any, **named: Any
    ) -> dist.Work:
        """Write every rank's tensor into `out`, one after the other in rank order.

        Args:
            out: as many elements as all inputs together; the input may be this rank's part of it.
            x: the same size and dtype on every rank.
            given: `dist.AllgatherOptions`.
            named: the same by name.

        Raises:
            MismatchError: the ranks called different things; raised on all of them, no data was touched.
            ShapeError: `out` has another size.
            DtypeError: `out` has another dtype.
        """
        return self.run([self._gather("all_gather", out, x)], [out], terms(*given, **named))

    def all_gather_single_coalesced(  # type: ignore[override]  # the forms of all overloads
        self, outs: Tensors, inputs: Tensors, *given: Any, **named: Any
    ) -> dist.Work:
        """Gather each of several tensors into its own output."""
        pairs = self._pairs("all_gather_coalesced", outs, inputs)
        steps = [self._gather("all_gather_coalesced", out, x, len(inputs)) for out, x in pairs]
        return self.run(steps, outs, terms(*given, **named))

    def allgather(  # type: ignore[override]  # the forms of all overloads
        self, lists: list[Tensors] | Tensors, inputs: Tensors | torch.Tensor, *given: Any, **named: Any
    ) -> dist.Work:
        """Write every rank's tensor into a tensor of its own; all of one size."""
        x = inputs if isinstance(inputs, torch.Tensor) else self._only("all_gather", inputs)
        outs = self._one_list("all_gather", lists)
        return self.run([self._gather_list("all_gather", outs, x)], outs, terms(*given, **named))

    def allgather_coalesced(  # type: ignore[override]  # the forms of all overloads
        self, lists: list[Tensors], inputs: Tensors, *given: Any, **named: Any
    ) -> dist.Work:
        """Gather several tensors of every rank into a list of as many for each rank.

        Args:
            lists: for each rank, in their order, the list of what comes from it: one output for each input.
            inputs: the tensors, of any sizes, each the same on every rank.
            given: `dist.AllgatherOptions`.
            named: the same by name.

        Raises:
            ArgumentError: there is not one list for each rank, or not as many outputs in it as there are inputs.
            MismatchError: also when the ranks bring different numbers of tensors.
        """
        where = "all_gather_coalesced"
        if len(lists) != self._world or any(len(outs) != len(inputs) for outs in lists) or not inputs:
            got = f"{len(inputs)} inputs and lists of {list(map(len, lists))} outputs"
            need = f"at least one input, and {self._world} lists, one for each rank, of as many outputs as inputs"
            self.refuse(where, "not such a call", ArgumentError(where, got=got, need=need))
        columns = zip(zip(*lists, strict=True), inputs, strict=True)
        steps = [self._gather_list(where, list(outs), x, len(inputs)) for outs, x in columns]
        work = self.run(steps, [out for outs in lists for out in outs], terms(*given, **named))
        work.value = lists if len(lists) > 1 else lists[0]  # type: ignore[attr-defined]  # as over gloo
        return work

    def reduce_scatter_single(  # type: ignore[override]  # the forms of all overloads
        self, out: torch.Tensor, x: torch.Tensor, *given: Any, **named: Any
    ) -> dist.Work:
        """Reduce the parts of all inputs that belong to this rank into `out`, in rank order.

        Args:
            out: this rank's part; it may be that part of the input.
            x: one part for each rank, one after the other.
            given: `dist.ReduceScatterOptions`, or a `dist.ReduceOp`; a sum by default.
            named: the same by name.

        Raises:
            MismatchError: the ranks called different things; raised on all of them, no data was touched.
            ShapeError: the input has another size.
            ReduceOpError: the reduce op is not defined for the dtype.
        """
        asked = terms(*given, **named)
        return self.run([self._scatter("reduce_scatter", out, x, asked.op)], [out], asked)

    def reduce_scatter_single_coalesced(  # type: ignore[override]  # the forms of all overloads
        self, outs: Tensors, inputs: Tensors, *given: Any, **named: Any
    ) -> dist.Work:
        """Reduce and scatter each of several tensors into its own output."""
        asked, where = terms(*given, **named), "reduce_scatter_coalesced"
        pairs = self._pairs(where, outs, inputs)
        return self.run([self._scatter(where, out, x, asked.op, len(inputs)) for out, x in pairs], outs, asked)

    def reduce_scatter(  # type: ignore[override]  # the forms of all overloads
        self, outs: Tensors | torch.Tensor, lists: list[Tensors] | Tensors, *given: Any, **named: Any
    ) -> dist.Work:
        """Reduce a list of tensors, one for each rank and all of one size, into this rank's."""
        asked = terms(*given, **named)
        out = outs if isinstance(outs, torch.Tensor) else self._only("reduce_scatter", outs)
        whole = self._whole("reduce_scatter", self._one_list("reduce_scatter", lists), out, filled=True)
        return self.run([self._scatter("reduce_scatter", out, whole, asked.op)], [out], asked)

    def all_to_all_single(  # type: ignore[override]  # the forms of all overloads
        self,
        out: torch.Tensor,
        x: torch.Tensor,
        output_splits: Sequence[int] = (),
        input_splits: Sequence[int] = (),
        *given: Any,
        **named: Any,
    ) -> dist.Work:
        """Send a part of dim 0 to each rank, and write what each rank sends one after the other.

        Args:
            out: rows from rank 0, then from rank 1, and so on.
            x: rows for rank 0, then for rank 1, and so on.
            output_splits: how many rows come from each rank; equal parts by default.
            input_splits: how many rows go to each rank; equal parts by default.
            given: `dist.AllToAllOptions`.
            named: the same by name.

        Raises:
            MismatchError: a rank expects another number of elements than it is sent; raised on every rank.
            ShapeError: the splits are not those of the tensor.
        """
        output_splits = named.pop("output_split_sizes", output_splits)
        input_splits = named.pop("input_split_sizes", input_splits)
        self._check("all_to_all", out, x)
        give, take = self._elements(x, input_splits), self._elements(out, output_splits)
        step = self._exchange("all_to_all", (out, x), give + take)
        return self.run([step], [out], terms(*given, **named))

    def alltoall(  # type: ignore[override]  # the forms of all overloads
        self, outs: Tensors, inputs: Tensors, *given: Any, **named: Any
    ) -> dist.Work:
        """Send a tensor to each rank; sizes may differ."""
        if {len(outs), len(inputs)} != {self._world} or len({x.dtype for x in [*outs, *inputs]}) != 1:
            got = f"lists of {len(inputs)} and {len(outs)} tensors"
            need = f"two lists of {self._world} tensors of one dtype"
            self.refuse("all_to_all", "not such a call", ArgumentError("all_to_all", got=got, need=need))
        for out, x in zip(outs, inputs, strict=True):
            self._check("all_to_all", out, x)
        x, whole = joined(inputs), room_for_all(outs)
        sizes = [part.numel() for part in outs]
        splits = [part.numel() for part in inputs] + sizes
        step = self._exchange("all_to_all", (whole, x), splits, put_parts=(outs, whole.split(sizes)))
        return self.run([step], outs, terms(*given, **named))

    def sum_sparse(self, x: torch.Tensor, given: Terms) -> dist.Work:
        """Sum a sparse COO tensor over all ranks in place; `allreduce` comes here with one.

        Args:
            x: the tensor; it comes out coalesced.
            given: the terms of the call.

        Raises:
            MismatchError: shapes, sparse dims or dtypes differ; raised on every rank, no data was touched.
            ReduceOpError: the op is no sum, or the dtype has none.
        """
        code = self._code(sparse.WHERE, x, given.op)
        if not sparse.summable(x.dtype, code):
            got = f"reduce op {REDUCE_OPS[code]!r} for sparse tensors of {x.dtype}"
            error = ReduceOpError(sparse.WHERE, got=got, need="a sum, of a dtype that has one", hint=GLOO)
            self.refuse(sparse.WHERE, "not defined for this dtype", error, x)
        parts = self._launched(sparse.SparseSum(x, self._rank, self._world).steps(), self._limit(given.timeout))
        work = self._start(parts, [x])
        if not given.later:
            work.wait()
        return work

    # -- one tensor ----------------------------------------------------------------------------------------------

    def _gather(self, where: str, out: torch.Tensor, x: torch.Tensor, count: int = 0) -> Step:
        self._check(where, out, x)
        if out.numel() != x.numel() * self._world:
            got = f"an output of {out.numel()} elements for inputs of {x.numel()} on {self._world} ranks"
            need = f"an output of {x.numel() * self._world} elements"
            self.refuse(where, "sizes that do not fit", ShapeError(where, got=got, need=need), x)
        target = target_of(out)
        flat = apart(flat_of(x), target, self._rank * x.numel())
        return Step("all_gather", where, x.numel(), count, (flat, target), None, _putting(out, target))

    def _gather_list(self, where: str, outs: Tensors, x: torch.Tensor, count: int = 0) -> Step:
        whole = self._whole(where, outs, x)
        parts = whole.chunk(self._world) if whole.numel() else ()
        return self._gather(where, whole, x, count)._replace(finish=_putting_all(outs, parts))

    def _scatter(self, where: str, out: torch.Tensor, x: torch.Tensor, op: Any, count: int = 0) -> Step:
        code = self._reduction(where, out, x, op)
        if x.numel() != out.numel() * self._world:
            got = f"an input of {x.numel()} elements for outputs of {out.numel()} on {self._world} ranks"
            need = f"an input of {out.numel() * self._world} elements"
            self.refuse(where, "sizes that do not fit", ShapeError(where, got=got, need=need), out)
        flat, target = scaled(flat_of(x), op, code), target_of(out)
        flat = apart(target, flat, self._rank * out.numel(), given=flat)
        return Step("reduce_scatter", where, out.numel(), count, (flat, target), code, _putting(out, target))

    def _reduce_in_place(self, where: str, x: torch.Tensor, op: Any, count: int = 0) -> Step:
        code = self._reduction(where, x, x, op)
        flat = scaled(flat_of(x), op, code)
        return Step("all_reduce_one_of", where, x.numel(), count, (flat, flat), code, _putting(x, flat))

    def _exchange(
        self,
        where: str,
        pair: tuple[torch.Tensor, torch.Tensor],
        splits: list[int],
        numel: int = 0,
        root: int = 0,
        put_parts: tuple[Tensors, Sequence[torch.Tensor]] | None = None,
    ) -> Step:
        out, target = pair[0], target_of(pair[0])
        flat = apart(flat_of(pair[1]), target, None)
        finish = _putting(out, target) if put_parts is None else _putting_all(*put_parts)
        counts = array("Q", [*splits, root])
        return Step("all_to_all", where, numel, counts.buffer_info()[0], (flat, target), None, finish, counts)

    # -- what is refused -----------------------------------------------------------------------------------------

    def _check(self, where: str, out: torch.Tensor, x: torch.Tensor, writes: bool = True) -> None:
        for tensor in (x,) if x is out else (x, out):
            if not tensor.is_cpu:
                error = TransportError(where, got=f"a tensor on {tensor.device}", need="CPU tensors", hint=GLOO)
                self.refuse(where, "not on the CPU", error, tensor)
            sparse_or_other = undense(where, tensor)
            if sparse_or_other is not None:
                self.refuse(where, "not a dense layout", sparse_or_other, x)
            if unreachable(tensor):
                self.refuse(where, "not a plain tensor", no_memory(where, tensor))
        if out.dtype is not x.dtype:
            got = f"{x.dtype} for an output of {out.dtype}"
            self.refuse(where, "dtypes that differ", DtypeError(where, got=got, need="one dtype"), x)
        if writes and not out.is_contiguous() and expanded(out):
            error = TransportError(
                where,
                got="an expanded tensor, whose elements share memory",
                need="a tensor that can be written in place",
                hint="pass x.contiguous()",
            )
            self.refuse(where, "not a dense layout", error, x)

    def _reduction(self, where: str, out: torch.Tensor, x: torch.Tensor, op: Any, writes: bool = True) -> int:
        self._check(where, out, x, writes)
        code = self._code(where, x, op)
        if not defined(x.dtype, code):
            words = [word for other, word in enumerate(REDUCE_OPS) if defined(x.dtype, other)]
            error = ReduceOpError(
                where,
                got=f"reduce op {REDUCE_OPS[code]!r} for {x.dtype}",
                need=f"one of {', '.join(words)} for {x.dtype}" if words else "a dtype that can be reduced",
                hint="cast the tensor, or choose another reduce op",
            )
            self.refuse(where, "not defined for this dtype", error, x)
        return code

    def _code(self, where: str, x: torch.Tensor, op: Any) -> int:
        try:
            return 0 if op is None else reduce_code(op, where)
        except ReduceOpError as none:
            self.refuse(where, "not such a call", none, x)

    def _root(self, where: str, root: int) -> int:
        if not 0 <= root < self._world:
            need = f"a root from 0 to {self._world - 1}"
            self.refuse(where, "not such a call", ArgumentError(where, got=f"root {root}", need=need))
        return root

    def _only(self, where: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        if len(tensors) != 1:
            need, hint = "one tensor in a call", "make one call for each"
            error = TransportError(where, got=f"{len(tensors)} tensors", need=need, hint=hint)
            self.refuse(where, "not such a call", error)
        return tensors[0]

    def _one_list(self, where: str, lists: list[Tensors] | Tensors) -> Tensors:
        """Return the one list that c10d wraps in another, or the list itself."""
        if not lists or isinstance(lists[0], torch.Tensor):
            return lists  # type: ignore[return-value]
        if len(lists) != 1:
            need, hint = "one list in a call", "make one call for each"
            self.refuse(
                where, "not such a call", TransportError(where, got=f"{len(lists)} lists", need=need, hint=hint)
            )
        return lists[0]

    def _some(self, where: str, tensors: Tensors) -> Tensors:
        if not tensors:
            self.refuse(where, "not such a call", ArgumentError(where, got="no tensors", need="at least one"))
        return tensors

    def _pairs(self, where: str, outs: Tensors, inputs: Tensors) -> list[tuple[torch.Tensor, torch.Tensor]]:
        if len(outs) != len(inputs):
            got = f"{len(inputs)} inputs and {len(outs)} outputs"
            self.refuse(where, "not such a call", ArgumentError(where, got=got, need="as many of both"))
        return list(zip(outs, self._some(where, inputs), strict=True))

    def _whole(self, where: str, parts: Tensors, like: torch.Tensor, filled: bool = False) -> torch.Tensor:
        """Return one tensor for a list of one part a rank, all as large as `like`."""
        for part in parts:
            self._check(where, *((like, part) if filled else (part, like)))
        if len(parts) != self._world or any(part.numel() != like.numel() for part in parts):
            got = f"{len(parts)} tensors of {sorted({part.numel() for part in parts})} elements"
            need = f"{self._world} tensors of {like.numel()} elements"
            self.refuse(where, "sizes that do not fit", ShapeError(where, got=got, need=need), like)
        return joined(parts) if filled else room_for_all(parts)

    def _elements(self, x: torch.Tensor, splits: Sequence[int]) -> list[int]:
        """Return how many elements the rows for each rank have."""
        rows = x.shape[0] if x.dim() else 1
        row = x.numel() // rows if rows else 0
        sizes = list(splits) if splits else [rows // self._world] * self._world
        if len(sizes) != self._world or min(sizes) < 0 or sum(sizes) != rows:
            got = f"splits {sizes} of {rows} rows" if splits else f"{rows} rows for {self._world} ranks, and no splits"
            need = f"{self._world} numbers that add up to {rows}" if splits else f"a multiple of {self._world} rows"
            self.refuse("all_to_all", "sizes that do not fit", ShapeError("all_to_all", got=got, need=need))
        return [size * row for size in sizes]


def _putting(out: torch.Tensor, flat: torch.Tensor) -> Callable[[], None] | None:
    return None if flat is out else lambda: put(out, flat)


def _putting_all(outs: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> Callable[[], None]:
    def finish() -> None:
        for out, part in zip(outs, parts, strict=False):
            put(out, part)

    return finish
