"""Which modules go to other processes by value, looked for while anything at all may happen to `sys.modules`."""

import gc
import itertools
import sys
import threading
import types

import torch  # noqa: F401

from comm_core.testing.loose_modules import loose_modules
from comm_core.testing.payload import dump_call


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


class Stops:
    """An argument in whose pickling a thread stops until it may go on."""

    def __init__(self):
        self.reached, self.goes_on = threading.Event(), threading.Event()

    def __reduce__(self):
        self.reached.set()
        assert self.goes_on.wait(60)
        return int, ()


def of_this_module(x):
    return x


def test_a_thread_that_has_pickled_does_not_end_the_sending_by_value_for_one_that_has_not():
    stops = {name: Stops() for name in ("first", "second", "alone")}
    calls = {}

    def dump(name):
        calls[name] = dump_call(print, (stops[name], of_this_module))

    stops["alone"].goes_on.set()
    dump("alone")
    threads = {name: threading.Thread(target=dump, args=(name,)) for name in ("first", "second")}
    for name, thread in threads.items():
        thread.start()
        assert stops[name].reached.wait(60)
    for name, thread in threads.items():
        stops[name].goes_on.set()
        thread.join(60)
    assert calls["first"] == calls["second"] == calls["alone"]
    assert b"of_this_module" in calls["alone"]
    import cloudpickle

    assert __name__ not in cloudpickle.list_registry_pickle_by_value()
