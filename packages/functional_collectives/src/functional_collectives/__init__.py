"""Eager, traceable, differentiable collectives for PyTorch.

import functional_collectives as fc

y = fc.all_reduce(x, "sum", group)  # returns at once
z = y + 1                           # waits here
"""

from functional_collectives.aliases import (
    all_gather_single,
    all_gather_single_autograd,
    all_gather_single_coalesced,
    all_gather_tensor_autograd,
    all_to_all_single_autograd,
    premul_sum,
    reduce_scatter_single,
    reduce_scatter_single_autograd,
    reduce_scatter_single_coalesced,
    reduce_scatter_tensor_autograd,
)
from functional_collectives.async_tensor import AsyncCollectiveTensor
from functional_collectives.barriers import barrier
from functional_collectives.checked_mode import checked
from functional_collectives.coalesced import (
    all_gather_into_tensor_coalesced,
    all_reduce_coalesced,
    reduce_scatter_tensor_coalesced,
)
from functional_collectives.collectives import (
    all_gather_tensor,
    all_reduce,
    all_to_all_single,
    broadcast,
    permute_tensor,
    reduce_scatter_tensor,
    wait_tensor,
)
from functional_collectives.flight import InFlight, inflight
from functional_collectives.graph_inputs import allow_inflight_collective_as_graph_input_ctx
from functional_collectives.inplace import (
    all_gather_tensor_inplace,
    all_reduce_inplace,
    all_to_all_inplace,
    reduce_scatter_tensor_inplace,
)
from functional_collectives.lists_inplace import all_gather_inplace, reduce_scatter_inplace
from functional_collectives.message_inplace import batch_p2p_ops_inplace, irecv_inplace, isend_inplace
from functional_collectives.point_to_point import Receive, Send, batch_p2p, irecv, isend
from functional_collectives.prefixes import exscan, scan
from functional_collectives.remaps import remapped
from functional_collectives.rooted import gather, reduce, scatter
from functional_collectives.uneven import all_gather_v, reduce_scatter_v

__version__ = "0.1.0"

__all__ = [
    "AsyncCollectiveTensor",
    "InFlight",
    "Receive",
    "Send",
    "all_gather_inplace",
    "all_gather_into_tensor_coalesced",
    "all_gather_single",
    "all_gather_single_autograd",
    "all_gather_single_coalesced",
    "all_gather_tensor",
    "all_gather_tensor_autograd",
    "all_gather_tensor_inplace",
    "all_gather_v",
    "all_reduce",
    "all_reduce_coalesced",
    "all_reduce_inplace",
    "all_to_all_inplace",
    "all_to_all_single",
    "all_to_all_single_autograd",
    "allow_inflight_collective_as_graph_input_ctx",
    "barrier",
    "batch_p2p",
    "batch_p2p_ops_inplace",
    "broadcast",
    "checked",
    "exscan",
    "gather",
    "inflight",
    "irecv",
    "irecv_inplace",
    "isend",
    "isend_inplace",
    "permute_tensor",
    "premul_sum",
    "reduce",
    "reduce_scatter_inplace",
    "reduce_scatter_single",
    "reduce_scatter_single_autograd",
    "reduce_scatter_single_coalesced",
    "reduce_scatter_tensor",
    "reduce_scatter_tensor_autograd",
    "reduce_scatter_tensor_coalesced",
    "reduce_scatter_tensor_inplace",
    "reduce_scatter_v",
    "remapped",
    "scan",
    "scatter",
    "wait_tensor",
]
