"""`python -m tools.gen` writes what is generated; `--check` only says which committed files are stale."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import (
    collectives,
    concordance,
    drift,
    error_page,
    index,
    inventory,
    life,
    marked,
    originals,
    palette,
    quality_page,
    reference,
    surface,
)
from .sources import ROOT, Distribution, Output, distributions


def outputs() -> list[Output]:
    """Everything that is generated, from the working tree and the installed torch as they are."""
    found = distributions()
    indexed = index.made_of(found, originals.installed())
    return [
        *committed(found),
        *reference.pages(found),
        *life.pages(found),
        drift.page(found),
        error_page.page(),
        *originals.pages(indexed),
        *palette.files(indexed, found),
        quality_page.page(),
    ]


def committed(found: list[Distribution]) -> list[Output]:
    """What stands in the repository, so that a change shows in review."""
    return [collectives.page(), concordance.page(found), surface.snapshot(found), *marked.files(found)]


def stale(wanted: list[Output]) -> list[str]:
    """The committed files whose text on disk is not what would be generated now."""
    return [o.path for o in wanted if o.committed and o.text != read(o.path)]


def write(wanted: list[Output]) -> list[str]:
    """Writes what changed, removes pages that nothing generates any more, and lists both."""
    changed = [o for o in wanted if o.text != read(o.path)]
    for output in changed:
        path = ROOT / output.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(output.text, encoding="utf-8")
    kept = {o.path for o in wanted}
    made = [*ROOT.glob("docs/reference/**/*.md"), *ROOT.glob(f"{originals.FOLDER}/**/*.md")]
    left_over = [p for p in made if p.relative_to(ROOT).as_posix() not in kept]
    for path in left_over:
        path.unlink()
    return [o.path for o in changed] + [f"{p.relative_to(ROOT)} (removed)" for p in left_over]


def read(path: str) -> str | None:
    """A file's text, or None where there is no file."""
    file = ROOT / path
    return file.read_text(encoding="utf-8") if file.exists() else None


def main(words: list[str] | None = None) -> int:
    """Does what the command line asks and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.gen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which committed files are stale")
    parser.add_argument("--inventory", metavar="FILE", help="check that the site documents every public name")
    parser.add_argument("--palette", metavar="SITE", help="check that the site has all that the palette leads to")
    asked = parser.parse_args(words)
    if asked.inventory:
        return say("not in the site's inventory", inventory.missing(ROOT / asked.inventory, distributions()))
    if asked.palette:
        found = distributions()
        indexed = index.made_of(found, originals.installed())
        return say("not on the site", palette.dead(Path(asked.palette), indexed, found))
    if asked.check:
        return say("stale (run `nox -s gen` and commit)", stale(committed(distributions())))
    for path in write(outputs()):
        print(f"wrote {path}")
    return 0


def say(problem: str, where: list[str]) -> int:
    """Prints one line per place that has the problem; returns the exit code."""
    for place in where:
        print(f"{place}: {problem}", file=sys.stderr)
    return 1 if where else 0


if __name__ == "__main__":
    sys.exit(main())
