"""Which backend ranks get that are not told one."""

import importlib.metadata
import subprocess
import sys

import pytest

from comm_core.testing import RankPool, backends, default_backend, run_ranks


@pytest.fixture
def offered(monkeypatch):
    """Make entry points of these answers the only ones there are."""

    def offer(**answers):
        def entry_points(group, name):
            assert group == "comm_core.backends"
            found = [answers[name]] if name in answers else []
            return [importlib.metadata.EntryPoint(name, f"{__name__}:{one}", group) for one in found]

        backends.why_not.cache_clear()
        monkeypatch.delenv("COMM_CORE_BACKEND", raising=False)
        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)

    yield offer
    backends.why_not.cache_clear()


def usable():
    return None


def unusable():
    return "it rains"


def broken():
    raise OSError("no such file")


@pytest.fixture(autouse=True)
def this_module(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _module())


def _module():
    from types import SimpleNamespace

    return SimpleNamespace(usable=usable, unusable=unusable, broken=broken)


@pytest.mark.parametrize(
    ("answer", "backend", "reason"),
    [
        ("usable", "shm", None),
        ("unusable", "gloo", "it rains"),
        ("broken", "gloo", f"{__name__}:broken failed: OSError: no such file"),
        (None, "gloo", "no installed package offers the backend 'shm'"),
    ],
)
def test_shared_memory_is_taken_where_it_is_there_and_usable(offered, answer, backend, reason):
    offered(**({"shm": answer} if answer else {}))
    assert default_backend() == backend
    assert backends.why_not("shm") == reason


def test_the_variable_decides_and_a_block_decides_before_it(offered, monkeypatch):
    offered(shm="usable")
    monkeypatch.setenv("COMM_CORE_BACKEND", "cpu:gloo")
    assert default_backend() == "cpu:gloo"
    with backends.using_backend("fake"):
        assert default_backend() == "fake"
        with backends.using_backend("gloo"):
            assert default_backend() == "gloo"
        assert default_backend() == "fake"
    assert default_backend() == "cpu:gloo"


@pytest.mark.parametrize("backend", ["gloo", "shm"])
def test_ranks_get_the_default(monkeypatch, backend):
    monkeypatch.setenv("COMM_CORE_BACKEND", backend)
    assert run_ranks(lambda group: group.backend) == [backend] * 2
    with RankPool() as pool:
        assert pool.run(lambda group: group.backend, 1) == [backend]
    assert run_ranks(lambda group: group.backend, backend="fake") == ["fake"] * 2


def test_comm_shm_offers_itself_here():
    """On Linux the extension is built, or the tests over shared memory would all be skipped unseen."""
    assert (backends.why_not("shm") is None) == (sys.platform == "linux"), backends.why_not("shm")


def test_asking_imports_nothing_of_a_package_that_is_not_installed():
    code = (
        "import sys, importlib.metadata as m; m.entry_points = lambda **_: []\n"
        "from comm_core.testing import default_backend\n"
        "print(default_backend())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["gloo"]
