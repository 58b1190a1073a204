"""Ranks that tests may kill: forked from a clean process that has imported torch once."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import comm_shm

LIMIT_S = 60.0


class ByValue:
    """A function that child processes could not import, sent as its code."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return cloudpickle.loads, (cloudpickle.dumps(self.function),)


def _life(body: Callable[..., Any], rank: int, world: int, store_path: str, answers: Connection, args: Any) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        answers.send(("returned", body(rank, world, dist.FileStore(store_path, world), *args)))
    except BaseException:
        answers.send(("raised", traceback.format_exc()))


class Fleet:
    """Starts `body(rank, world, store, *args)` in processes of their own and gathers what becomes of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["torch", "comm_shm.group"])
        self._runs = 0
        self.processes: list[Any] = []

    def run(self, body: Callable[..., Any], world: int, *args: Any, limit: float = LIMIT_S) -> list[tuple[str, Any]]:
        """Return `("returned", value)`, `("raised", traceback)` or `("died", exit code)` for each rank."""
        self._runs += 1
        store = str(self._folder / f"store{self._runs}")
        mine, pipes = [], []
        for rank in range(world):
            ours, theirs = self._context.Pipe(duplex=False)
            process = self._context.Process(
                target=ByValue(_life), args=(ByValue(body), rank, world, store, theirs, args)
            )
            process.start()
            theirs.close()
            mine.append(process)
            pipes.append(ours)
        self.processes += mine
        return [self._outcome(process, pipe, limit) for process, pipe in zip(mine, pipes, strict=True)]

    def _outcome(self, process: Any, pipe: Connection, limit: float) -> tuple[str, Any]:
        ready = wait([pipe, process.sentinel], limit)
        assert ready, f"{process} neither answered nor ended within {limit} s"
        if pipe.poll():
            try:
                answer: tuple[str, Any] = pipe.recv()
            except EOFError:
                pass
            else:
                process.join(LIMIT_S)
                return answer
        process.join(LIMIT_S)
        return "died", process.exitcode

    def close(self) -> None:
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join(LIMIT_S)
            process.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    ranks = Fleet(tmp_path)
    yield ranks
    ranks.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = comm_shm.why_not()
    for item in items:
        if missing and "needs_shm" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=missing))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_shm: skipped where shared memory cannot be used")
