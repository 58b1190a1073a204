"""A unit at run time: its sharded parameters, its plans, and which whole parameters its module shows right now.

The registered parameters are always the DTensor shards. While a unit is open, an instance attribute of the same name
hides each of them, so `module.weight` is whole and `module.parameters()` still yields the shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from comm_core.groups import AnyGroup
from fsdp_collectives.compat import registered_parameters
from fsdp_collectives.gather import Gathered, gather_parameters
from fsdp_collectives.lanes import TensorSpec
from fsdp_collectives.plan import GatherPlan, ReducePlan
from fsdp_collectives.policy import Policy
from fsdp_collectives.units import Members

if TYPE_CHECKING:
    from fsdp_collectives.visit import Visit


@dataclass(frozen=True)
class UnitPlans:
    """What a unit moves.

    Args:
        gather: of all its parameters.
        reduce: of the gradients of those that require grad.
        trainable: their positions among the unit's parameters.
    """

    gather: GatherPlan
    reduce: ReducePlan
    trainable: tuple[int, ...]


class ShardedUnit:
    """The parameters that are gathered and reduced together.

    Args:
        members: the module and where its parameters are.
        group: the ranks that share them.
        policy: dtypes and divisor.
        reshards: whether the whole parameters are freed after forward.
    """

    def __init__(self, members: Members, group: AnyGroup, policy: Policy, reshards: bool) -> None:
        self.name = members.name
        self.module = members.module
        self.entries = members.entries
        self.group = group
        self.policy = policy
        self.reshards = reshards
        self.open: list[Visit] = []
        self._plans: UnitPlans | None = None
        self._planned_for: object = None

    def parameters(self) -> list[nn.Parameter]:
        """Return the sharded parameters, as they are registered now."""
        firsts = (entry.places[0] for entry in self.entries)
        return [registered_parameters(place.owner)[place.attribute] for place in firsts]

    def shards(self) -> list[torch.Tensor]:
        """Return this rank's part of each parameter."""
        with torch.no_grad():
            return [local(parameter) for parameter in self.parameters()]

    @property
    def plans(self) -> UnitPlans:
        """The plans for the parameters as they are now; made again after a change of dtype or `requires_grad`."""
        parameters = self.parameters()
        made_for = [(parameter.dtype, parameter.requires_grad) for parameter in parameters]
        if self._plans is None or made_for != self._planned_for:
            self._plans = self._plan(parameters)
            self._planned_for = made_for
        return self._plans

    def _plan(self, parameters: list[nn.Parameter]) -> UnitPlans:
        specs = [
            TensorSpec(entry.name, tuple(x.shape), x.dtype, 0 if x.ndim else None)
            for entry, x in zip(self.entries, parameters, strict=True)
        ]
        trainable = tuple(i for i, parameter in enumerate(parameters) if parameter.requires_grad)
        policy = self.policy
        reduce_dtype = policy.reduce_dtype or policy.param_dtype
        return UnitPlans(
            GatherPlan.build(specs, self.group.world, policy.param_dtype),
            ReducePlan.build([specs[i] for i in trainable], self.group.world, reduce_dtype, policy.divide_by),
            trainable,
        )

    def gather(self) -> Gathered:
        """Return the whole parameters, new tensors of this rank."""
        return gather_parameters(self.plans.gather, self.shards(), self.group)

    def show(self) -> None:
        """Let the module's attributes be the whole parameters of the last open visit; the shards if there is none."""
        full = self.open[-1].full if self.open else None
        for i, entry in enumerate(self.entries):
            for place in entry.places:
                if full is None:
                    vars(place.owner).pop(place.attribute, None)
                else:
                    vars(place.owner)[place.attribute] = full[i]


def local(parameter: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a DTensor, with its gradient."""
    part: torch.Tensor = parameter.to_local()  # type: ignore[attr-defined]
    return part
