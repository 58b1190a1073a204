"""Which kernel a collective gets, and why: a pure function of what is known when the graph is compiled.

Nothing here knows torch or Inductor; `kinds.py` carries the choice out.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from comm_core import Lowering
from comm_lowering.policy import Policy

# Over one rank these leave the input as it is on every backend. Others (avg, band, ...) may be refused by the
# backend, and compiled code must then raise as eager code does.
NEUTRAL_REDUCE_OPS = ("sum", "product", "min", "max")


class Kernel(enum.StrEnum):
    """What a collective, or its wait, became in the compiled code."""

    IN_PLACE = "in_place"
    COPY_THEN_IN_PLACE = "copy_then_in_place"
    OUT_OF_PLACE = "out_of_place"
    IDENTITY = "identity"
    INDUCTOR = "inductor"


class Fate(enum.StrEnum):
    """What becomes of a collective's input after the collective."""

    DIES = "dies"
    LIVES = "lives"
    OVERWRITTEN = "overwritten"


@dataclass(frozen=True, slots=True)
class Request:
    """One collective as the compiler meets it.

    Args:
        collective: its catalogue name.
        lowering: its kind in the catalogue.
        nbytes: bytes of the input, or None where they depend on a symbolic size.
        dtype: the input's dtype, as a word.
        world: ranks in the group.
        fate: what becomes of the input afterwards.
        because: why that is its fate, in words for the report.
        reduce_op: the reduction as a word, where the collective has one.
    """

    collective: str
    lowering: Lowering
    nbytes: int | None
    dtype: str
    world: int
    fate: Fate
    because: str
    reduce_op: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The kernel chosen, the reason, and every alternative with the reason against it."""

    kernel: Kernel
    reason: str
    rejected: tuple[tuple[Kernel, str], ...] = ()


def choose(request: Request, policy: Policy) -> Choice:
    """Choose the kernel for one collective.

    Args:
        request: what is known of the collective at compile time.
        policy: what the user wants.

    Returns:
        The choice, with its reason and the alternatives that were rejected.

    Example:
        >>> from comm_core import Lowering
        >>> request = Request(
        ...     "all_reduce", Lowering.CLONE_THEN_IN_PLACE, 4096, "float32", 2, Fate.DIES, "nothing reads it later"
        ... )
        >>> choose(request, Policy()).kernel.value
        'in_place'
        >>> choose(request, Policy(in_place="never")).kernel.value
        'copy_then_in_place'
    """
    if not policy.takes(request.collective):
        return Choice(Kernel.INDUCTOR, f"the policy leaves {request.collective} to Inductor")
    lone, why_not = _lone(request, policy)
    if lone is not None:
        return lone
    found = _in_own_buffer(request, policy) if _may_be_in_place(request) else _out_of_place(request)
    return Choice(found.kernel, found.reason, (*found.rejected, (Kernel.IDENTITY, why_not)))


def _may_be_in_place(request: Request) -> bool:
    return request.lowering is Lowering.CLONE_THEN_IN_PLACE


def _lone(request: Request, policy: Policy) -> tuple[Choice | None, str]:
    if request.world != 1:
        return None, f"the group has {request.world} ranks"
    if policy.lone_group == "call":
        return None, "the policy keeps calls over a group of one rank"
    if request.reduce_op is not None and request.reduce_op not in NEUTRAL_REDUCE_OPS:
        return None, f"over one rank {request.reduce_op!r} is left to the backend, which may refuse it"
    call = Kernel.IN_PLACE if _may_be_in_place(request) else Kernel.OUT_OF_PLACE
    return Choice(Kernel.IDENTITY, "the group has one rank: nothing moves", ((call, "a call for nothing"),)), ""


def _in_own_buffer(request: Request, policy: Policy) -> Choice:
    copy = "the copy would write " + (f"{request.nbytes} bytes more" if request.nbytes else "the input once more")
    if request.fate is Fate.OVERWRITTEN:
        return Choice(Kernel.IN_PLACE, request.because, ((Kernel.COPY_THEN_IN_PLACE, copy),))
    if request.fate is Fate.LIVES:
        against = "it would change a value that is still needed"
        return Choice(Kernel.COPY_THEN_IN_PLACE, request.because, ((Kernel.IN_PLACE, against),))
    if policy.in_place == "never":
        against = "the policy says in_place='never'"
        return Choice(Kernel.COPY_THEN_IN_PLACE, "the policy asks for a copy", ((Kernel.IN_PLACE, against),))
    return Choice(Kernel.IN_PLACE, f"the input dies here: {request.because}", ((Kernel.COPY_THEN_IN_PLACE, copy),))


def _out_of_place(request: Request) -> Choice:
    against = "the result is laid out differently from the input"
    return Choice(Kernel.OUT_OF_PLACE, "the result needs a buffer of its own", ((Kernel.IN_PLACE, against),))
