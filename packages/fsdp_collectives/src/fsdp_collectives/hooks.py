"""Hooks: what happens around a unit's forward. What happens in its backward is in `visit.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fsdp_collectives.compat import NO_BACKWARD, backward_id, map_tensors
from fsdp_collectives.sharded_unit import ShardedUnit
from fsdp_collectives.visit import Visit


class UnitHooks:
    """The forward hooks of one unit.

    Args:
        unit: the unit whose module is to be hooked.
    """

    def __init__(self, unit: ShardedUnit) -> None:
        self.unit = unit

    def install(self) -> None:
        """Hook the unit's module; the closing hook runs also when forward raises."""
        module = self.unit.module
        module.register_forward_pre_hook(self.before_forward, with_kwargs=True)
        module.register_forward_hook(self.after_forward, with_kwargs=True, always_call=True)

    @torch.compiler.disable
    def before_forward(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Gather the whole parameters and show them, and cast the inputs if the policy says so."""
        open_unit(self.unit)
        policy = self.unit.policy
        if policy.param_dtype is None or not policy.cast_inputs:
            return None
        return map_tensors(self._cast, args), map_tensors(self._cast, kwargs)

    def _cast(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.unit.policy.param_dtype) if x.is_floating_point() else x

    @torch.compiler.disable
    def after_forward(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Show the shards again and free the whole parameters."""
        unit = self.unit
        if not unit.open:
            return  # the gather itself has raised
        visit = unit.open[-1]
        visit.depth -= 1
        if visit.depth == 0:
            unit.open.pop()
            unit.show()
            visit.after_forward((args, kwargs), output)


def open_unit(unit: ShardedUnit) -> None:
    """Make the unit's parameters whole for a forward call that starts."""
    visit = _open_visit(unit)
    if visit is None:
        unit.open.append(Visit(unit))
        unit.show()
    else:
        visit.depth += 1


def _open_visit(unit: ShardedUnit) -> Visit | None:
    """Return the open visit that this forward call may use.

    | open visit                      | this call                    | uses it                            |
    |---------------------------------|------------------------------|------------------------------------|
    | of a backward that is running   | a recomputation              | yes; its memory goes with the graph |
    | of a backward that has failed   | any                          | no; it is dropped                  |
    | of a forward, graph recorded    | the module calls itself      | yes                                |
    | no graph recorded               | records a graph              | no                                 |
    | no graph recorded               | records none                 | yes                                |
    """
    running = backward_id() != NO_BACKWARD
    if not running:
        unit.open[:] = [visit for visit in unit.open if visit.backward == NO_BACKWARD]
    if not unit.open:
        return None
    visit = unit.open[-1]
    if visit.backward != NO_BACKWARD:
        visit.keeps_memory = True
        return visit
    records = torch.is_grad_enabled() and bool(unit.plans.trainable)
    return visit if visit.tracked or not records else None
