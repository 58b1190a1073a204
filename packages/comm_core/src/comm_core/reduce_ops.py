"""Reduce ops: one word for each, the forms it is spelled in, what it computes and where it is defined."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from comm_core.errors import ReduceOpError, said

# Elements at once of what is computed in float32, which takes 8 bytes for each; more where that is too many parts.
_AT_ONCE = 1 << 14  # on the CPU
_AT_ONCE_ELSEWHERE = 1 << 20  # where an op costs more to start than that many cost to compute
_PARTS = 2048
Combine = Callable[..., torch.Tensor]  # of two tensors; torch's own ops, so they take `out`


@dataclass(frozen=True, slots=True)
class ReduceOp:
    """What commbook knows of one reduce op.

    Args:
        word: its name in every signature, message and table, for example `"sum"`.
        combine: the binary step; ranks are combined in rank order, starting from rank 0.
        divides: the result is divided by the group size (`avg`).
        linear: the result is a linear map of the inputs, so its transpose is its gradient.
        real: defined for floating point dtypes.
        integral: defined for integer dtypes and bool.
        complex: defined for complex dtypes: only the ops that act on real and imaginary parts alike.
    """

    word: str
    combine: Combine
    divides: bool = False
    linear: bool = False
    real: bool = True
    integral: bool = True
    complex: bool = False


REDUCE_OPS: dict[str, ReduceOp] = {
    op.word: op
    for op in (
        ReduceOp("sum", torch.add, linear=True, complex=True),
        ReduceOp("avg", torch.add, divides=True, linear=True, integral=False, complex=True),
        ReduceOp("product", torch.mul),
        ReduceOp("min", torch.minimum),
        ReduceOp("max", torch.maximum),
        ReduceOp("band", torch.bitwise_and, real=False),
        ReduceOp("bor", torch.bitwise_or, real=False),
        ReduceOp("bxor", torch.bitwise_xor, real=False),
    )
}

_ENUM = {word: getattr(dist.ReduceOp, word.upper()) for word in REDUCE_OPS}


def reduce_word(op: object, where: str = "reduce op") -> str:
    """Return the one word for a reduce op given as a word in any case or as a `dist.ReduceOp`.

    Raises:
        ReduceOpError: nothing commbook knows is meant.

    Example:
        >>> reduce_word("SUM"), reduce_word(dist.ReduceOp.MAX)
        ('sum', 'max')
    """
    if isinstance(op, str):
        if op in REDUCE_OPS:
            return op
        word = op.lower()
        if word in REDUCE_OPS:
            return word
    elif isinstance(op, (dist.ReduceOp, dist.ReduceOp.RedOpType)):
        for word, value in _ENUM.items():
            if op == value:
                return word
    raise ReduceOpError(
        where,
        got=f"reduce op {op}" if isinstance(op, dist.ReduceOp.RedOpType) else f"reduce op {said(op)}",
        need="one of " + ", ".join(REDUCE_OPS) + ", or premul_sum(factor)",
        hint="pass the word, for example 'sum', or dist.ReduceOp.SUM",
    )


def defined_word(op: object, dtype: torch.dtype, where: str) -> str:
    """Return the one word for a reduce op that has a meaning on a dtype.

    Raises:
        ReduceOpError: as `reduce_word` and `check_dtype` do.

    Example:
        >>> defined_word("sum", torch.float32, "all_reduce"), defined_word(dist.ReduceOp.MAX, torch.int8, "all_reduce")
        ('sum', 'max')
    """
    if type(op) is str and (op, dtype) in _DEFINED:
        return op
    word = reduce_word(op, where)
    check_dtype(word, dtype, where)
    return word


def c10d_op(word: str) -> dist.ReduceOp.RedOpType:
    """Return the `dist.ReduceOp` value that a process group takes for a word."""
    return _ENUM[word]


def check_dtype(word: str, dtype: torch.dtype, where: str) -> None:
    """Refuse a reduce op for a dtype on which it has no meaning.

    Raises:
        ReduceOpError: for example `band` of floats, `max` of complex numbers, `avg` of integers.

    Example:
        >>> check_dtype("band", torch.float32, "all_reduce")
        Traceback (most recent call last):
        ...
        comm_core.errors.ReduceOpError: all_reduce: got reduce op 'band' for torch.float32; need one of sum, ...
    """
    if (word, dtype) not in _DEFINED:
        words = ", ".join(name for name in REDUCE_OPS if (name, dtype) in _DEFINED)
        raise ReduceOpError(
            where,
            got=f"reduce op {word!r} for {dtype}",
            need=f"one of {words} for {dtype}" if words else "a dtype to compute with",
            hint="cast the tensor, or choose another reduce op",
        )


# What is only moved: scales and packed numbers of microscaling formats, bits without a meaning, integers of less than a
# byte, and what is quantized, whose scale is no part of the numbers.
_ONLY_MOVED = re.compile("float8_e8m0fnu|float4_.*|bit.*|u?int[1-7]|qu?int.*")


def _defined(op: ReduceOp, name: str, dtype: torch.dtype) -> bool:
    if _ONLY_MOVED.fullmatch(name):
        return False
    if dtype.is_complex:
        return op.complex
    return op.real if dtype.is_floating_point else op.integral


_DEFINED = frozenset(
    (word, dtype)
    for word, op in REDUCE_OPS.items()
    for name, dtype in vars(torch).items()
    if isinstance(dtype, torch.dtype) and _defined(op, name, dtype)
)


def reduce_in_rank_order(word: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Combine one tensor of each rank, rank 0 first: the definition that every transport is held against.

    Shapes: all equal, and so is the result.

    Example:
        >>> reduce_in_rank_order("avg", [torch.tensor([1.0]), torch.tensor([3.0])])
        tensor([2.])
    """
    total = functools.reduce(_step(word, tensors[0].dtype), _computable(word, tensors))
    made = mean_of(total, len(tensors)) if REDUCE_OPS[word].divides else total.clone()
    return _given_back(word, made, tensors[0].dtype)


def prefixes_in_rank_order(word: str, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Combine, for each rank, its tensor with those of all ranks before it; `avg` is the mean of those.

    Example:
        >>> prefixes_in_rank_order("sum", [torch.tensor([1]), torch.tensor([2]), torch.tensor([3])])
        [tensor([1]), tensor([3]), tensor([6])]
    """
    first, *others = _computable(word, tensors)
    totals = list(itertools.accumulate(others, _step(word, tensors[0].dtype), initial=first.clone()))
    if REDUCE_OPS[word].divides:
        totals = [mean_of(total, count) for count, total in enumerate(totals, 1)]
    return [_given_back(word, total, tensors[0].dtype) for total in totals]


def reduce_into(word: str, tensors: Sequence[torch.Tensor], place: int, among: int | None = None) -> torch.Tensor:
    """Combine one tensor of each rank as `reduce_in_rank_order` does, into the one at `place`, and return that.

    The tensors are overwritten, so that no room is taken for what is between.

    Args:
        word: the reduce op.
        tensors: one of each rank, rank 0 first.
        place: which of them the result is written to.
        among: what `avg` divides by, where that is not their number: a reduction that goes on later divides by 1 now,
            where it `goes_on`, and by the number of all ranks in the end.

    Example:
        >>> reduce_into("sum", [torch.tensor([1]), torch.tensor([2]), torch.tensor([3])], 1)
        tensor([6])
    """
    if not goes_on(tensors[0].dtype):
        _in_float32(word, tensors, {len(tensors) - 1: place})
        return tensors[place]
    if tensors[0].dtype in _SIGNED:
        signed = _signed_in_place(word, tensors)
        reduce_into(word, signed, place, among)
        _signed_in_place(word, signed[place : place + 1])
        return tensors[place]
    step, total = _step(word, tensors[0].dtype), tensors[0]
    for rank, x in enumerate(tensors[1:], 1):
        total = step(total, x, out=tensors[place] if rank >= place else total)
    if REDUCE_OPS[word].divides:
        _divisible(total).div_(len(tensors) if among is None else among)
    return total


def _in_float32(word: str, tensors: Sequence[torch.Tensor], written: Mapping[int, int]) -> None:
    """Combine tensors in float32, part by part in the same two pieces of memory, and round once, over the tensors.

    Args:
        word: the reduce op.
        tensors: one of each rank, rank 0 first.
        written: the ranks after which what has been combined is written, and over whose tensor.
    """
    first, step, divides = tensors[0], _step(word, tensors[0].dtype), REDUCE_OPS[word].divides
    most = max(_AT_ONCE if first.device.type == "cpu" else _AT_ONCE_ELSEWHERE, first.numel() // _PARTS)
    room = torch.empty(2, min(most, first.numel()), dtype=torch.float32, device=first.device)
    for parts in _parts(tensors, most):
        total, other = (piece[: parts[0].numel()].view(parts[0].shape) for piece in room)
        for rank, part in enumerate(parts):
            if rank:
                step(total, other.copy_(part), out=total)
            else:
                total.copy_(part)
            if rank in written:
                parts[written[rank]].copy_(torch.div(total, rank + 1, out=other) if divides else total)


def _parts(tensors: Sequence[torch.Tensor], most: int) -> Iterator[Sequence[torch.Tensor]]:
    """Cut tensors of one shape alike, into views of `most` elements or less: in a row, where all lie in one piece.

    Example:
        >>> [[part.tolist() for part in parts] for parts in _parts([torch.arange(3), torch.arange(3, 6)], 2)]
        [[[0, 1], [3, 4]], [[2], [5]]]
    """
    if all(x.is_contiguous() for x in tensors):
        tensors = [x.view(-1) for x in tensors]
    shape, numel = tensors[0].shape, tensors[0].numel()
    if numel <= most:
        yield tensors
        return
    dim = next(dim for dim, size in enumerate(shape) if size > 1)
    many = -(-shape[dim] // max(1, most * shape[dim] // numel))  # not by `extents`, which comm_shm would load with this
    rows = -(-shape[dim] // many)
    for first in range(0, shape[dim], rows):
        yield from _parts([x.narrow(dim, first, min(rows, shape[dim] - first)) for x in tensors], most)


def goes_on(dtype: torch.dtype) -> bool:
    """Return whether a reduction may stop and go on with the same result, as where each step is in the dtype itself.

    Example:
        >>> goes_on(torch.bfloat16), goes_on(torch.float8_e5m2)
        (True, False)
    """
    return not (dtype.is_floating_point and dtype.itemsize == 1)


def prefixes_into(word: str, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Combine tensors as `prefixes_in_rank_order` does, each into itself.

    Example:
        >>> prefixes_into("sum", [torch.tensor([1]), torch.tensor([2]), torch.tensor([3])])
        [tensor([1]), tensor([3]), tensor([6])]
    """
    if not goes_on(tensors[0].dtype):
        _in_float32(word, tensors, {rank: rank for rank in range(len(tensors))})
        return tensors
    if tensors[0].dtype in _SIGNED:
        _signed_in_place(word, prefixes_into(word, _signed_in_place(word, tensors)))
        return tensors
    step = _step(word, tensors[0].dtype)
    for before, x in itertools.pairwise(tensors):
        step(before, x, out=x)
    if REDUCE_OPS[word].divides:
        for count, x in enumerate(tensors, 1):
            mean_of(x, count, in_place=True)
    return tensors


def preceding_into(word: str, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Combine tensors as `preceding_in_rank_order` does, each into itself.

    Example:
        >>> preceding_into("sum", [torch.tensor([1]), torch.tensor([2]), torch.tensor([3])])
        [tensor([0]), tensor([1]), tensor([3])]
    """
    for before, x in itertools.pairwise(reversed(tensors)):
        before.copy_(x)
    tensors[0].fill_(neutral(word, tensors[0].dtype))
    if len(tensors) > 1:
        prefixes_into(word, tensors[1:])
    return tensors


def preceding_in_rank_order(word: str, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Combine, for each rank, the tensors of all ranks before it; the first gets what changes nothing.

    Example:
        >>> preceding_in_rank_order("product", [torch.tensor([4]), torch.tensor([2]), torch.tensor([3])])
        [tensor([1]), tensor([4]), tensor([8])]
    """
    first = torch.full_like(tensors[0], neutral(word, tensors[0].dtype))
    return [first, *(prefixes_in_rank_order(word, tensors[:-1]) if len(tensors) > 1 else ())]


def mean_of(total: torch.Tensor, count: int, in_place: bool = False) -> torch.Tensor:
    """Divide the sum of so many ranks, differentiably; or in place.

    Example:
        >>> mean_of(torch.tensor([6.0]), 3)
        tensor([2.])
    """
    parts = _divisible(total)
    parts = parts.div_(count) if in_place else parts / count
    return torch.view_as_complex(parts) if total.dtype is torch.complex32 else parts


def neutral(word: str, dtype: torch.dtype) -> float | int:
    """Return the value that changes nothing when it is combined; for `avg`, zero.

    Example:
        >>> neutral("product", torch.float32), neutral("max", torch.int8), neutral("band", torch.int8)
        (1, -128, -1)
    """
    if word in ("min", "max"):
        if dtype is torch.bool:
            return word == "min"
        if dtype.is_floating_point:
            most = float("inf") if dtype.itemsize > 1 else torch.finfo(dtype).max  # a float8 may have no infinity
            return most if word == "min" else -most
        return torch.iinfo(dtype).max if word == "min" else torch.iinfo(dtype).min
    if word == "band":
        return 1 if dtype is torch.bool else -1 if dtype.is_signed else torch.iinfo(dtype).max
    return 1 if word == "product" else 0


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}  # torch adds only these


def _computable(word: str, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Return the tensors in a dtype that torch computes with.

    That is float32 for float8, to be rounded once at the end, and the signed integers of its width for an unsigned one:
    in two's complement the ops are the same, but for the order, which is right when the first bit is turned over.
    """
    if not goes_on(tensors[0].dtype):
        return [x.float() for x in tensors]
    if tensors[0].dtype not in _SIGNED:
        return tensors
    signed = [x.view(_SIGNED[x.dtype]) for x in tensors]
    return [x ^ torch.iinfo(x.dtype).min for x in signed] if word in ("min", "max") else signed


def _given_back(word: str, made: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what was computed in the dtype that was given."""
    if dtype not in _SIGNED:
        return made.to(dtype)
    return (made ^ torch.iinfo(made.dtype).min if word in ("min", "max") else made).view(dtype)


def _signed_in_place(word: str, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Show unsigned integers as `_computable` does, where they lie; once more turns them back."""
    signed = [x.view(_SIGNED.get(x.dtype, x.dtype)) for x in tensors]
    if word in ("min", "max"):
        for x in signed:
            x.bitwise_xor_(torch.iinfo(x.dtype).min)
    return signed


def _divisible(x: torch.Tensor) -> torch.Tensor:
    """Show a tensor in a dtype that torch divides: complex32 as its real and imaginary parts."""
    return torch.view_as_real(x.resolve_conj()) if x.dtype is torch.complex32 else x


def _step(word: str, dtype: torch.dtype) -> Combine:
    if dtype is torch.bool and word in ("sum", "product"):
        return torch.logical_or if word == "sum" else torch.logical_and
    return REDUCE_OPS[word].combine
