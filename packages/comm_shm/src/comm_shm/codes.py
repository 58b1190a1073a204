"""The numbers that stand in a segment's headers for collectives, dtypes, reduce ops and refusals, and their words.

They are compared, never sent anywhere: all ranks of a group run the same version, so the tables may grow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from comm_core.errors import ReduceOpError
from comm_core.reduce_ops import check_dtype, reduce_word
from comm_shm import room

COLLECTIVES = (
    "all_reduce",  # 0: what the C code sends
    "join",
    "barrier",
    "broadcast",
    "reduce",
    "all_gather",
    "gather",
    "scatter",
    "reduce_scatter",
    "all_to_all",
    "all_reduce_coalesced",
    "all_gather_coalesced",
    "reduce_scatter_coalesced",
    "symmetric empty",  # from here on of symmetric memory, which the ranks meet over apart from the group
    "symmetric barrier",
    "one_shot_all_reduce",
    "two_shot_all_reduce",
    "symmetric all_gather",
    "symmetric reduce_scatter",
    "monitored_barrier",
    "sparse all_reduce",
)
OF_PARTS_OF_BYTES = tuple(
    getattr(torch, name)
    for name in (f"{kind}{bits}" for kind in ("uint", "int") for bits in range(1, 8))
    if hasattr(torch, name)
)
OF_BITS = tuple(
    getattr(torch, name)
    for name in ("float4_e2m1fn_x2", "bits1x8", "bits2x4", "bits4x2", "bits8", "bits16")
    if hasattr(torch, name)
)
DTYPES = (
    torch.float32,  # 0: from here to complex128 in the order of shm_kind, which are those that can be reduced
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
    torch.complex64,
    torch.complex128,
    torch.complex32,  # from here on only moved
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    *OF_PARTS_OF_BYTES,
    *OF_BITS,
)
REDUCED = DTYPES[: DTYPES.index(torch.complex128) + 1]
REDUCE_OPS = ("sum", "avg", "product", "min", "max", "band", "bor", "bxor", "premul_sum")  # as in shm_reduce_op
REFUSALS = (
    "",
    "not on the CPU",
    "not a dense layout",
    "not defined for this dtype",
    "sizes that do not fit",
    "dtypes that differ",
    "not such a call",
    "no room for what the others have",
    "not a plain tensor",
    room.WHY,
)
_ON_BUFFERS = COLLECTIVES[COLLECTIVES.index("symmetric barrier") : COLLECTIVES.index("monitored_barrier")]
_REDUCING_BUFFERS = ("one_shot_all_reduce", "two_shot_all_reduce", "symmetric reduce_scatter")
_OF_REDUCTION = (
    "all_reduce",
    "all_reduce_coalesced",
    "reduce_scatter",
    "reduce_scatter_coalesced",
    "reduce",
    *_REDUCING_BUFFERS,
)
_SIZED = (
    *_OF_REDUCTION,
    "sparse all_reduce",
    "broadcast",
    "all_gather",
    "all_gather_coalesced",
    "gather",
    "scatter",
    *_ON_BUFFERS,
)

_ROOTED = {"broadcast": "src", "scatter": "src", "gather": "dst"}  # and what the root is

COLLECTIVE_CODE = {word: code for code, word in enumerate(COLLECTIVES)}
DTYPE_CODE = {dtype: code for code, dtype in enumerate(DTYPES)}
UNKNOWN = 255
OFFSETS = 1 << 40  # the detail of a collective on a buffer: its number times this, and the byte where the part begins
PREMUL_SUM = REDUCE_OPS.index("premul_sum")

_CODE: dict[str | dist.ReduceOp.RedOpType, int] = {word: code for code, word in enumerate(REDUCE_OPS)} | {
    getattr(dist.ReduceOp, word.upper()): code for code, word in enumerate(REDUCE_OPS)
}


def reduce_code(op: object, where: str = "all_reduce") -> int:
    """Return the C code of a reduce op.

    Raises:
        ReduceOpError: it is no reduce op at all.

    Example:
        >>> reduce_code(dist.ReduceOp.MAX), reduce_code("sum"), reduce_code(dist.ReduceOp.BAND)
        (4, 0, 5)
    """
    kind = getattr(op, "op", op)
    if isinstance(kind, (str, dist.ReduceOp.RedOpType)) and kind in _CODE:
        return _CODE[kind]
    return _CODE[reduce_word(op, where)]


def defined(dtype: torch.dtype, code: int) -> bool:
    """Return whether a reduction has a meaning for a dtype, and shared memory computes it.

    Example:
        >>> defined(torch.bfloat16, reduce_code("avg")), defined(torch.int32, reduce_code("avg"))
        (True, False)
    """
    return (dtype, code) in DEFINED


def _has_meaning(dtype: torch.dtype, word: str) -> bool:
    if word == "premul_sum":
        return dtype.is_floating_point or dtype.is_complex
    try:
        check_dtype(word, dtype, "")
    except ReduceOpError:
        return False
    return True


DEFINED = frozenset(
    (dtype, code) for dtype in REDUCED for code, word in enumerate(REDUCE_OPS) if _has_meaning(dtype, word)
)


@dataclass(frozen=True, slots=True)
class RankState:
    """What a rank's control block says, as `_native.states` returns it.

    Args:
        behind: steps that the rank still has to arrive at, 0 or less when it is not waited for.
        dead: its process has ended.
        left: it has closed the group.
        serial: the number of the collective that it announced last.
        collective: code of that collective.
        dtype: code of its dtype.
        reduce_op: code of its reduce op.
        numel: how many elements it said.
        detail: the root, how many tensors the call is made of, or which buffer it is on.
        refusal: why it will not do it, 0 when it will.
    """

    behind: int
    dead: int
    left: int
    serial: int
    collective: int
    dtype: int
    reduce_op: int
    numel: int
    detail: int
    refusal: int

    def said(self) -> str:
        """Return the announced collective in words.

        Example:
            >>> RankState(0, 0, 0, 1, 0, 0, 0, 4, 0, 0).said()
            'all_reduce(sum) of 4 float32'
        """
        word = name = COLLECTIVES[self.collective]
        if name in _OF_REDUCTION and not self.refusal:
            root = f", dst={self.detail}" if name == "reduce" else ""
            word += f"({REDUCE_OPS[self.reduce_op]}{root})"
        if name in _ROOTED and not self.refusal:
            word += f"({_ROOTED[name]}={self.detail})"
        if self.dtype != UNKNOWN:
            dtype = str(DTYPES[self.dtype]).removeprefix("torch.")
            word += f" of {self.numel} {dtype}" if name in _SIZED else f" of {dtype}"
        if name.endswith("_coalesced") and self.detail:
            word += f", one of {self.detail} tensors"
        if name == "sparse all_reduce" and self.detail and self.dtype != UNKNOWN:
            word += f" in layout {self.detail:08x}"
        if name in _ON_BUFFERS:
            number, offset = divmod(self.detail, OFFSETS)
            word += f" in buffer {number}" + (f" from byte {offset}" if offset else "")
        return f"{word} (refused: {REFUSALS[self.refusal]})" if self.refusal else word
