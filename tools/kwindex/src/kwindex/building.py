"""The commands `kwindex build` and `kwindex update`."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from kwindex.cli import OK, UNREADABLE
from kwindex.pipeline import Built, build, update
from kwindex.sharing import Progress, processors


def run_build(options: argparse.Namespace) -> int:
    """Builds an index, and what else is asked for beside it."""
    if options.tags or options.pages or options.source_address or options.commit:
        _check_exports(options)
    with _progress_bar() as progress:
        jobs = options.jobs or min(4, processors())
        built = build(options.sources, options.out, jobs=jobs, progress=progress)
    _export(options)
    return _said(built, options.json)


def run_update(options: argparse.Namespace) -> int:
    """Reads some files of an index anew."""
    code = _said(update(options.out, options.files), options.json)
    left = [name for name in ("tags", "pages") if (Path(options.out) / name).exists()]
    if left:
        again = " ".join(f"--{name}" for name in left)
        print(
            f"kwindex: {' and '.join(left)} as before; `kwindex build SRC... {again}` writes them anew", file=sys.stderr
        )
    return code


def _said(built: Built, as_json: bool) -> int:
    """Says what was built and what could not be read; returns the exit code."""
    for problem in built.problems:
        print(problem, file=sys.stderr)
    if built.problems:
        print(f"kwindex: {len(built.problems)} not read, {_count(built.files, 'file')} indexed", file=sys.stderr)
    print(_summary(built, as_json))
    return UNREADABLE if built.problems else OK


def _check_exports(options: argparse.Namespace) -> None:
    """Refuses, before anything is read, what could not be written in the end."""
    from kwindex import exports
    from kwindex.pages import FOLDER, places_at

    out = Path(options.out)
    exports.check(out if options.tags else None, out / FOLDER if options.pages else None)
    places_at(options.source_address, options.commit)


def _export(options: argparse.Namespace) -> None:
    """Writes what is asked for beside the index."""
    if not (options.pages or options.tags):
        return
    from kwindex import exports
    from kwindex.discover import discover
    from kwindex.pages import places_at, write_pages
    from kwindex.render import printable
    from kwindex.store import read_index

    out = Path(options.out)
    entries = read_index(out)
    if options.tags:
        paths = {source.file: source.path for source in discover(options.sources).files}
        text = exports.tags_text(entries, exports.openable(paths, out))
        exports.write(out / exports.TAGS, text.encode("utf-8", "backslashreplace"))
    if options.pages:
        title = printable(", ".join(sorted({Path(source).resolve().name for source in options.sources})))
        with _progress_bar("writing pages") as progress:
            places = places_at(options.source_address, options.commit)
            write_pages(options.sources, entries, out, places=places, title=title, progress=progress)


def _summary(built: Built, as_json: bool) -> str:
    if not as_json:
        return f"{_count(built.entries, 'entry', 'entries')} of {_count(built.files, 'file')}: {built.path}"
    problems = [problem._asdict() for problem in built.problems]
    counts = {"files": built.files, "entries": built.entries, "read": built.read}
    return json.dumps({"index": str(built.path), **counts, "problems": problems})


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


@contextlib.contextmanager
def _progress_bar(what: str = "reading sources") -> Iterator[Progress | None]:
    """Shows how far a build is on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
