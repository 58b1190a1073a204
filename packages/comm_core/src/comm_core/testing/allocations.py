"""How much memory a call takes: the bytes that torch's allocators give out while it runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Allocated:
    """The bytes that a call took.

    Args:
        given_out: all that torch gave out, freed ones too.
        at_once: the most that were there at one time, beside what was there before.
        result: those of the tensors that the call gave back.
    """

    given_out: int
    at_once: int
    result: int


def allocated(call: Callable[[], Any]) -> Allocated:
    """Return the bytes that torch gives out on this thread while `call` runs.

    The call runs twice: what is made only once, such as a transport, is made before the count.

    Args:
        call: what to run; it gives back a tensor or a list of tensors.

    Example:
        >>> import torch
        >>> x = torch.ones(1 << 16)
        >>> taken = allocated(lambda: (x + x * 2) * 3)
        >>> [round(many / x.nbytes) for many in (taken.given_out, taken.at_once, taken.result)]
        [3, 2, 1]
    """
    from torch.profiler import ProfilerActivity, profile

    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = call()
    profiler: Any = seen.profiler
    events = [one for one in profiler.kineto_results.events() if one.name() == "[memory]"]
    changes = [one.nbytes() for one in sorted(events, key=lambda one: one.start_ns())]
    return Allocated(
        sum(change for change in changes if change > 0),
        max(itertools.accumulate(changes, initial=0)),
        sum(one.nbytes for one in (result if isinstance(result, (list, tuple)) else [result])),
    )
