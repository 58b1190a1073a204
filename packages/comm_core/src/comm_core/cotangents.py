"""What comes back for messages that were sent: asked for when autograd comes to them, waited for as late as can be.

Messages of two ranks with one tag meet in the order in which they are started, so the backward of a message starts
where autograd runs it. But two ranks that have received, and then sent, would both wait there for what the other one
sends only afterwards. So the wait is a node of its own, which autograd runs when nothing else is ready.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from comm_core.catalog import BY_KEY
from comm_core.collective import Params
from comm_core.compat import forward_ad_active, last_in_backward, number_nodes, sees_saved_tensors
from comm_core.execution import Finish, GroupEmit, Recorded
from comm_core.groups import AnyGroup
from comm_core.outbox import Sent, finished
from comm_core.pending import Pending
from comm_core.ties import anew, applied_unseen, tied


def recorded_messages(x: torch.Tensor, key: str, group: AnyGroup, params: Params, finish: Finish) -> torch.Tensor:
    """Start messages in eager code, with their gradient."""
    arrival = Arrival()
    if params["sends"]:
        x = Awaited.apply(x, arrival)  # type: ignore[no-untyped-call]
    inputs = x, key, group, params, finish, arrival
    if sees_saved_tensors():
        return applied_unseen(RecordedMessages, *inputs)[0]
    return cast(torch.Tensor, RecordedMessages.apply(*inputs)[0])  # type: ignore[no-untyped-call]


class Arrival:
    """A cotangent on its way from the node that asked for it to the one that waits."""

    def __init__(self) -> None:
        number_nodes()
        self.packed: torch.Tensor | None = None  # a cotangent that is its caller's own, and may be sent as it is
        self._pending: Pending | None = None
        self._in_place = False

    def start(self, pending: Pending) -> torch.Tensor:
        """Return the tensor that the cotangent will be in; autograd's look for NaNs comes before it is there."""
        if isinstance(pending, Sent):
            return finished(pending)
        read_before = torch.is_anomaly_enabled() and torch.is_anomaly_check_nan_enabled()
        self._pending, self._in_place = pending, pending.finish is None and not read_before
        if self._in_place:
            return pending.tensor
        return (pending.tensor.new_zeros if read_before else pending.tensor.new_empty)(pending.shape)

    def finish(self, cotangent: torch.Tensor) -> None:
        """Wait, and have it there."""
        pending, self._pending = self._pending, None
        if pending is not None:
            arrived = pending.wait()
            if not self._in_place:
                cotangent.detach().copy_(arrived)


class Awaited(torch.autograd.Function):
    """The identity, whose backward waits for the cotangent that a message's backward has asked for."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, arrival: Arrival) -> torch.Tensor:
        """Return the tensor."""
        ctx.arrival = arrival
        last_in_backward(ctx)
        return anew(x)

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Wait."""
        ctx.arrival.finish(cotangent)
        return cotangent, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, _: None) -> torch.Tensor:
        """Return the tangent."""
        return tangent.view_as(tangent)


class RecordedMessages(Recorded):
    """`Recorded` for messages: what comes back for them is asked for in backward, and waited for by `Awaited`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, key: str, group: AnyGroup, params: Params, finish: Finish, arrival: Arrival
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the kernel and keep what backward needs."""
        ctx.arrival = arrival
        return Recorded.forward(ctx, x, key, group, params, finish)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, cotangent: torch.Tensor | None, of_tie: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, ...]:
        """Run the gradient rule up to the wait, of a copy: others may write to a cotangent before it is through."""
        rule, emit = cast(Any, BY_KEY[ctx.key].gradient), GroupEmit(ctx.group, ctx.arrival.start)
        back, packed, ctx.arrival.packed = tied(ctx, cotangent, of_tie), ctx.arrival.packed, None
        sent = back if back is packed else back.clone()
        return rule(emit, sent, **ctx.params), None, None, None, None, None


def arrival_of(received: torch.Tensor) -> Arrival | None:
    """Return what waits for the cotangent of messages that backward will send back; None where that is another way."""
    return None if forward_ad_active() else getattr(received.grad_fn, "arrival", None)
