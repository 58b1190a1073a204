"""The private modules of torch that benchmarks measure against (2.11 to 2.14)."""

import torch.distributed._functional_collectives as torchs

__all__ = ["torchs"]
