"""How much memory a call takes: the bytes that torch's allocators give out while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def allocated(call: Callable[[], Any]) -> tuple[int, int]:
    """Return the bytes that torch gives out on this thread while `call` runs, freed ones too, and those of its result.

    The call runs twice: what is made only once, such as a transport, is made before the count.

    Args:
        call: what to run; it gives back a tensor or a list of tensors.

    Example:
        >>> import torch
        >>> x = torch.ones(1 << 16)
        >>> given_out, result = allocated(lambda: x + x * 2)
        >>> round(given_out / x.nbytes), round(result / x.nbytes)
        (2, 1)
    """
    from torch.profiler import ProfilerActivity, profile

    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = call()
    profiler: Any = seen.profiler
    events = profiler.kineto_results.events()
    given_out = sum(one.nbytes() for one in events if one.name() == "[memory]" and one.nbytes() > 0)
    return given_out, sum(one.nbytes for one in (result if isinstance(result, (list, tuple)) else [result]))
