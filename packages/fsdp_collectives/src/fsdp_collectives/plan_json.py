"""Plans as JSON text: what they were made from, and every offset that follows, for people and for `diff`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from comm_core.errors import ArgumentError
from fsdp_collectives.lanes import Lane, TensorSpec

if TYPE_CHECKING:
    from fsdp_collectives.plan import GatherPlan, ReducePlan


def dump(kind: str, plan: GatherPlan | ReducePlan, **settings: str | float | None) -> str:
    """Write a plan."""
    body = {
        "kind": kind,
        "world": plan.world,
        **settings,
        "tensors": [_tensor(spec) for spec in plan.specs],
        "lanes": [_lane(lane) for lane in plan.lanes],
    }
    return json.dumps(body, indent=1)


def word(dtype: torch.dtype | None) -> str | None:
    """Return a dtype's name without the module.

    Example:
        >>> word(torch.bfloat16)
        'bfloat16'
    """
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": word(spec.dtype), "dim": spec.dim}


def _lane(lane: Lane) -> dict[str, object]:
    slots = [{"name": slot.spec.name, "offset": slot.offset, "numel": slot.numel} for slot in lane.slots]
    return {"dtype": word(lane.dtype), "block_numel": lane.block_numel, "slots": slots}


@dataclass(frozen=True)
class PlanText:
    """What a plan was made from, read back."""

    where: str
    body: dict[str, Any]

    @property
    def world(self) -> int:
        """The number of ranks."""
        return int(self._get("world"))

    @property
    def specs(self) -> list[TensorSpec]:
        """The parameters."""
        try:
            return [
                TensorSpec(one["name"], tuple(one["shape"]), self._dtype(one["dtype"]), one["dim"])
                for one in self._get("tensors")
            ]
        except (KeyError, TypeError) as error:
            raise ArgumentError(self.where, got="a tensor that is not fully described") from error

    def dtype(self, setting: str) -> torch.dtype | None:
        """Return a setting that is a dtype or null."""
        name = self._get(setting)
        return None if name is None else self._dtype(name)

    def number(self, setting: str) -> float:
        """Return a setting that is a number."""
        return float(self._get(setting))

    def _get(self, key: str) -> Any:
        if key not in self.body:
            raise ArgumentError(self.where, got=f"a text without {key!r}", need="what to_json() returned")
        return self.body[key]

    def _dtype(self, name: object) -> torch.dtype:
        found = getattr(torch, str(name), None)
        if not isinstance(found, torch.dtype):
            raise ArgumentError(self.where, got=f"dtype {name!r}", need="the name of a torch dtype")
        return found


def load(kind: str, text: str) -> PlanText:
    """Read what `dump` wrote.

    Raises:
        ArgumentError: it is not JSON, or not a plan of this kind.
    """
    where = f"{kind} plan"
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ArgumentError(where, got="text that is not JSON", need="what to_json() returned") from error
    if not isinstance(body, dict) or body.get("kind") != kind:
        got = f"kind {body.get('kind')!r}" if isinstance(body, dict) else f"a JSON {type(body).__name__}"
        raise ArgumentError(where, got=got, need=f"kind {kind!r}")
    return PlanText(where, body)


def check_same(text: str, again: str, kind: str) -> None:
    """Refuse a text whose offsets are not the ones that this version computes from its shapes.

    Raises:
        ArgumentError: they differ.
    """
    if json.loads(text) != json.loads(again):
        raise ArgumentError(
            f"{kind} plan",
            got="offsets that do not follow from the shapes",
            need="an unchanged text of this version",
            hint="build the plan anew from the parameters",
        )
