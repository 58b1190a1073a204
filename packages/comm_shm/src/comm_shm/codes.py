"""The numbers that stand in a segment's headers for collectives, dtypes, reduce ops and refusals, and their words.

They are compared, never sent anywhere: all ranks of a group run the same version, so the tables may grow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from comm_core.reduce_ops import reduce_word

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
)
DTYPES = (
    torch.float32,  # 0: what the C code sends
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
)
REDUCE_OPS = ("sum", "avg", "product", "min", "max")  # in the order of shm_reduce_op
REFUSALS = (
    "",
    "not offered by shm yet",
    "not a float32 tensor",
    "not on the CPU",
    "not a dense layout",
    "not such a reduce op",
)

COLLECTIVE_CODE = {word: code for code, word in enumerate(COLLECTIVES)}
DTYPE_CODE = {dtype: code for code, dtype in enumerate(DTYPES)}
UNKNOWN = 255

_WORD_CODE = {word: code for code, word in enumerate(REDUCE_OPS)}


def reduce_code(op: object) -> int:
    """Return the C code of a reduce op; `UNKNOWN` for one that shared memory does not compute.

    Raises:
        ReduceOpError: it is no reduce op at all.

    Example:
        >>> reduce_code(dist.ReduceOp.MAX), reduce_code("sum"), reduce_code(dist.ReduceOp.BAND)
        (4, 0, 255)
    """
    if op == dist.ReduceOp.SUM:
        return 0
    return _WORD_CODE.get(reduce_word(op, "all_reduce"), UNKNOWN)


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
    refusal: int

    def said(self) -> str:
        """Return the announced collective in words.

        Example:
            >>> RankState(0, 0, 0, 1, 0, 0, 0, 4, 0).said()
            'all_reduce(sum) of 4 float32'
        """
        word = COLLECTIVES[self.collective]
        if word == "all_reduce":
            op = REDUCE_OPS[self.reduce_op] if self.reduce_op < len(REDUCE_OPS) else "another op"
            dtype = str(DTYPES[self.dtype]).removeprefix("torch.") if self.dtype < len(DTYPES) else "of another dtype"
            word = f"all_reduce({op}) of {self.numel} {dtype}"
        return f"{word} (refused: {REFUSALS[self.refusal]})" if self.refusal else word
