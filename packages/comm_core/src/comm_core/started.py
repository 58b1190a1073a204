"""Collectives that compiled code starts at one place and finishes at another.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from comm_core.collective import Collective, Params
from comm_core.derivatives import is_linear
from comm_core.execution import (
    Differentiable,
    keep,
    parsed_in_graph,
    start_in_graph,
)
from comm_core.groups import AnyGroup, GroupLike
from comm_core.pending import Pending
from comm_core.tracing import transforms_active
from comm_core.wires import traced_transport


class Arriving(Protocol):
    """Whatever can be waited for to get a result."""

    def wait(self) -> torch.Tensor:
        """Return the result, finished."""
        ...


def begun(entry: Collective, x: torch.Tensor, group: GroupLike, params: Params) -> Arriving:
    """Start a collective in code that is being compiled; its ops stand here, and their wait where `wait` is called.

    Under torch.func, and where a gradient is wanted of a reduction that is not linear, all of it stands here.

    Raises:
        CommError: an argument is wrong, or a gradient is wanted of what has none.
    """
    x, on, parsed = parsed_in_graph(entry, x, group, params)
    wanted = torch.is_grad_enabled() and x.requires_grad
    if transforms_active() or (wanted and not is_linear(entry, parsed)):
        return Pending(start_in_graph(entry, x, group, params))
    pending = entry.kernel(traced_transport(on, waits=False), x.detach(), **parsed)
    return Recorded(pending, x, entry.key, on, parsed) if wanted else pending


class Recorded:
    """A collective under way whose result gets the input's history when it is waited for."""

    def __init__(self, pending: Pending, x: torch.Tensor, key: str, group: AnyGroup, params: Params) -> None:
        self.pending, self.x, self.key, self.group, self.params = pending, x, key, group, params

    def wait(self) -> torch.Tensor:
        """Emit the wait and return the result."""
        finished: torch.Tensor = Finished.apply(self.x, self.pending.wait(), self.key, self.group, self.params)  # type: ignore[no-untyped-call]
        return finished


class Finished(torch.autograd.Function):
    """A collective that has been run, as a differentiable function of its input."""

    @staticmethod
    def forward(x: torch.Tensor, output: torch.Tensor, key: str, group: AnyGroup, params: Params) -> torch.Tensor:
        """Return the result; autograd needs another tensor than the input."""
        return output.view_as(output)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep what backward needs."""
        x, _, key, group, params = inputs
        keep(ctx, x, output, key, group, params)

    backward = Differentiable.backward
