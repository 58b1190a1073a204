"""One visit to a unit: the whole parameters of one forward call, until its backward is done.

Every forward call gathers its own whole parameters and puts one node into the graph, whose inputs are the shards and
whose outputs are the whole parameters. Autograd runs that node when the last gradient of the call has arrived, so its
backward is the place to reduce, and what it returns is accumulated into the shards' `.grad` by autograd itself.
Between forward and backward the memory of the whole parameters is given back and their storages stay empty.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any, NoReturn

import torch
from torch.autograd.function import once_differentiable
from torch.autograd.graph import register_multi_grad_hook

from comm_core.errors import GradientError
from fsdp_collectives.compat import NO_BACKWARD, after_backward, backward_id, tensors_in
from fsdp_collectives.gather import gather_parameters
from fsdp_collectives.reduce import reduce_gradients
from fsdp_collectives.sharded_unit import ShardedUnit, local


class FullParameters(torch.autograd.Function):
    """The node between shards and whole parameters; the visit has gathered them already."""

    @staticmethod
    def forward(ctx: Any, visit: Visit, full: list[torch.Tensor], *shards: torch.Tensor) -> Any:
        """Return the whole parameters as functions of the shards."""
        ctx.set_materialize_grads(False)
        ctx.visit = visit
        return tuple(full)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        """Reduce the gradients of the whole parameters to those of the shards."""
        return None, None, *ctx.visit.reduce(gradients)


class Visit:
    """The whole parameters of one forward call.

    Args:
        unit: whose they are.
        for_reading: that no gradient is to be recorded, whatever the grad mode.
    """

    def __init__(self, unit: ShardedUnit, for_reading: bool = False) -> None:
        self.unit = unit
        self.plans = unit.plans
        self.full = list(unit.gather().tensors)
        self.depth = 1  # forward calls, and a backward, that need the parameters now
        self.backward = NO_BACKWARD  # the backward pass that has opened it
        self.keeps_memory = backward_id() != NO_BACKWARD  # a recomputation's graph owns its tensors alone
        self.tracked = torch.is_grad_enabled() and bool(self.plans.trainable) and not for_reading
        self._memory = [x.data for x in self.full]  # the storages, with version counters of their own
        self._bytes = [x.untyped_storage().nbytes() for x in self._memory]
        self._freed = False
        self._inputs = 0  # inputs whose gradients need the frozen parameters
        self._waits_for = 0
        if self.tracked:
            self._track()

    def _track(self) -> None:
        parameters = self.unit.parameters()
        trainable = self.plans.trainable
        shards = [local(parameters[i]) for i in trainable]
        attach: Any = FullParameters.apply
        outputs = attach(self, [self.full[i] for i in trainable], *shards)
        for i, output in zip(trainable, outputs, strict=True):
            self.full[i] = output

    def after_forward(self, inputs: object, outputs: object) -> None:
        """Prepare for backward, and give the memory back until then."""
        self.full = []
        made = [x for x in tensors_in(outputs) if x.requires_grad]
        if not made or not torch.is_grad_enabled():
            return
        register_multi_grad_hook(made, self._before_backward, mode="any")
        if len(self.plans.trainable) < len(self._memory):
            self._watch([x for x in tensors_in(inputs) if x.requires_grad])
        self.keeps_memory = self.keeps_memory or self._escapes(made)
        if self.unit.reshards:
            self._free()

    def _watch(self, inputs: list[torch.Tensor]) -> None:
        """Ask to be told when the gradients of inputs are there, without being kept alive by them."""
        self._inputs = len(inputs)
        for x in inputs:
            hook = x.register_hook(partial(_tell, weakref.ref(self)))
            weakref.finalize(self, hook.remove).atexit = False

    def _escapes(self, outputs: list[torch.Tensor]) -> bool:
        """Tell whether an output is a view of a whole parameter, whose memory must then stay."""
        own = {x.untyped_storage().data_ptr() for x in self._memory if x.numel()}
        plain = (x for x in outputs if not hasattr(x, "to_local"))
        return any(x.untyped_storage().data_ptr() in own for x in plain)

    def _before_backward(self, gradient: torch.Tensor) -> None:
        """Gather again, now that the gradient of an output is known."""
        if self in self.unit.open:
            return
        self._gather_again()
        self.depth, self.backward = 1, backward_id()
        self.full = [self._lent(i) for i in range(len(self._memory))]
        self._waits_for = self._inputs + self.tracked
        self.unit.open.append(self)
        self.unit.show()
        after_backward(self.close)

    def _gather_again(self) -> None:
        if self._freed:
            for x, size in zip(self._memory, self._bytes, strict=True):
                x.untyped_storage().resize_(size)
            gather_parameters(self.plans.gather, self.unit.shards(), self.unit.group, out=self._memory)
            self._freed = False

    def _lent(self, i: int) -> torch.Tensor:
        """Return a whole parameter for a part of the module that is recomputed during backward."""
        x = self._memory[i].detach()
        if i in self.plans.trainable:
            x.requires_grad_().register_hook(_refuse_gradient)
        return x

    def reduce(self, gradients: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor | None, ...]:
        """Reduce the gradients that this call's graph has given."""
        dense = [x.to_dense() if x is not None and x.is_sparse else x for x in gradients]
        device = self._memory[0].device
        reduced = reduce_gradients(self.plans.reduce, dense, self.unit.group, device)
        self.reached()
        return reduced.gradients

    def reached(self) -> None:
        """Close when the last gradient that needs the parameters is there; else `close` comes after backward."""
        self._waits_for -= 1
        if self._waits_for == 0 and self.backward == backward_id():
            self.close()

    def close(self) -> None:
        """End the backward of this call; calling it again does nothing."""
        if self not in self.unit.open:
            return
        self.unit.open.remove(self)
        self.unit.show()
        self.full, self.backward = [], NO_BACKWARD
        self._free()

    def _free(self) -> None:
        if not self.keeps_memory:
            for x in self._memory:
                x.untyped_storage().resize_(0)
            self._freed = True


def _tell(visit: weakref.ref[Visit], gradient: torch.Tensor) -> None:
    reached = visit()
    if reached is not None:
        reached.reached()


def _refuse_gradient(gradient: torch.Tensor) -> NoReturn:
    raise GradientError(
        "shard",
        got="a gradient from a backward inside a backward (a reentrant checkpoint within a unit)",
        need="recomputation that is part of the one backward",
        hint="call torch.utils.checkpoint.checkpoint(..., use_reentrant=False)",
    )
