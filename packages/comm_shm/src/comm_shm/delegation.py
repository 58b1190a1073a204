"""Tensors of other devices, for `init_process_group("cpu:shm,cuda:nccl")`: handed on to a group of that backend.

torch lets a Python process group stand for all devices of a group, so this one makes those for the others itself, when
the first tensor of such a device comes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from comm_core import compat
from comm_core.errors import TransportError
from comm_shm.agreement import Refused
from comm_shm.entrance import OnlyImagined, strange
from comm_shm.messages import MessagingGroup
from comm_shm.room import NoRoom
from comm_shm.terms import Terms, starts
from comm_shm.torch_compat import group_of_backend
from comm_shm.watching_compat import shown, watched_now
from comm_shm.work import FinishedWork


class DelegatingGroup(MessagingGroup):
    """A group over shared memory that has a group of another backend for each other device it was created with."""

    def __init__(self, options: Any, handle: Any) -> None:
        super().__init__(options, handle)
        self._options = options
        self._others: dict[str, Any] = {}

    def _other(self, x: torch.Tensor | torch.device) -> Any:
        """Return the group for a tensor's device, None for the CPU and where none was asked for."""
        device = x if isinstance(x, torch.device) else x.device
        if device.type == "cpu":
            return None
        if device.type not in self._others:
            self._others[device.type] = self._make(device.type, self._backends().get(device.type))
        return self._others[device.type]

    def _make(self, device: str, backend: str | None) -> Any:
        if backend in (None, "shm"):
            return None
        try:
            made = group_of_backend(str(backend), device, self._options)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise TransportError(
                f'backend "{device}:{backend}"',
                got=f"no group of it: {error}",
                need=f"a torch that has {backend}, and {device} devices",
            ) from error
        return made

    def _hand_on(self, name: str, x: torch.Tensor, given: tuple[Any, ...]) -> Any:
        other = self._other(x)
        return super()._hand_on(name, x, given) if other is None else getattr(other, name)(*given)

    def _backends(self) -> dict[str, str]:
        """Return the backend of each device, from the string that the group was created with."""
        import torch.distributed as dist

        try:
            config = str(dist.get_backend_config(self))
        except (ValueError, KeyError):  # not known to torch, or not yet
            return {}
        pairs = (part.split(":") for part in config.split(","))
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

    def _get_backend(self, device: torch.device) -> Any:
        """Return what handles tensors of a device: this group itself for the CPU."""
        if device.type == "cpu":
            return self
        other = self._other(device)
        if other is None:
            raise RuntimeError(f"no backend for {device.type} in this group, which is of shm, for the CPU")
        return other._get_backend(device)

    def _options_of(self, options: Any, given: Terms) -> Any:
        options.reduceOp = options.reduceOp if given.op is None else given.op
        options.asyncOp = given.later
        if given.timeout is not None:
            options.timeout = given.timeout
        return options

    def _close_others(self) -> None:
        for other in self._others.values():
            if other is not None:
                other.shutdown()
        self._others.clear()


def first_tensor(given: Any) -> torch.Tensor | None:
    """Return the first tensor in nested lists or tuples, None when there is none.

    Example:
        >>> first_tensor([[], [torch.ones(2)]])
        tensor([1., 1.])
    """
    if isinstance(given, torch.Tensor):
        return given
    if isinstance(given, (list, tuple)):
        for item in given:
            found = first_tensor(item)
            if found is not None:
                return found
    return None


def tensors_in(given: Any) -> list[torch.Tensor]:
    """Return the tensors in nested lists or tuples, in their order.

    Example:
        >>> tensors_in([[torch.ones(1)], 3])
        [tensor([1.])]
    """
    if isinstance(given, (list, tuple)):
        return [x for one in given for x in tensors_in(one)]
    return [given] if isinstance(given, torch.Tensor) else []


def delegated(method: Callable[..., Any], where: str) -> Callable[..., Any]:
    """Return a method of a group that hands tensors of other devices on to the group that is there for them.

    What is in flight is waited for, a call with FakeTensors does nothing, and what the method refuses is told to the
    other ranks.

    Args:
        method: the method.
        where: the collective that it runs.
    """
    name = method.__name__

    def on_its_device(self: DelegatingGroup, *args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else None
        while isinstance(x, list) and x:
            x = x[0]
        if not isinstance(x, torch.Tensor):
            x = first_tensor(args)
        if x is not None and not x.is_cpu:
            other = self._other(x)
            if other is not None:
                return getattr(other, name)(*args, **kwargs)
        try:
            if strange(args):
                args = tuple(self.open(where, args))
            if kwargs and strange(kwargs.values()):
                kwargs = {key: self.open(where, value) for key, value in kwargs.items()}
            return method(self, *args, **kwargs)
        except OnlyImagined:
            return FinishedWork(tensors_in(args[0] if args else next(iter(kwargs.values()))))
        except Refused as refused:
            self.tell(refused, starts(*args, *kwargs.values()))
        except NoRoom as none:
            self.tell_of_room(where, none, starts(*args, *kwargs.values()))

    return watched(functools.wraps(method)(on_its_device))


def watched(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of a group whose calls profilers and dispatch modes see."""
    name = method.__name__

    @functools.wraps(method)
    def seen(self: DelegatingGroup, *args: Any, **kwargs: Any) -> Any:
        if watched_now():
            tensors = tuple(x for x in args if isinstance(x, (list, torch.Tensor)))
            return shown(name, lambda: method(self, *args, **kwargs), tensors)
        return method(self, *args, **kwargs)

    return compat.never_compiled(seen)
