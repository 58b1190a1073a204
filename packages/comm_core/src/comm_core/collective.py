"""What a collective is: one frozen value with every rule that belongs to it.

`comm_core/catalog/` holds one file per collective. Each fills the fields of `Collective` in the same order, so the
files can be read side by side; `docs/reference/collectives.md` is the same table column by column.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch

from comm_core.errors import ArgumentError

if TYPE_CHECKING:
    from comm_core.pending import Pending

Params = dict[str, Any]
Shape = tuple[int, ...]


class Lowering(enum.Enum):
    """The words for what a compiler makes of a collective; `comm_lowering` has one handler for each."""

    CLONE_THEN_IN_PLACE = "clone the input unless it dies here, then run the in-place op on it"
    OUT_OF_PLACE = "run the op into a new buffer"
    COMPOSITE = "trace into another collective of the catalogue"
    OPAQUE = "run an op of our own, which has finished when it returns"
    WAIT = "wait for the collective that made the tensor"


@dataclass(frozen=True, slots=True)
class Missing:
    """A field of a `Collective` that cannot be filled, with the reason."""

    why: str


def missing(why: str) -> Missing:
    """Say why a field of a `Collective` is not filled.

    Example:
        >>> missing("c10d has no such op").why
        'c10d has no such op'
    """
    return Missing(why)


@dataclass(frozen=True, slots=True)
class Batched:
    """Where a vmapped dim has to stand for a collective to leave it alone, and the parameters to call with."""

    position: int
    params: Params


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a rank makes of its share of all ranks' elements, a row for each rank.

    Args:
        rows: `(rows, **params) -> rows`, in torch's differentiable ops.
        pulled_back: `(rows, cotangents, **params) -> cotangents`, the transpose, written over both.
    """

    rows: Callable[..., torch.Tensor]
    pulled_back: Callable[..., torch.Tensor]

    def __repr__(self) -> str:
        return "Expansion(rows, pulled_back)"  # the same in every process


@dataclass(frozen=True, slots=True)
class Collective:
    """One collective: what it computes and how, as rules that name no transport.

    All rules take the collective's own parameters by keyword, after `check` has parsed them.

    Args:
        name: the name in every message, table and test.
        summary: one sentence on what it does.
        schema: the functional signature.
        check: `(x, world, rank, **params) -> params`; parses arguments or raises a `CommError`.
        agrees: `(x, **params) -> (word, value, ...)` that every rank must say alike.
        shape: `(shape, world, rank, **params) -> shape` of this rank's result.
        oracle: `(inputs, params)`, both lists over ranks, -> list over ranks; defines what it computes.
        kernel: `(wire, x, **params) -> Pending`, in terms of a transport's contiguous blocks along dim 0; one that
            copies what it sends takes a `fill` too, which writes it.
        gradient: `(emit, cotangent, **params) -> cotangent`, the transpose, in terms of other catalogue entries.
        identity: the gradient rule where what follows is computed alike on all ranks and counted once (Megatron's
            convention); of the same form, and the same rule where the ranks' results are different parts.
        partial: `(emit, x, y, **params) -> tensor like x`, for a reduce op that is not linear: to first order the
            collective is the one with `sum`, of x times this; missing where the collective itself is linear.
        batch: `(ndim, **params) -> Batched`; how one call serves a whole batch under vmap.
        twin: the name of torch's op with the same meaning in `torch.ops._c10d_functional`.
        in_place: the name of the op there that writes into its input.
        wire_bytes: `(input_bytes, world, rank, **params) -> bytes`: this rank's share of what must cross between ranks.
        lowering: what a compiler makes of it.
        weighted: `(emit, cotangent, factors, **params) -> cotangent`, the gradient of the sum times what `partial`
            gave, written over that; where to make the one and then multiply would take more room.
        expanded: what a rank computes between two exchanges, taken where derivatives are wanted of a reduce op that is
            not linear and has no `partial`.
        convention: which of the two gradient rules a call uses; `under` gives the entry with the other one.

    Attributes:
        key: the entry's name, with its convention where that is not the default.
        parameters: the names of the collective's own parameters, from its `check`.
        fills: the kernel takes a `fill` (`catalog/blocks.py`), and so makes one copy of what cannot be sent as it lies.

    Raises:
        ArgumentError: a field is empty; use `missing("why")`.

    Source: JAX keeps a primitive's rules side by side; mpi4jax keeps one file per collective.
    """

    name: str
    summary: str
    schema: str
    check: Callable[..., Params]
    agrees: Callable[..., tuple[object, ...]]
    shape: Callable[..., Shape]
    oracle: Callable[..., list[torch.Tensor]]
    kernel: Callable[..., Pending]
    gradient: Callable[..., torch.Tensor] | Missing
    identity: Callable[..., torch.Tensor] | Missing
    partial: Callable[..., torch.Tensor] | Missing
    batch: Callable[..., Batched] | Missing
    twin: str | Missing
    in_place: str | Missing
    wire_bytes: Callable[..., int]
    lowering: Lowering
    weighted: Callable[..., torch.Tensor] | Missing = Missing(
        "there is no partial, or it is multiplied by the gradient in place"
    )
    expanded: Expansion | Missing = Missing("its derivatives follow from gradient and partial")
    convention: str = "adjoint"
    key: str = field(init=False)
    parameters: frozenset[str] = field(init=False)
    fills: bool = field(init=False)

    def __post_init__(self) -> None:
        for rule in fields(self):
            if rule.init and not getattr(self, rule.name):
                where = f"Collective {self.name!r}"
                raise ArgumentError(where, got=f"nothing for {rule.name}", need="a value or missing('why')")
        key = self.name if self.convention == "adjoint" else f"{self.name}, {self.convention}"
        object.__setattr__(self, "key", key)
        own = inspect.signature(self.check).parameters.values()
        object.__setattr__(self, "parameters", frozenset(p.name for p in own if p.kind is p.KEYWORD_ONLY))
        object.__setattr__(self, "fills", "fill" in inspect.signature(self.kernel).parameters)
