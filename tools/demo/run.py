"""The demo: one small model trained four ways that agree, the lowering report, and the keyword index.

`nox -s demo` runs it; `python tools/demo/run.py --steps 20` runs it in an environment that has the packages.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the demo's own modules, here and in the rank processes

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

TOLERANCE = 1e-4  # relative, in f32


def main() -> int:
    """Run the parts and print the tables; the exit code is 1 when the losses do not agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="steps of training per variant (at least 4)")
    parser.add_argument("--batch", type=int, default=8, help="pieces of text per step (even)")
    parser.add_argument("--backend", help="of torch.distributed; by default shm where it is there, else gloo")
    options = parser.parse_args()
    if options.steps < 4 or options.batch < 2 or options.batch % 2:
        parser.error("--steps must be at least 4, and --batch even")
    console = Console()
    began = time.perf_counter()
    outcomes = train(console, options.steps, options.batch, options.backend)
    agree = show(console, outcomes)
    index(console)
    console.print("\nThe site: [bold]nox -s docs -- --serve[/], then http://127.0.0.1:8000")
    console.print(f"Done in {time.perf_counter() - began:.0f} s.")
    return 0 if agree else 1


def train(console: Console, steps: int, batch: int, backend: str | None) -> list:
    """Train the variants with a progress bar each."""
    import torch
    from corpus import batches, read_corpus
    from model import CONTEXT, new_model
    from ranks import WORLD, run_variants
    from variants import PARALLEL, single_process

    from comm_core.testing import default_backend

    backend = backend or default_backend()
    torch.set_num_threads(1)  # as in the ranks, so that steps per second compare
    corpus = read_corpus()
    size = sum(parameter.numel() for parameter in new_model().parameters())
    console.print(
        f"A character transformer of {size / 1e6:.1f} M parameters on {len(corpus) / 1e6:.1f} M characters of the "
        f"standard library's sources; {WORLD} ranks over {backend}."
    )
    data = batches(corpus, steps, batch, CONTEXT)
    columns = (TextColumn("{task.description:20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), console=console) as progress:
        tasks = {
            name: progress.add_task(name, total=steps, loss=float("nan"), start=False)
            for name in ("single process", *PARALLEL)
        }

        def report(name: str, step: int, loss: float) -> None:
            if step == 0:
                progress.start_task(tasks[name])
            progress.update(tasks[name], completed=step, loss=loss)

        first = single_process(data, lambda step, loss: report("single process", step, loss))
        return [first, *run_variants(data, list(PARALLEL), report, backend)]


def show(console: Console, outcomes: list) -> bool:
    """Print the table and the lowering report; return whether all losses agree with the single process."""
    table = Table("variant", "first loss", "last loss", "max diff", "steps/s", "comms", "KiB", box=box.SIMPLE)
    reference = outcomes[0].losses
    agree = reference[-1] < reference[0]
    for outcome in outcomes:
        worst = max(abs(a - b) / b for a, b in zip(outcome.losses, reference, strict=True))
        agree &= worst <= TOLERANCE
        table.add_row(
            outcome.name,
            f"{outcome.losses[0]:.4f}",
            f"{outcome.losses[-1]:.4f}",
            f"{worst:.1e}",
            f"{outcome.steps_per_second:.1f}",
            str(outcome.collectives),
            f"{outcome.bytes / 1024:.0f}",
        )
    console.print(table)
    console.print(
        "Each process computes on one thread. comms, KiB: collectives, and what a rank hands to them, per step."
    )
    said = "[green]All variants agree with" if agree else "[red]The losses do NOT agree with"
    console.print(f"{said} the single process to {TOLERANCE:g} relative, at every step.[/]")
    for outcome in outcomes:
        if outcome.report:
            console.rule(f"What the compiler did: {outcome.name}")
            console.print(outcome.report, markup=False, highlight=False, soft_wrap=True)
    return agree


def index(console: Console) -> None:
    """Build the keyword index and print the answer to one search."""
    from search import QUESTION, build_and_search

    console.rule(f"kwindex search {QUESTION}")
    with console.status("indexing the packages and torch's four originals"):
        entries, answer = build_and_search()
    console.print(answer, markup=False, highlight=False, soft_wrap=True)
    console.print(f"({entries} entries: the packages and the installed torch's four original modules)")


if __name__ == "__main__":
    sys.exit(main())
