"""A collective's result that waits on first use."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch

from comm_core import Pending
from comm_core.errors import ArgumentError, GradientError
from functional_collectives import torch_compat
from functional_collectives.asked import asked_by, written_lists
from functional_collectives.unfinished import Unfinished, View, ViewOp


class AsyncCollectiveTensor(torch.Tensor):
    """The result of a collective in flight: a tensor that waits when its values are used.

    Views of it (`view`, `t`, slices) do not wait and are in flight themselves; every other use waits and gives a
    plain tensor. In-place ops wait and return the tensor itself.

    Args:
        pending: what to wait for.
        like: any tensor with the result's sizes, strides and dtype, such as one on the meta device.
        device: where the result will be.

    Gradient: waiting is the identity.

    Example:
        >>> from comm_core import Pending, compat
        >>> class Work:
        ...     def wait(self) -> None: ...
        >>> x = AsyncCollectiveTensor(Pending(torch.ones(2, 3), Work()), torch.empty(2, 3), torch.device("cpu"))
        >>> view = x.t()
        >>> type(view).__name__, type(view + 1).__name__, (view + 1).shape
        ('AsyncCollectiveTensor', 'Tensor', torch.Size([3, 2]))

    Source: torch.distributed._functional_collectives has a class of this name and purpose.
    """

    __slots__ = ("_given", "_pending")  # what each has; for these alone no dict is made

    _pending: Unfinished
    _given: bool  # the buffer itself, by `wait`
    _shares_writes = True
    _is_by_layout = False  # as a view: by its sizes, strides and offset alone

    @staticmethod
    def __new__(cls, pending: Unfinished, like: torch.Tensor, device: torch.device) -> AsyncCollectiveTensor:
        """Make the wrapper; it has no storage of its own."""
        self = cast(AsyncCollectiveTensor, torch_compat.wrapper(cls, like, device))
        self._pending, self._given = pending, False
        self._shares_writes = False
        return self

    @staticmethod
    def over_buffer(pending: Pending) -> AsyncCollectiveTensor:
        """Make the tensor of a result that is the pending's buffer itself, which needs no wrapper beside it.

        It is that memory, with the buffer's count of writes, so that `wait` can give the buffer as it is. Code that
        reads memory behind torch's back, as C++ may, must be handed `wait()`.

        Example:
            >>> class Work:
            ...     def wait(self) -> None: ...
            >>> AsyncCollectiveTensor.over_buffer(Pending(torch.ones(2), Work())) + 1
            tensor([2., 2.])
        """
        pending.tensor = pending.tensor.data  # the transport's own writes are not counted
        self = torch_compat.same_memory(AsyncCollectiveTensor, pending.tensor)
        self._pending, self._given = pending, False
        return self

    __torch_function__ = torch_compat.no_torch_function

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[Any, Any] | None = None
    ) -> Any:
        """Defer views, wait for everything else; `alias` is how `wait` comes here."""
        kwargs = kwargs or {}
        base = args[0] if args else None
        special = asked_by(func)
        if special and isinstance(base, AsyncCollectiveTensor):
            if special == "wait":
                return func(base.trigger_wait())
            if special == "reshapes":
                raise ArgumentError(
                    func.name(),
                    got="a result in flight",
                    need="a plain tensor to reshape in place",
                    hint="use x.wait()",
                )
            views = special == "keeps" or (special == "view" and _in_flight(base))
            given = _deferred_view(base, func, args[1:], kwargs) if views else None
            if given is not None:
                return given
        plain_args = tuple(map(_finished, args))
        result = func(*plain_args, **{name: _finished(value) for name, value in kwargs.items()})
        if special == "lists":
            _count_writes(func, args, kwargs)
        if not plain_args or result is not plain_args[0]:
            return result
        _check_written([base], args)
        return base

    def trigger_wait(self) -> torch.Tensor:
        """Wait and return the plain result, outside autograd."""
        return self._pending.wait()

    def finished(self) -> torch.Tensor:
        """Wait and return the plain result, of which a write is seen by what autograd saved this one for."""
        shares = self._shares_writes and not torch_compat.is_watched()
        return self.trigger_wait() if shares else cast(torch.Tensor, torch.ops.aten.alias.default(self))

    def wait(self) -> torch.Tensor:
        """Wait and return the plain result.

        A write to one is seen by what autograd saved the other for. The result of what requires grad is a view of it;
        under `no_grad` it does not require grad.

        Gradient: the identity.
        """
        recorded = self.requires_grad and torch.is_grad_enabled()
        if self._shares_writes and not torch_compat.is_watched():
            finished = self._pending.wait()
            if recorded:
                with torch_compat.without_dispatch():
                    return self.view_as(self)
            self._given = True
            return finished
        finished = cast(torch.Tensor, torch.ops.aten.alias.default(self))
        return finished.detach() if self.requires_grad and not recorded else finished

    def check_current(self) -> None:
        """Refuse to stand for values that its `wait()` was given a history for.

        Raises:
            GradientError: what `wait` returned was written with a gradient.
        """
        if self._given:
            _check_unrecorded(self.trigger_wait().grad_fn is not None)

    @property
    def completed(self) -> bool:
        """Whether it has been waited for."""
        return self._pending.done

    @property
    def elem(self) -> torch.Tensor:
        """The finished tensor; reading it waits."""
        return self.trigger_wait()

    def detach(self) -> torch.Tensor:
        """Return the result outside autograd, in flight.

        Of a part, that is this part of the detached whole: where it is written with a gradient, autograd looks for it
        at its place in memory, counted from where its base begins (2.13).
        """
        base = self._base if self.storage_offset() and self._is_view() and not torch_compat.is_watched() else None
        if base is None or base.dtype is not self.dtype:
            return super().detach()
        part: Any = base.detach().as_strided(self.size(), self.stride(), self.storage_offset())
        part._is_by_layout = True
        return cast(torch.Tensor, part)

    @property
    def data(self) -> torch.Tensor:
        """The finished memory outside autograd, as a plain tensor; setting it puts another tensor in its place."""
        return self.detach() if torch_compat.is_watched() else self.trigger_wait().data

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        self.trigger_wait()
        plain = _finished(value).detach()
        cast(Any, torch.Tensor.data).__set__(self, plain)
        self._pending, self._shares_writes = Pending(plain), False

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"AsyncCollectiveTensor({self.wait()!r})"

    def tolist(self) -> Any:
        """Wait and return the values as nested lists."""
        return self.trigger_wait().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Wait and return the values as an array."""
        return self.wait().numpy(force=force)

    def data_ptr(self) -> int:
        """Wait and return the address of the values."""
        return self.trigger_wait().data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """Wait and return the memory of the values; `storage()` and `is_shared()` come here, too.

        A compiler that describes this tensor and the finished one inside asks for two memories: it gets one of its own.
        """
        finished = self.trigger_wait().untyped_storage()
        outer = torch_compat.outer_storage(finished)
        return finished if outer is None else outer

    def share_memory_(self) -> AsyncCollectiveTensor:
        """Wait and move the values to shared memory."""
        self.trigger_wait().share_memory_()
        return self

    def apply_(self, callable: Callable[[Any], Any]) -> AsyncCollectiveTensor:
        """Wait and put each value through a function, in place."""
        self.wait().apply_(callable)
        return self

    def map_(self, other: torch.Tensor, callable: Callable[[Any, Any], Any]) -> AsyncCollectiveTensor:
        """Wait and put each value, with the other tensor's, through a function, in place."""
        self.wait().map_(_finished(other), callable)
        return self

    def __format__(self, spec: str) -> str:
        return format(self.wait(), spec)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._plain().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return copy.deepcopy(self._plain(), memo)

    def _plain(self) -> torch.Tensor:
        """Wait and return a plain tensor, or parameter, that is to autograd what this one is: a leaf for a leaf."""
        if not self.is_leaf:
            return self.wait()
        finished = self.trigger_wait().detach()
        if isinstance(self, torch.nn.Parameter):
            plain: torch.Tensor = torch.nn.Parameter(finished, self.requires_grad)
        else:
            plain = finished.requires_grad_(self.requires_grad)
        plain.grad = self.grad
        return plain

    def __dlpack__(self, **options: Any) -> Any:
        return self.wait().__dlpack__(**options)

    def _view_func_unsafe(self, new_base: torch.Tensor, number: Any = None, tensor: Any = None) -> torch.Tensor:
        """Take this view of another base, as a compiler does (2.11 to 2.14).

        For dynamic shapes it makes a symbol of each number of the view, and fails where one, such as where a slice
        begins, is no size of the result: so only those of a layout become symbols.
        """
        return cast(Any, super())._view_func_unsafe(new_base, number if self._is_by_layout else None, tensor)

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Name the tensor inside, for compiled graphs."""
        return ["elem"], None

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, torch.Tensor], meta: None, size: Sequence[int], stride: Sequence[int]
    ) -> AsyncCollectiveTensor:
        """Wrap a finished tensor again."""
        elem = inner["elem"]
        if elem.stride() != stride:  # a graph that writes to a part gives what is to be copied there
            elem = torch.ops.aten.copy.default(elem.new_empty_strided(size, stride), elem)
        return AsyncCollectiveTensor(Pending(elem), elem, elem.device)

    def __coerce_same_metadata_as_tangent__(
        self, metadata: object, expected_type: type[torch.Tensor] | None = None
    ) -> torch.Tensor | None:
        """Give a compiled backward the plain tensor that it was traced with."""
        return self.trigger_wait() if expected_type is torch.Tensor else None


def _count_writes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Tell autograd of writes to the tensors of a list: torch leaves that to the op, which saw what is inside."""
    for place, name in written_lists(func):
        written = args[place] if place < len(args) else kwargs[name]
        torch.autograd.graph.increment_version([each for each in written if not each.is_inference()])
        _check_written(written, args)


def _check_written(written: Iterable[Any], args: Iterable[Any]) -> None:
    """Refuse a write with a gradient to a result whose `wait()` was given: see `_check_unrecorded`."""
    if any(isinstance(each, AsyncCollectiveTensor) and each._given for each in written):
        _check_unrecorded(any(map(_requires_grad, args)))


def _requires_grad(value: Any) -> bool:
    """Tell it of an op's argument: a tensor, or a list of them."""
    if isinstance(value, (list, tuple)):
        return any(map(_requires_grad, value))
    return isinstance(value, torch.Tensor) and value.requires_grad


def _check_unrecorded(recorded: bool) -> None:
    """Refuse that one of a result and its `wait()` got a history by a write in place, of which the other knows nothing.

    Raises:
        GradientError: autograd has recorded the write.
    """
    if recorded and torch.is_grad_enabled():
        raise GradientError(
            "AsyncCollectiveTensor",
            got="an in-place write with a gradient to one of a result and its wait()",
            need="one of the two to be used from there on, or a result of the write that is a new tensor",
            hint="write x = x * w in place of x *= w",
        )


def _finished(value: Any) -> Any:
    """Wait for what is in flight in an op's argument: a tensor, or a list of them."""
    if isinstance(value, AsyncCollectiveTensor):
        plain = value.trigger_wait()
        if value._given:
            value.check_current()
        return plain
    if isinstance(value, (list, tuple)):
        return type(value)(map(_finished, value))
    return value


def _ready(value: Any, beside: Any = None) -> Any:
    """Return the plain result where an op on a result in flight needs nothing but its values; else what was given."""
    if type(value) is not AsyncCollectiveTensor or value.requires_grad or torch_compat.is_watched():
        return value
    if not value._shares_writes and isinstance(beside, torch.Tensor) and beside.requires_grad:
        return value  # autograd may save it, and has to see what is written later
    return _finished(value)


def _unary(of: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    """Make an operator that waits first, so that it is an op on a plain tensor: no dispatch through Python."""
    return functools.wraps(of)(lambda self: of(_ready(self)))


def _binary(of: Callable[[torch.Tensor, Any], Any]) -> Callable[[torch.Tensor, Any], Any]:
    """As `_unary`, for an operator of two."""
    return functools.wraps(of)(lambda self, other: of(_ready(self, other), _ready(other, self)))


def _number(of: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    """As `_unary`, for what gives a number: torch asks for those of a list's tensors, and lets no class hear of it."""
    return functools.wraps(of)(lambda self: of(self if torch_compat.is_watched() else _finished(self)))


# Python looks operators up on the class before torch does; whatever they cannot take goes through `__torch_dispatch__`.
_NUMBERS = ("bool", "int", "float", "complex", "index")
_UNARY = ("neg", "abs", "invert")
_BINARY = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"),
    *("radd", "rsub", "rmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rmatmul", "rand", "ror", "rxor"),
    *("eq", "ne", "lt", "le", "gt", "ge"),
)
for _make, _names in ((_number, _NUMBERS), (_unary, _UNARY), (_binary, _BINARY)):
    for _name in _names:
        setattr(AsyncCollectiveTensor, f"__{_name}__", cast(Any, _make)(getattr(torch.Tensor, f"__{_name}__")))


def _in_flight(base: AsyncCollectiveTensor) -> bool:
    """Tell whether a view of a result is in flight; one taken once more, of a fake base, is what the first was."""
    retaken = None if base._shares_writes else torch_compat.view_retaken()  # no stand-in is over its buffer
    return not base._pending.done if retaken is None else retaken


def _deferred_view(base: AsyncCollectiveTensor, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a view op on metadata now and on the values later; None when it copies, conjugates or takes other tensors.

    What is there is taken now: the op on a compiler's stand-in belongs to the modes that are active now. None too when
    that is a tensor by which writes are followed, to which a wrapper has to add nothing.
    """
    if any(isinstance(other, torch.Tensor) for other in (*args, *kwargs.values())):
        return None
    if torch.is_inference_mode_enabled() is not base.is_inference():  # a view is an inference tensor where its base is
        with torch.inference_mode(base.is_inference()):
            return _deferred_view(base, func, args, kwargs)
    done = base._pending.done
    like = base.trigger_wait() if done else _metadata(base)
    if torch_compat.is_functional(like):
        return None
    found = func(like, *args, **kwargs)
    several = not isinstance(found, torch.Tensor)
    op, views = ViewOp(func, args, kwargs), []
    for index, view in enumerate(found if several else [found]):
        if not torch_compat.shares_storage(view, like) or view.is_conj() or view.is_neg():
            return None
        take = functools.partial(op.take, index if several else None)
        pending = Pending(view) if done else View(base._pending, take)
        views.append(AsyncCollectiveTensor(pending, view, base.device))
    return views if several else views[0]


def _metadata(base: AsyncCollectiveTensor) -> torch.Tensor:
    """Return a tensor of a result's layout without values; autograd finds a part of a view by its place in memory."""
    like = torch.empty_strided(base.size(), base.stride(), dtype=base.dtype, device="meta")
    if base.storage_offset():
        like.set_(like.untyped_storage(), base.storage_offset(), base.size(), base.stride())
    return like
