"""What an op asks of the tensors that it is given, and which of them it writes to: told by its schema."""

from __future__ import annotations

import functools
from typing import Any

import torch


@functools.cache
def asked_by(func: Any) -> str:
    """Say what an op asks of a result in flight other than its values; empty where it is those.

    `wait` is the op by which `AsyncCollectiveTensor.wait` asks; what `keeps` gives the class of its input, as
    `torch.nn.Parameter` asks for; `reshapes` is in place; `lists` is of an op that writes to lists of tensors.

    Example:
        >>> [asked_by(op.default) for op in (torch.ops.aten.t, torch.ops.aten.t_, torch.ops.aten._foreach_zero_)]
        ['view', 'reshapes', 'lists']
        >>> asked_by(torch.ops.aten.neg.default)
        ''
    """
    if func is torch.ops.aten.alias.default:
        return "wait"
    if func is torch.ops.aten.detach.default:
        return "keeps"
    if torch.Tag.inplace_view in func.tags:
        return "reshapes"
    if func.is_view:
        return "view"
    return "lists" if written_lists(func) else ""


@functools.cache
def written_lists(func: Any) -> tuple[tuple[int, str], ...]:
    """Return place and name of each list of tensors that an op writes to.

    Example:
        >>> written_lists(torch.ops.aten._foreach_copy_.default), written_lists(torch.ops.aten.unbind_copy.int_out)
        (((0, 'self'),), ((2, 'out'),))
    """
    lists = [(i, each) for i, each in enumerate(func._schema.arguments) if str(each.type) == "List[Tensor]"]
    return tuple((i, each.name) for i, each in lists if each.alias_info and each.alias_info.is_write)
