"""The pytest plugin of comm_core: the marker `world`, the fixtures `world` and `world_backend`.

Which backends the ranks of tests get that do not name one: those of `--world-backends`, else of the ini option
`world_backends`, one run of the test for each; without both, the one that `comm_core.testing.default_backend` gives.

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
from collections.abc import Callable, Iterator
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
    backend: str
    timeout: float = 60.0

    def run(self, fn: Callable[..., Any], *args: Any) -> list[Any]:
        """Run `fn(group, *args)` on real processes, as `comm_core.testing.run_ranks` does."""
        from comm_core.testing.shared_pool import run_ranks

        return run_ranks(fn, self.size, self.backend, self.timeout, args)

    def simulate(self, fn: Callable[..., Any], *args: Any) -> list[Any]:
        """Run `fn(group, *args)` on threads of this process, as `comm_core.World` does."""
        from comm_core.simulate import World

        return World(self.size).run(fn, *args)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini option that say which backends tests run on."""
    words = "backends that tests of real ranks run on which name none themselves, one test each"
    parser.getgroup("comm_core").addoption("--world-backends", metavar="NAME,NAME", help=words)
    parser.addini("world_backends", words, type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "world(*sizes, backend=None, timeout=60.0): the numbers of ranks that the fixture `world` takes, one test "
        "each; without the marker 1, 2 and 3. Without a backend: those of --world-backends or world_backends.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each size of the marker and each backend."""
    backends = _backends(metafunc.config)
    if "world" in metafunc.fixturenames and not _is_parametrised(metafunc, "world"):
        marked = _marked(metafunc.definition)
        params = [(size, of) for of in ([marked.backend] if marked.backend else backends) for size in marked.sizes]
        named = len(backends) > 1 and not marked.backend
        ids = [f"world{size}-{of}" if named else f"world{size}" for size, of in params]
        metafunc.parametrize("world", params, indirect=True, ids=ids)
    if "world_backend" in metafunc.fixturenames and not _is_parametrised(metafunc, "world_backend"):
        metafunc.parametrize("world_backend", backends, indirect=True, ids=[of or "default" for of in backends])


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
    from comm_core.testing.backends import default_backend

    size, backend = request.param
    backend = backend or default_backend()
    _skip_where_missing(backend, size)
    return Ranks(size, backend, _marked(request.node).timeout)


@pytest.fixture
def world_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The backend of `run_ranks` in this test, for tests that call it themselves; one test for each backend."""
    from comm_core.testing.backends import default_backend, using_backend

    backend = request.param or default_backend()
    _skip_where_missing(backend, 1)
    with using_backend(backend):
        yield backend


@dataclass(frozen=True, slots=True)
class _Marked:
    sizes: tuple[int, ...] = _SIZES
    backend: str | None = None
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


def _is_parametrised(metafunc: pytest.Metafunc, name: str) -> bool:
    marks = metafunc.definition.iter_markers("parametrize")
    return any(name in _words(mark.args[:1]) for mark in marks)


def _words(names: tuple[Any, ...]) -> list[str]:
    return [word.strip() for part in names for word in (part.split(",") if isinstance(part, str) else part)]


def _backends(config: pytest.Config) -> list[str | None]:
    given = config.getoption("world_backends")
    return (given.split(",") if given else None) or config.getini("world_backends") or [None]


def _skip_where_missing(backend: str, ranks: int) -> None:
    """Skip a test that this machine cannot run; a backend that is part of torch, or that nobody knows, is tried."""
    if "nccl" in backend:
        _skip_without_devices(ranks)
    from comm_core.testing.backends import OPTIONAL, why_not

    if backend in OPTIONAL and (reason := why_not(backend)):
        pytest.skip(f"no backend {backend!r}: {reason}")


def _skip_without_devices(needed: int) -> None:
    import torch

    if torch.cuda.device_count() < needed:
        pytest.skip(f"NCCL needs a CUDA device per rank: {needed}, there are {torch.cuda.device_count()}")
