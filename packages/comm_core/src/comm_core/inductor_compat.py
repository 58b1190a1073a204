"""The private names of Inductor that comm_core uses, to keep ops of our own in their order.

Inductor lowers an op with an ordered effect and notes that it depends on the one before, but by the names of buffers
where its scheduler looks up those of operations (2.13; found by reading, proven by
`packages/functional_collectives/tests/test_order.py`). The scheduler then sorts such ops as it likes, for memory for
one, and not alike on all ranks: messages that ranks exchange in different orders are a deadlock. So our ops have a
lowering of their own, which is that of any op without one, and the dependency under the right name.
"""

from __future__ import annotations

import sys
from typing import Any

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
    from torch._inductor.lowering import fallback_handler
    from torch._inductor.virtualized import V
    from torch._library.effects import EffectType

    lower = fallback_handler(op, add_to_fallback_set=False)

    def ordered(*args: Any, **kwargs: Any) -> Any:
        graph = V.graph
        before = graph.effectful_ops.get(EffectType.ORDERED)
        known = len(graph.operations)
        result = lower(*args, **kwargs)
        if before is not None and hasattr(graph, "additional_star_deps"):
            for made in graph.operations[known:]:
                graph.additional_star_deps[made.get_operation_name()].add(before.get_name())
        return result

    return ordered
