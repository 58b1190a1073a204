"""Runs the parallel variants on real rank processes that report their progress."""

from __future__ import annotations

import datetime
import queue
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

WORLD = 2
SECONDS = 240  # for everything the ranks do

Report = Callable[[str, int, float], None]


def rank_main(rank: int, place: tuple[str, str], batches: list[Any], names: list[str], out: Queue[Any]) -> None:
    """Run the named variants, one after another, as one rank; put progress and outcomes into the queue."""
    backend, store = place
    import torch.distributed as dist
    from variants import PARALLEL

    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            backend,
            store=dist.FileStore(store, WORLD),
            rank=rank,
            world_size=WORLD,
            timeout=datetime.timedelta(seconds=SECONDS),
        )
        for name in names:

            def progress(step: int, loss: float, name: str = name) -> None:
                if rank == 0:
                    out.put(("progress", name, step, loss))

            outcome = PARALLEL[name](batches, progress)
            if rank == 0:
                out.put(("outcome", outcome))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:  # the parent shows it, whatever it was
        out.put(("error", rank, traceback.format_exc()))
        raise SystemExit(1) from None


def run_variants(batches: list[Any], names: list[str], report: Report, backend: str) -> list[Any]:
    """Run the variants on `WORLD` processes that communicate over a backend, and return rank 0's outcomes.

    Raises:
        RuntimeError: a rank failed or took too long; its own traceback is in the message.
    """
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        place = backend, str(Path(folder) / "store")
        ranks = [
            context.Process(target=rank_main, args=(rank, place, batches, names, out), daemon=True)
            for rank in range(WORLD)
        ]
        for process in ranks:
            process.start()
        try:
            return collect(ranks, out, len(names), report)
        finally:
            for process in ranks:
                process.join(timeout=10)
                if process.is_alive():
                    process.kill()
                    process.join()


def collect(ranks: list[Any], out: Queue[Any], wanted: int, report: Report) -> list[Any]:
    """Take messages from the ranks until all outcomes are there."""
    outcomes: list[Any] = []
    deadline = time.monotonic() + SECONDS
    while len(outcomes) < wanted:
        try:
            kind, *rest = out.get(timeout=1.0)
        except queue.Empty:
            dead = [rank for rank, process in enumerate(ranks) if process.exitcode not in (None, 0)]
            if dead or time.monotonic() > deadline:
                why = f"ranks {dead} ended early" if dead else f"no end after {SECONDS} s"
                raise RuntimeError(f"demo: {why}") from None
            continue
        if kind == "error":
            raise RuntimeError(f"demo: rank {rest[0]} failed\n{rest[1]}")
        if kind == "progress":
            report(*rest)
        else:
            outcomes.append(rest[0])
    return outcomes
