"""The private names of Inductor that comm_core uses, to keep ops of our own and waits in their order among collectives.

Inductor lowers an op with an ordered effect and notes that it depends on the one before, but by the names of buffers
where its scheduler looks up those of operations (2.13; found by reading, proven by
`packages/functional_collectives/tests/test_order.py`); and of collectives of other names it notes nothing. Its
scheduler then sorts such ops as it likes, for memory for one, and not alike on all ranks: messages that ranks exchange
in different orders are a deadlock. So our ops are lowered to what Inductor lowers its own collectives to, which its
scheduler keeps in the order of the program, and whose waits it knows (2.11 to 2.14).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

_ours: dict[Any, Any] = {}


def keep_order(op: Any) -> None:
    """Give an op its lowering if Inductor is there; fake kernels call this, as they run before anything is lowered."""
    if op not in _ours and "torch._inductor.lowering" in sys.modules:
        _ours[op] = sys.modules["torch._inductor.lowering"].lowerings[op] = _ordered(op)


def forget_order() -> None:
    """Take the lowerings out again."""
    for op in _ours:
        sys.modules["torch._inductor.lowering"].lowerings.pop(op, None)
    _ours.clear()


def _ordered(op: Any) -> Any:
    from torch._inductor import ir

    def lowered(x: Any, *args: Any) -> Any:
        kernel: Any = ir._CollectiveKernel.create_out_of_place(op, x, *args)
        return ir.TensorBox.create(kernel)

    return lowered


def keep_waits() -> Callable[[], None]:
    """Have Inductor leave each wait behind the collectives that are started before it, and return what undoes that.

    It moves a wait for memory, also before the start of another collective or message, for which another rank may be
    waiting before it starts what this wait is for (2.11 to 2.14). A wait that follows its own start is not touched.
    """
    from torch._inductor import ir
    from torch._inductor.lowering import lowerings
    from torch._inductor.virtualized import V

    op = torch.ops._c10d_functional.wait_tensor.default
    before = lowerings[op]

    def lowered(x: Any) -> Any:
        operations = V.graph.operations
        known = len(operations)
        result = before(x)
        starts = (made for made in reversed(operations[:known]) if isinstance(made, ir._CollectiveKernel))
        last = next((made for made in starts if not isinstance(made, ir._WaitKernel)), None)
        for wait in operations[known:]:
            for buffer in last.get_outputs() if last is not None else ():
                V.graph.additional_buffer_deps[wait.get_operation_name()].add(buffer.get_name())
        return result

    def undo() -> None:
        if lowerings[op] is lowered:
            lowerings[op] = before

    lowerings[op] = lowered
    return undo
