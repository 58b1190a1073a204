"""What may come in: plain tensors with memory. What is in flight is waited for, and what is only imagined is not run.

torch's own backends are reached through the dispatcher, where a tensor of another class says for itself what becomes of
a call. A group over shared memory is called as it stands, with addresses, and a tensor that wraps another has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from comm_core.errors import TransportError
from comm_shm.torch_compat import is_fake

PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))


class OnlyImagined(Exception):
    """A call has a FakeTensor: it has the right shapes already, and nothing is to be done."""


def strange(values: Iterable[Any]) -> bool:
    """Return whether a tensor of another class than torch's own is among the arguments of a call.

    Example:
        >>> strange([[torch.ones(2)], torch.ones(2), 3])
        False
    """
    for value in values:
        kind = type(value)
        if kind in PLAIN:
            continue
        if kind is list or kind is tuple:
            if strange(value):
                return True
        elif isinstance(value, torch.Tensor):
            return True
    return False


def opened(where: str, value: Any) -> Any:
    """Return an argument with plain tensors in place of those that are in flight, once they are there.

    Raises:
        OnlyImagined: a tensor is a FakeTensor.
        TransportError: a tensor wraps others, or handles torch's operations by itself, as a DTensor does.

    Example:
        >>> class Flying(torch.Tensor):
        ...     def trigger_wait(self):
        ...         return torch.ones(2)
        >>> opened("all_reduce", [torch.zeros(1), torch.zeros(2).as_subclass(Flying)])
        [tensor([0.]), tensor([1., 1.])]
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        return [opened(where, one) for one in value]
    if not isinstance(value, torch.Tensor):
        return value
    if hasattr(value, "trigger_wait"):
        return opened(where, value.trigger_wait())
    if is_fake(value):
        raise OnlyImagined
    if type(value).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        hint = "pass x.to_local()" if hasattr(value, "to_local") else "pass the plain tensors that it is made of"
        raise TransportError(where, got=f"a {type(value).__name__}", need="a plain tensor, which has memory", hint=hint)
    return value


def undense(where: str, x: torch.Tensor) -> TransportError | None:
    """Return the error for a tensor that is more than its elements in memory: sparse, nested or quantized; else None.

    Example:
        >>> undense("send", torch.ones(2)) is None
        True
        >>> print(undense("send", torch.ones(2).to_sparse()))
        send: got a tensor of layout torch.sparse_coo; need a dense one; pass x.to_dense()
    """
    if x.is_nested:
        got, hint = "a nested tensor", "pass the tensors that it is made of: x.unbind()"
    elif x.is_quantized:
        got, hint = f"a quantized tensor, of {x.dtype}", "pass x.int_repr(), its scale and its zero point"
    elif x.layout is not torch.strided:
        got, hint = f"a tensor of layout {x.layout}", "pass x.to_dense()"
    else:
        return None
    return TransportError(where, got=got, need="a dense one", hint=hint)


def unreachable(x: torch.Tensor) -> bool:
    """Return whether a tensor has elements but no memory, as one whose storage was given back has.

    Example:
        >>> x = torch.ones(3)
        >>> _ = x.untyped_storage().resize_(0)
        >>> unreachable(x), unreachable(torch.ones(0))
        (True, False)
    """
    try:
        return x.data_ptr() == 0 and x.numel() != 0
    except RuntimeError:  # torch's word for a tensor without storage, such as one of a whole batch under vmap
        return True


def no_memory(where: str, x: torch.Tensor) -> TransportError:
    """Return the error for such a tensor."""
    got = f"a tensor of shape {tuple(x.shape)} without memory"
    hint = "its storage has been given back, or it stands for a batch or a trace"
    return TransportError(where, got=got, need="a tensor with memory", hint=hint)
