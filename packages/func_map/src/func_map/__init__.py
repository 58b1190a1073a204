"""Functions on local tensors applied to DTensors, with the right gradients."""

from func_map.mapped import local_map
from func_map.placements import Invariant

__version__ = "0.1.0"

__all__ = ["Invariant", "local_map"]
