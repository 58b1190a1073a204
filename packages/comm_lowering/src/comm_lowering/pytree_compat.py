"""torch's own pytree, the one that Dynamo traces; the public `torch.utils.pytree` does not exist in 2.11 to 2.14."""

from __future__ import annotations

from torch.utils._pytree import tree_leaves

__all__ = ["tree_leaves"]
