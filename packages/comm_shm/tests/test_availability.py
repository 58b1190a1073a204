"""Without a compiler, or on another system, the package says what is missing and points to gloo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import comm_shm
from comm_shm import availability

from . import core

PACKAGE = Path(__file__).parents[1]


@pytest.fixture
def fresh():
    availability.why_not.cache_clear()
    yield
    availability.why_not.cache_clear()


@pytest.mark.skipif(sys.platform != "linux" or not core.compilers(), reason="it needs Linux and a C compiler")
def test_where_it_can_be_built_it_was():
    assert comm_shm.why_not() is None  # or else all tests that need it would be skipped, and the run be green


def test_available_says_yes_exactly_when_there_is_no_reason():
    assert comm_shm.available() == (comm_shm.why_not() is None)


def test_a_missing_extension_is_a_reason(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "comm_shm._native", None)
    assert not comm_shm.available()
    assert "C extension was not built" in comm_shm.why_not()


def test_another_system_is_a_reason(fresh, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert comm_shm.why_not() == "it needs Linux (memfd, futex, pidfd), and this is darwin"


def test_an_old_kernel_is_a_reason(fresh, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setitem(sys.modules, "comm_shm._native", comm_shm)  # whatever loads
    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert "does not offer memfd, pidfd" in comm_shm.why_not()


@pytest.mark.parametrize("world", [1, 3])
def test_choosing_the_backend_without_the_extension_raises_on_every_rank(fleet, world):
    def body(rank, world, store):
        import sys

        import torch.distributed as dist

        if rank == world - 1:
            for name in ("comm_shm._native", "comm_shm.segment"):
                sys.modules.pop(name, None)
            sys.modules["comm_shm._native"] = None
        from comm_shm import availability

        availability.why_not.cache_clear()
        try:
            dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        except Exception as error:
            return type(error).__name__, str(error), dist.is_initialized()
        return "no error"

    for how, (kind, said, initialised) in fleet.run(body, world):
        assert how == "returned"
        assert kind == "TransportError"
        assert f"got rank {world - 1}, where its C extension was not built" in said
        assert 'use backend="gloo"' in said
        assert not initialised


def test_installing_without_a_compiler_succeeds(tmp_path):
    pytest.importorskip("setuptools")
    build = [
        sys.executable,
        "setup.py",
        "-q",
        "build",
        "--build-base",
        str(tmp_path),
        "--build-lib",
        str(tmp_path / "lib"),
    ]
    egg = ["egg_info", "--egg-base", str(tmp_path)]
    done = subprocess.run(
        [*build[:3], *egg, *build[3:]],
        cwd=PACKAGE,
        env=os.environ | {"CC": str(tmp_path / "no-compiler")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lib/comm_shm/__init__.py").exists()
    assert not list((tmp_path / "lib").rglob("*.so"))
    assert re.search("no-compiler", done.stderr)
