"""Trees of arguments and results, through torch's pytree: the one that Dynamo knows.

`torch.utils._pytree` is private in torch 2.11 to 2.14 and has no public name there; Dynamo traces its
`tree_flatten` and `tree_unflatten`, which a walk of our own would only repeat.
"""

from __future__ import annotations

from typing import Any

from torch.utils import _pytree


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Return the leaves of a tree in order, and what is needed to build it again.

    Example:
        >>> leaves, structure = flatten((1, {"a": [2, None]}))
        >>> leaves
        [1, 2, None]
        >>> unflatten([10, 20, 30], structure)
        (10, {'a': [20, 30]})
    """
    return _pytree.tree_flatten(tree)


def unflatten(leaves: list[Any], structure: Any) -> Any:
    """Build the tree that `flatten` took apart, with other leaves."""
    return _pytree.tree_unflatten(leaves, structure)


def leaf_paths(tree: Any) -> list[tuple[str, ...]]:
    """Return each leaf's path as the subscripts that lead to it.

    Example:
        >>> leaf_paths(({"a": 1}, [2, 3]))
        [('[0]', "['a']"), ('[1]', '[0]'), ('[1]', '[1]')]
    """
    pairs, _ = _pytree.tree_flatten_with_path(tree)
    return [tuple(str(key) for key in path) for path, _ in pairs]
