"""Modules to be sent by value: test modules, and what a fresh process could not import under its name."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType

_judged: dict[str, tuple[int, bool]] = {}  # name -> (id of the module, whether it is loose)

_tests: set[str] = set()


def note_test_modules(names: set[str]) -> None:
    """Count these modules as loose even where they can be imported, so that a rank sees them as they are now."""
    _tests.update(names)


def loose_modules() -> list[ModuleType]:
    """Return the test modules, and the imported modules that importing by name in a fresh process would not find.

    Their functions and classes can only be sent to another process by value.
    """
    loose = []
    for name, module in sys.modules.copy().items():  # of items() a list is made while finalizers may run
        known = _judged.get(name)
        if known is None or known[0] != id(module):
            known = _judged[name] = (id(module), _is_loose(name, module))
        if known[1] or name in _tests:
            loose.append(module)
    return loose


def _is_loose(name: str, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if name == "__main__" or not isinstance(file, str) or getattr(module, "__name__", None) != name:
        return False
    if not os.path.isabs(file):  # a made-up one: torch.ops has such a name
        return False
    return not _is_installed(file) and not _is_importable(name, file)


def _is_installed(file: str) -> bool:
    return file.startswith(_installation())


@cache
def _installation() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths[key] + os.sep for key in ("stdlib", "platstdlib", "purelib", "platlib")})


def _is_importable(name: str, file: str) -> bool:
    parts = name.split(".")
    search: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    for end in range(1, len(parts) + 1):
        if end > 1 and search is None:
            return False
        spec = _find(".".join(parts[:end]), search)
        if spec is None:
            return False
        search = spec.submodule_search_locations
    origin = spec.origin if spec else None
    return origin is not None and os.path.exists(origin) and os.path.samefile(origin, file)


def _find(name: str, search: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if type(finder).__module__.startswith("_pytest"):  # it would note the module as one to rewrite
            continue
        spec = finder.find_spec(name, search)
        if spec is not None:
            return spec
    return None
