"""`python -m tools.gen` writes what is generated; `--check` only says what is stale; `--site` builds the site, too."""

from __future__ import annotations

import argparse
import sys

from . import (
    collectives,
    concordance,
    drift,
    error_page,
    index,
    life,
    marked,
    originals,
    palette,
    quality_page,
    reference,
    site,
    surface,
)
from .sources import ROOT, Distribution, Output, distributions


def outputs() -> list[Output]:
    """Everything that is generated, from the working tree and the installed torch as they are."""
    return made_of(distributions())[0]


def made_of(found: list[Distribution]) -> tuple[list[Output], index.Index]:
    """Everything that is generated, and the index that the pages were made from."""
    asking = quality_page.started()
    indexed = index.made_of(found, originals.installed())
    made = [
        *committed(found),
        *reference.pages(found),
        *life.pages(found),
        drift.page(found),
        error_page.page(),
        *originals.pages(indexed),
        *palette.files(indexed, found),
        quality_page.page(asking),
    ]
    return made, indexed


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
    made = ("docs/reference/**/*.md", f"{originals.FOLDER}/**/*.md", f"{palette.FOLDER}/*.js")
    there = [path for pattern in made for path in ROOT.glob(pattern)]
    left_over = [p for p in there if p.relative_to(ROOT).as_posix() not in kept]
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
    parser.add_argument("--site", action="store_true", help="build the site too, and check that it is complete")
    asked = parser.parse_args(words)
    found = distributions()
    if asked.check:
        return say([f"{path}: stale (run `nox -s gen` and commit)" for path in stale(committed(found))])
    made, indexed = made_of(found)
    for path in write(made):
        print(f"wrote {path}", flush=True)
    if not asked.site:
        return 0
    site.build(ROOT / site.FOLDER)
    return say(site.lacking(ROOT / site.FOLDER, indexed, found))


def say(problems: list[str]) -> int:
    """Prints the problems, one a line; returns the exit code."""
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
