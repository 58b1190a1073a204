"""Which modules go to other processes by value, looked for while anything at all may happen to `sys.modules`."""

import gc
import itertools
import sys
import types

import torch  # noqa: F401

from comm_core.testing.loose_modules import loose_modules


class ImportsAtItsEnd:
    """Garbage whose finalizer imports something, as that of a result in flight does."""

    numbers = itertools.count()

    def __init__(self):
        self.itself = self

    def __del__(self):
        name = f"imported_by_a_finalizer_{next(self.numbers)}"
        sys.modules[name] = types.ModuleType(name)


def test_a_finalizer_that_imports_does_not_disturb_the_search():
    thresholds = gc.get_threshold()
    assert len(sys.modules) > 600, "torch is imported, with what it needs"
    gc.collect()
    try:
        for _ in range(50):
            ImportsAtItsEnd()
        gc.set_threshold(300)  # reached while the modules, of which there are more, are listed
        assert all(isinstance(module, types.ModuleType) for module in loose_modules())
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
        for name in [name for name in sys.modules if name.startswith("imported_by_a_finalizer_")]:
            del sys.modules[name]
