"""The pytest plugin of comm_core: the marker `world` and the fixture `world`.

It stands beside the package, because every pytest of the environment imports it: `comm_core` imports torch, and this
does so only for a test that asks for ranks.

Example:
    A test that runs on 2 and on 3 real ranks, and in the simulator:

        @pytest.mark.world(2, 3)
        def test_ranks_add_up(world):
            def body(group):
                return comm_core.run(ALL_REDUCE, torch.ones(4), group, reduce_op="sum").sum().item()

            assert world.run(body) == world.simulate(body) == [4.0 * world.size] * world.size
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

_SIZES = (1, 2, 3)
_OPTIONS = {"backend", "timeout"}


@dataclass(frozen=True, slots=True)
class Ranks:
    """What the fixture `world` is: a number of ranks to run functions on.

    Args:
        size: how many ranks.
        backend: the c10d backend of `run`.
        timeout: seconds that one `run` may take.
    """

    size: int
    backend: str = "gloo"
    timeout: float = 60.0

    def run(self, fn: Callable[..., Any], *args: Any) -> list[Any]:
        """Run `fn(group, *args)` on real processes, as `comm_core.testing.run_ranks` does."""
        from comm_core.testing.shared_pool import run_ranks

        return run_ranks(fn, self.size, self.backend, self.timeout, args)

    def simulate(self, fn: Callable[..., Any], *args: Any) -> list[Any]:
        """Run `fn(group, *args)` on threads of this process, as `comm_core.World` does."""
        from comm_core.simulate import World

        return World(self.size).run(fn, *args)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        'world(*sizes, backend="gloo", timeout=60.0): the numbers of ranks that the fixture `world` takes, one test '
        "each; without the marker 1, 2 and 3.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each size of the marker."""
    if "world" in metafunc.fixturenames and not _is_parametrised(metafunc):
        sizes = _marked(metafunc.definition).sizes
        metafunc.parametrize("world", sizes, indirect=True, ids=[f"world{size}" for size in sizes])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have functions of the collected test modules sent to ranks by value."""
    if "comm_core" not in sys.modules:
        return
    from comm_core.testing.loose_modules import note_test_modules

    modules = (item.getparent(pytest.Module) for item in session.items)
    note_test_modules({module.obj.__name__ for module in modules if module is not None})


def pytest_sessionfinish() -> None:
    """End the rank processes of this session."""
    module = sys.modules.get("comm_core.testing.shared_pool")
    if module is not None:
        module.close_shared_pool()


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Ranks:
    """A number of ranks: `world.size`, `world.run(fn, *args)` on processes, `world.simulate(fn, *args)` on threads."""
    marked = _marked(request.node)
    ranks = Ranks(request.param, marked.backend, marked.timeout)
    if "nccl" in ranks.backend:
        _skip_without_devices(ranks.size)
    return ranks


@dataclass(frozen=True, slots=True)
class _Marked:
    sizes: tuple[int, ...] = _SIZES
    backend: str = "gloo"
    timeout: float = 60.0


def _marked(node: pytest.Item | pytest.Collector) -> _Marked:
    marker = node.get_closest_marker("world")
    if marker is None:
        return _Marked()
    wrong = [size for size in marker.args if type(size) is not int or size < 1]
    if wrong or set(marker.kwargs) - _OPTIONS:
        from comm_core.errors import ArgumentError

        unknown = sorted(set(marker.kwargs) - _OPTIONS)
        raise ArgumentError(
            "pytest.mark.world",
            got=f"size {wrong[0]!r}" if wrong else f"unknown {', '.join(unknown)}",
            need='sizes of 1 or more, and of the keywords only backend="..." and timeout=seconds',
            hint="for example @pytest.mark.world(2, 3)",
        )
    return _Marked(marker.args or _SIZES, **marker.kwargs)


def _is_parametrised(metafunc: pytest.Metafunc) -> bool:
    marks = metafunc.definition.iter_markers("parametrize")
    return any("world" in str(mark.args[:1]) for mark in marks)


def _skip_without_devices(needed: int) -> None:
    import torch

    if torch.cuda.device_count() < needed:
        pytest.skip(f"NCCL needs a CUDA device per rank: {needed}, there are {torch.cuda.device_count()}")
