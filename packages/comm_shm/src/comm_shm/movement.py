"""Collectives that move data, and those that reduce on the way: broadcast, all_gather, reduce_scatter, all_to_all.

torch has several names for one collective; both spellings of a renamed method stand here (torch 2.11 to 2.14).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch

from comm_core.errors import ArgumentError, DtypeError, ReduceOpError, ShapeError, TransportError
from comm_shm.agreement import GLOO, AgreeingGroup, Native
from comm_shm.codes import COLLECTIVE_CODE, DTYPE_CODE, PREMUL_SUM, REDUCE_OPS, UNKNOWN, defined, reduce_code
from comm_shm.torch_compat import premul_factor
from comm_shm.work import FinishedWork

Tensors = list[torch.Tensor]


class Message(NamedTuple):
    """What a rank says of a call in its header: the collective, its size, and what else must agree or be found."""

    where: str
    """The collective."""
    numel: int
    """Elements of one rank's part."""
    detail: int
    """The root, the number of tensors, or the address of the splits."""


class MovingGroup(AgreeingGroup):
    """The collectives of a group over shared memory that give their result in another tensor, and broadcast.

    Inputs and outputs may have any strides: what is not contiguous goes through a copy.
    """

    def broadcast(
        self, tensors: Tensors | torch.Tensor, opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Copy the root's tensor into everyone's, in place.

        Args:
            tensors: the tensor, or a list that holds just it; of any dtype.
            opts: `dist.BroadcastOptions`, or the root's rank in the group; 0 by default.
            timeout: how long to wait for the other ranks; the group's timeout by default.

        Raises:
            MismatchError: sizes, dtypes or roots differ; raised on every rank, no data was touched.
        """
        x = tensors if isinstance(tensors, torch.Tensor) else self._only("broadcast", tensors)
        root = int(getattr(opts, "rootRank", opts or 0))
        if not 0 <= root < self._world:
            need = f"a root from 0 to {self._world - 1}"
            self.refuse("broadcast", "not such a call", ArgumentError("broadcast", got=f"root {root}", need=need), x)
        self._check("broadcast", x, x)
        flat = flat_of(x)
        self._move(
            self._native.broadcast, Message("broadcast", x.numel(), root), (flat, flat), self._limit(opts, timeout)
        )
        if flat.data_ptr() != x.data_ptr() and self._rank != root:
            put(x, flat)
        return FinishedWork([x])

    def all_gather_single(
        self, out: torch.Tensor, x: torch.Tensor, opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Write every rank's tensor into `out`, one after the other in rank order.

        Args:
            out: as many elements as all inputs together; the input may be this rank's part of it.
            x: the same size and dtype on every rank.
            opts: `dist.AllgatherOptions`; its timeout is used when it has one.
            timeout: how long to wait; the group's timeout by default.

        Raises:
            MismatchError: the ranks called different things; raised on all of them, no data was touched.
            ShapeError: `out` has another size.
            DtypeError: `out` has another dtype.
        """
        self._gather("all_gather", out, x, self._limit(opts, timeout))
        return FinishedWork([out])

    def all_gather_single_coalesced(
        self, outs: Tensors, inputs: Tensors, opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Gather each of several tensors into its own output."""
        for out, x in self._pairs("all_gather_coalesced", outs, inputs):
            self._gather("all_gather_coalesced", out, x, self._limit(opts, timeout), len(inputs))
        return FinishedWork(outs)

    def allgather(  # type: ignore[override]  # one signature for both overloads
        self,
        lists: list[Tensors] | Tensors,
        inputs: Tensors | torch.Tensor,
        opts: Any = None,
        timeout: timedelta | None = None,
    ) -> FinishedWork:
        """Write every rank's tensor into a tensor of its own; all of one size."""
        x = inputs if isinstance(inputs, torch.Tensor) else self._only("all_gather", inputs)
        outs = one_list(lists)
        whole = self._whole("all_gather", outs, x)
        self._gather("all_gather", whole, x, self._limit(opts, timeout))
        for out, part in zip(outs, whole.chunk(self._world) if whole.numel() else (), strict=False):
            put(out, part)
        return FinishedWork(outs)

    def reduce_scatter_single(
        self, out: torch.Tensor, x: torch.Tensor, opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Reduce the parts of all inputs that belong to this rank into `out`, in rank order.

        Args:
            out: this rank's part; it may be that part of the input.
            x: one part for each rank, one after the other.
            opts: `dist.ReduceScatterOptions`, or a `dist.ReduceOp`; a sum by default.
            timeout: how long to wait; the group's timeout by default.

        Raises:
            MismatchError: the ranks called different things; raised on all of them, no data was touched.
            ShapeError: the input has another size.
            ReduceOpError: the reduce op is not defined for the dtype.
        """
        self._scatter("reduce_scatter", out, x, opts, self._limit(opts, timeout))
        return FinishedWork([out])

    def reduce_scatter_single_coalesced(
        self, outs: Tensors, inputs: Tensors, opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Reduce and scatter each of several tensors into its own output."""
        for out, x in self._pairs("reduce_scatter_coalesced", outs, inputs):
            self._scatter("reduce_scatter_coalesced", out, x, opts, self._limit(opts, timeout), len(inputs))
        return FinishedWork(outs)

    def reduce_scatter(
        self,
        outs: Tensors | torch.Tensor,
        lists: list[Tensors] | Tensors,
        opts: Any = None,
        timeout: timedelta | None = None,
    ) -> FinishedWork:
        """Reduce a list of tensors, one for each rank and all of one size, into this rank's."""
        out = outs if isinstance(outs, torch.Tensor) else self._only("reduce_scatter", outs)
        parts = one_list(lists)
        whole = self._whole("reduce_scatter", parts, out, filled=True)
        self._scatter("reduce_scatter", out, whole, opts, self._limit(opts, timeout))
        return FinishedWork([out])

    def all_to_all_single(
        self,
        out: torch.Tensor,
        x: torch.Tensor,
        output_splits: Sequence[int] = (),
        input_splits: Sequence[int] = (),
        opts: Any = None,
    ) -> FinishedWork:
        """Send a part of dim 0 to each rank, and write what each rank sends one after the other.

        Args:
            out: rows from rank 0, then from rank 1, and so on.
            x: rows for rank 0, then for rank 1, and so on.
            output_splits: how many rows come from each rank; equal parts by default.
            input_splits: how many rows go to each rank; equal parts by default.
            opts: `dist.AllToAllOptions`; its timeout is used when it has one.

        Raises:
            MismatchError: a rank expects another number of elements than it is sent; raised on every rank.
            ShapeError: the splits are not those of the tensor.
        """
        self._check("all_to_all", out, x)
        give, take = self._elements(x, input_splits), self._elements(out, output_splits)
        self._exchange("all_to_all", (out, x), array("Q", give + take), self._limit(opts, None))
        return FinishedWork([out])

    def alltoall(  # type: ignore[override]  # one signature for both overloads
        self, outs: Tensors, inputs: Tensors, opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Send a tensor to each rank; sizes may differ."""
        if {len(outs), len(inputs)} != {self._world} or len({x.dtype for x in [*outs, *inputs]}) != 1:
            got = f"lists of {len(inputs)} and {len(outs)} tensors"
            need = f"two lists of {self._world} tensors of one dtype"
            self.refuse("all_to_all", "not such a call", ArgumentError("all_to_all", got=got, need=need))
        for out, x in zip(outs, inputs, strict=True):
            self._check("all_to_all", out, x)
        x = torch.cat([flat_of(part).view(-1) for part in inputs])
        sizes = [part.numel() for part in outs]
        whole = x.new_empty(sum(sizes))
        splits = array("Q", [part.numel() for part in inputs] + sizes)
        self._exchange("all_to_all", (whole, x), splits, self._limit(opts, timeout))
        for out, part in zip(outs, whole.split(sizes), strict=True):
            put(out, part)
        return FinishedWork(outs)

    # -- one tensor ----------------------------------------------------------------------------------------------

    def _gather(self, where: str, out: torch.Tensor, x: torch.Tensor, limit: float, count: int = 0) -> None:
        self._check(where, out, x)
        if out.numel() != x.numel() * self._world:
            got = f"an output of {out.numel()} elements for inputs of {x.numel()} on {self._world} ranks"
            need = f"an output of {x.numel() * self._world} elements"
            self.refuse(where, "sizes that do not fit", ShapeError(where, got=got, need=need), x)
        flat, target = flat_of(x), _target(out)
        flat = _apart(flat, target, self._rank * x.numel())
        self._move(self._native.all_gather, Message(where, x.numel(), count), (flat, target), limit)
        put(out, target)

    def _scatter(self, where: str, out: torch.Tensor, x: torch.Tensor, opts: Any, limit: float, count: int = 0) -> None:
        op = getattr(opts, "reduceOp", opts)
        code = self._reduction(where, out, x, op)
        if x.numel() != out.numel() * self._world:
            got = f"an input of {x.numel()} elements for outputs of {out.numel()} on {self._world} ranks"
            need = f"an input of {out.numel() * self._world} elements"
            self.refuse(where, "sizes that do not fit", ShapeError(where, got=got, need=need), out)
        flat, target = scaled(flat_of(x), op, code), _target(out)
        flat = _apart(target, flat, self._rank * out.numel(), copied=flat)
        self._move(self._native.reduce_scatter, Message(where, out.numel(), count), (flat, target), limit, code)
        put(out, target)

    def _reduce_in_place(self, where: str, x: torch.Tensor, op: Any, limit: float, count: int = 0) -> None:
        code = self._reduction(where, x, x, op)
        flat = scaled(flat_of(x), op, code)
        native = self._native.all_reduce_one_of
        self._move(native, Message(where, x.numel(), count), (flat, flat), limit, code)
        put(x, flat)

    def _exchange(
        self, where: str, pair: tuple[torch.Tensor, torch.Tensor], splits: array[int], limit: float, numel: int = 0
    ) -> None:
        out, flat, target = pair[0], flat_of(pair[1]), _target(pair[0])
        flat = _apart(flat, target, None)
        self._move(self._native.all_to_all, Message(where, numel, splits.buffer_info()[0]), (flat, target), limit)
        put(out, target)

    def _move(
        self,
        native: Native,
        message: Message,
        tensors: tuple[torch.Tensor, torch.Tensor],
        limit: float,
        reduce_op: int | None = None,
    ) -> None:
        where, numel, detail = message
        x, out = tensors
        last = x.element_size() if reduce_op is None else reduce_op
        dtype = DTYPE_CODE.get(x.dtype, UNKNOWN)
        code = COLLECTIVE_CODE[where]
        status = native(self._handle, code, dtype, numel, detail, x.data_ptr(), out.data_ptr(), last, limit)
        if status:
            raise self._fault(status, where, limit)

    # -- what is refused -----------------------------------------------------------------------------------------

    def _check(self, where: str, out: torch.Tensor, x: torch.Tensor) -> None:
        for tensor in (x, out):
            if not tensor.is_cpu:
                error = TransportError(where, got=f"a tensor on {tensor.device}", need="CPU tensors", hint=GLOO)
                self.refuse(where, "not on the CPU", error, tensor)
            if tensor.layout is not torch.strided:
                got = f"a tensor of layout {tensor.layout}"
                self.refuse(
                    where, "not a dense layout", TransportError(where, got=got, need="a dense one", hint=GLOO), x
                )
        if out.dtype is not x.dtype:
            got = f"{x.dtype} for an output of {out.dtype}"
            self.refuse(where, "dtypes that differ", DtypeError(where, got=got, need="one dtype"), x)
        if not out.is_contiguous() and _expanded(out):
            error = TransportError(
                where,
                got="an expanded tensor, whose elements share memory",
                need="a tensor that can be written in place",
                hint="pass x.contiguous()",
            )
            self.refuse(where, "not a dense layout", error, x)

    def _reduction(self, where: str, out: torch.Tensor, x: torch.Tensor, op: Any) -> int:
        code = 0 if op is None else reduce_code(op, where)
        self._check(where, out, x)
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

    def _only(self, where: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        if len(tensors) != 1:
            need, hint = "one tensor in a call", "make one call for each"
            error = TransportError(where, got=f"{len(tensors)} tensors", need=need, hint=hint)
            self.refuse(where, "not such a call", error)
        return tensors[0]

    def _pairs(self, where: str, outs: Tensors, inputs: Tensors) -> list[tuple[torch.Tensor, torch.Tensor]]:
        if len(outs) != len(inputs):
            got = f"{len(inputs)} inputs and {len(outs)} outputs"
            self.refuse(where, "not such a call", ArgumentError(where, got=got, need="as many of both"))
        return list(zip(outs, inputs, strict=True))

    def _whole(self, where: str, parts: Tensors, like: torch.Tensor, filled: bool = False) -> torch.Tensor:
        """Return one tensor for a list of one part a rank, all as large as `like`."""
        for part in parts:
            self._check(where, part, like)
        if len(parts) != self._world or any(part.numel() != like.numel() for part in parts):
            got = f"{len(parts)} tensors of {sorted({part.numel() for part in parts})} elements"
            need = f"{self._world} tensors of {like.numel()} elements"
            self.refuse(where, "sizes that do not fit", ShapeError(where, got=got, need=need), like)
        return (
            torch.cat([flat_of(part).view(-1) for part in parts])
            if filled
            else like.new_empty(self._world * like.numel())
        )

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


# What torch 2.11 and 2.12 call, and 2.13 for backward compatibility.
for _old, _method in {
    "_allgather_base": MovingGroup.all_gather_single,
    "allgather_into_tensor_coalesced": MovingGroup.all_gather_single_coalesced,
    "_reduce_scatter_base": MovingGroup.reduce_scatter_single,
    "reduce_scatter_tensor_coalesced": MovingGroup.reduce_scatter_single_coalesced,
    "alltoall_base": MovingGroup.all_to_all_single,
}.items():
    setattr(MovingGroup, _old, _method)


def one_list(lists: list[Tensors] | Tensors) -> Tensors:
    """Return the one list that c10d wraps in another, or the list itself."""
    return lists[0] if lists and not isinstance(lists[0], torch.Tensor) else lists  # type: ignore[return-value]


def _plain(x: torch.Tensor) -> bool:
    return x.is_contiguous() and not x.is_neg() and not x.is_conj()


def flat_of(x: torch.Tensor) -> torch.Tensor:
    """Return the elements as they lie in memory when the tensor is contiguous, else a copy that is."""
    if _plain(x):
        return x
    with torch.no_grad():
        return x.detach().resolve_neg().resolve_conj().contiguous()


def _target(out: torch.Tensor) -> torch.Tensor:
    """Return where to write: the tensor itself, or room for what is then put into it."""
    if _plain(out):
        return out
    with torch.no_grad():
        return torch.empty(out.shape, dtype=out.dtype)


def put(out: torch.Tensor, flat: torch.Tensor) -> None:
    """Copy a result to where it belongs, unless it is there."""
    if flat is not out and (flat.data_ptr() != out.data_ptr() or out.is_neg() or out.is_conj()):
        with torch.no_grad():
            out.detach().copy_(flat.view(out.shape))


def _apart(
    part: torch.Tensor, whole: torch.Tensor, place: int | None, copied: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `copied`, by default `part`, or a copy where the two overlap other than element for element at `place`."""
    source = part if copied is None else copied
    begin, start = part.data_ptr(), whole.data_ptr()
    size, total = part.numel() * part.element_size(), whole.numel() * whole.element_size()
    if begin >= start + total or start >= begin + size:
        return source
    fits = place is not None and begin == start + place * part.element_size()
    return source if fits else source.clone()


def scaled(flat: torch.Tensor, op: Any, code: int) -> torch.Tensor:
    """Return this rank's input of a reduction: multiplied by its factor where there is one."""
    return flat if code != PREMUL_SUM else flat * premul_factor(op)


def _expanded(x: torch.Tensor) -> bool:
    return any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True))
