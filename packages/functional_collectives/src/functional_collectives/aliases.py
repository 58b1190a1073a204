"""Other names that torch has for the same functions: its newer ones, and those from before all were differentiable."""

from __future__ import annotations

import comm_core
from functional_collectives.coalesced import all_gather_into_tensor_coalesced, reduce_scatter_tensor_coalesced
from functional_collectives.collectives import all_gather_tensor, all_to_all_single, reduce_scatter_tensor

all_gather_single = all_gather_tensor
all_gather_single_autograd = all_gather_tensor
all_gather_single_coalesced = all_gather_into_tensor_coalesced
all_gather_tensor_autograd = all_gather_tensor
all_to_all_single_autograd = all_to_all_single
premul_sum = comm_core.premul_sum
reduce_scatter_single = reduce_scatter_tensor
reduce_scatter_single_autograd = reduce_scatter_tensor
reduce_scatter_single_coalesced = reduce_scatter_tensor_coalesced
reduce_scatter_tensor_autograd = reduce_scatter_tensor
