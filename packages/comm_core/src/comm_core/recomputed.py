"""What a checkpoint starts again and then leaves: waited for when backward ends.

A checkpoint computes in backward what forward has not kept, and stops where it has all that backward needs. A
collective that it started just before is left in flight, which no user can mend. The other ranks take part in it: so it
is held until it has ended, as a receive that gloo forgets leaves what arrives for it to the next one.
"""

from __future__ import annotations

import functools

from comm_core import compat
from comm_core.pending import Pending

_LEFT: dict[int, list[Pending]] = {}  # by the backward in which they were started


def hold(pending: Pending) -> None:
    """Hold what is started in a backward until that has ended, if a checkpoint starts it: who sees what is saved."""
    if not compat.sees_saved_tensors():
        return
    backward = compat.current_backward()
    left = _LEFT.get(backward)
    if left is None:
        left = _LEFT[backward] = []
        compat.after_backward(functools.partial(_settle, backward))
    left[:] = [one for one in left if not one.done]
    left.append(pending)


def _settle(backward: int) -> None:
    """Wait for what was left."""
    for pending in _LEFT.pop(backward):
        pending.wait()
