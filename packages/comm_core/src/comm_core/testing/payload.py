"""Functions and results on their way between processes."""

from __future__ import annotations

import collections
import importlib
import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from comm_core.errors import ArgumentError
from comm_core.testing.loose_modules import loose_modules

if TYPE_CHECKING:
    import torch


class UnsendableResultError(ArgumentError):
    """A rank's result cannot be pickled."""


def dump_call(fn: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """Pickle a function of any kind and its arguments.

    Raises:
        ArgumentError: something that the function refers to cannot be pickled, or cloudpickle is missing.
    """
    buffer = io.BytesIO()
    pickler = _call_pickler()
    try:
        with _loose_modules_by_value():
            pickler(buffer).dump((fn, args))
        return buffer.getvalue()
    except Exception as error:
        raise ArgumentError(
            "run_ranks",
            got=f"a function or argument that cannot be sent to another process ({_in_words(error)})",
            need="one that cloudpickle can pickle",
            hint="make what cannot be pickled inside the function: locks, files, process groups, generators",
        ) from error


def load_call(call: bytes) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Undo `dump_call`, in the rank."""
    fn, args = pickle.loads(call)
    return fn, args


def dump_result(result: object) -> bytes:
    """Pickle a rank's result with its tensors as plain values: on the CPU, detached, each with its own memory.

    Raises:
        UnsendableResultError: something in the result cannot be pickled.
    """
    buffer = io.BytesIO()
    try:
        _result_pickler()(buffer).dump(result)
    except Exception as error:
        raise UnsendableResultError(
            "run_ranks",
            got=f"a result that cannot be sent back ({_in_words(error)})",
            need="a result that cloudpickle can pickle",
            hint="return plain values and tensors; of a DTensor, its to_local() or full_tensor()",
        ) from error
    return buffer.getvalue()


def load_result(result: bytes) -> Any:
    """Undo `dump_result`, in the parent."""
    return pickle.loads(result)


def dump_exception(error: BaseException) -> bytes | None:
    """Pickle an exception, or return None when it cannot be pickled and read again."""
    try:
        dumped = bytes(_cloudpickle().dumps(error))
        pickle.loads(dumped)
    except Exception:
        return None
    return dumped


def load_exception(dumped: bytes | None) -> BaseException | None:
    """Undo `dump_exception`, or return None when its class cannot be had here."""
    try:
        loaded = pickle.loads(dumped) if dumped else None
    except Exception:
        return None
    return loaded if isinstance(loaded, BaseException) else None


def _cloudpickle() -> Any:
    try:
        return importlib.import_module("cloudpickle")
    except ImportError as error:
        raise ArgumentError(
            "run_ranks",
            got="an environment without cloudpickle",
            need="the extra `testing`",
            hint='python -m pip install "comm-core[testing]"',
        ) from error


_registering = threading.Lock()
_users: collections.Counter[str] = collections.Counter()  # of modules registered here: threads that pickle


@contextmanager
def _loose_modules_by_value() -> Iterator[None]:
    """Have cloudpickle, whose registry is the process's, send loose modules by value until no thread pickles any more.

    What the user has registered stays as it is.
    """
    cloudpickle = _cloudpickle()
    used = []
    try:
        with _registering:
            others = cloudpickle.list_registry_pickle_by_value() - _users.keys()
            for module in loose_modules():
                if module.__name__ not in others:
                    cloudpickle.register_pickle_by_value(module)
                    _users[module.__name__] += 1
                    used.append(module)
        yield
    finally:
        with _registering:
            for module in used:
                _users[module.__name__] -= 1
                if not _users[module.__name__]:
                    del _users[module.__name__]
                    cloudpickle.unregister_pickle_by_value(module)


def _call_pickler() -> type[Any]:
    class CallPickler(_cloudpickle().Pickler):  # type: ignore[misc]
        """Sends everything as cloudpickle does, modules of an own class, such as `torch.ops`, by their name, and code
        with its file, which cloudpickle leaves out from 3.1.3 on: errors in a rank say lines of the user's file.
        """

        def reducer_override(self, obj: Any) -> Any:
            """Return how to rebuild code, or a module that looks like an object; else leave it to cloudpickle."""
            if isinstance(obj, CodeType):
                return _of_file, (obj.co_filename, *self.dispatch_table[CodeType](obj))
            if isinstance(obj, ModuleType) and type(obj) is not ModuleType and sys.modules.get(obj.__name__) is obj:
                return importlib.import_module, (obj.__name__,)
            return super().reducer_override(obj)

    return CallPickler


def _of_file(name: str, make: Callable[..., CodeType], parts: tuple[Any, ...]) -> CodeType:
    return make(*parts).replace(co_filename=name)


def _result_pickler() -> type[Any]:
    import torch

    class ResultPickler(_cloudpickle().Pickler):  # type: ignore[misc]
        """Sends tensors as plain values and everything else as cloudpickle does."""

        def reducer_override(self, obj: Any) -> Any:
            """Return how to rebuild a tensor, or leave the object to cloudpickle."""
            if isinstance(obj, torch.Tensor):
                plain = _plain(obj)
                if plain is not obj:
                    return _itself, (plain,)
            return super().reducer_override(obj)

    return ResultPickler


def _plain(x: torch.Tensor) -> torch.Tensor:
    import torch

    if x.is_meta or x.layout is not torch.strided:
        return x
    own_memory = type(x) is torch.Tensor and x.untyped_storage().nbytes() == x.numel() * x.element_size()
    if own_memory and x.device.type == "cpu" and not x.requires_grad:
        return x
    copied = torch.clone(x.detach()).cpu()  # clone, because it is what finishes an asynchronous tensor
    return copied if type(copied) is torch.Tensor else x


def _itself(x: torch.Tensor) -> torch.Tensor:
    return x


def _in_words(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
