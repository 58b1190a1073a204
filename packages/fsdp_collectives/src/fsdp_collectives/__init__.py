"""Parameter gather and gradient reduction for fully sharded training: plan once, then move bytes."""

from fsdp_collectives.blocks import shard_of
from fsdp_collectives.engine import full_parameters, shard
from fsdp_collectives.gather import Gathered, PendingGather, gather_parameters, start_gather
from fsdp_collectives.lanes import TensorSpec
from fsdp_collectives.plan import GatherPlan, ReducePlan
from fsdp_collectives.policy import Policy
from fsdp_collectives.reduce import PendingReduce, Reduced, reduce_gradients, start_reduce
from fsdp_collectives.report import Report, UnitReport, report

__version__ = "0.1.0"

__all__ = [
    "GatherPlan",
    "Gathered",
    "PendingGather",
    "PendingReduce",
    "Policy",
    "ReducePlan",
    "Reduced",
    "Report",
    "TensorSpec",
    "UnitReport",
    "full_parameters",
    "gather_parameters",
    "reduce_gradients",
    "report",
    "shard",
    "shard_of",
    "start_gather",
    "start_reduce",
]
