"""The command line: `kwindex build` and `kwindex search`."""

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kwindex.errors import KwindexError
from kwindex.pipeline import Built, build
from kwindex.rank import Hit
from kwindex.reading import Progress, processors
from kwindex.ready import open_searcher

OK, NOTHING_FOUND, USAGE, UNREADABLE, INTERRUPTED = 0, 1, 2, 3, 130
DEFAULT_FOLDER = "kwindex-out"

_EXIT_CODES = """\
exit codes:
  0  all went well
  1  the search found nothing; near names are on stderr
  2  the command cannot be carried out as given; stderr says why
  3  some files could not be read: each is on stderr as path:line: why; all others are indexed
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments give and returns its exit code.

    Example:
        >>> main(["search", "x", "--index", "/no/such/folder"])
        2
    """
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # no name is a reason to fail on a narrow encoding
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KwindexError as error:
        print(f"kwindex: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        print("kwindex: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kwindex",
        description="Keyword index and symbol search for Python trees. Sources are parsed, never imported or run.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    builder = commands.add_parser("build", help="index Python files into DIR/index.json")
    builder.add_argument("sources", nargs="+", metavar="SRC", help="a Python file, or a folder with all below it")
    builder.add_argument(
        "--out", type=Path, default=Path(DEFAULT_FOLDER), metavar="DIR", help="outside SRC (default: %(default)s)"
    )
    builder.add_argument("--json", action="store_true", help="print what was built as JSON")
    builder.add_argument(
        "--jobs", type=_positive, default=min(4, processors()), metavar="N", help="processes (default: %(default)s)"
    )
    builder.add_argument("--pages", action="store_true", help="write pages for every file and folder to DIR/pages too")
    builder.add_argument("--tags", action="store_true", help="write DIR/tags for editors too")
    builder.add_argument(
        "--source-address",
        default="",
        metavar="URL",
        help="where the pages' line numbers lead, such as https://host/{file}#L{line}",
    )
    builder.set_defaults(run=_build)
    searcher = commands.add_parser("search", help="find symbols, operators and imports by any spelling")
    searcher.add_argument(
        "query", nargs="+", metavar="QUERY", help="all_reduce, allreduce, agit, psum, Tensor.wait, ..."
    )
    searcher.add_argument(
        "--index", default=DEFAULT_FOLDER, metavar="DIR", help="what `build --out` wrote (default: %(default)s)"
    )
    searcher.add_argument("--json", action="store_true", help="print the hits as a JSON list, best first")
    searcher.add_argument("--limit", type=_positive, default=10, metavar="N", help="hits (default: %(default)s)")
    searcher.set_defaults(run=_search)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _build(options: argparse.Namespace) -> int:
    with _progress_bar() as progress:
        built = build(options.sources, options.out, jobs=options.jobs, progress=progress)
    _export(options)
    for problem in built.problems:
        print(problem, file=sys.stderr)
    if built.problems:
        print(f"kwindex: {len(built.problems)} not read, {_count(built.files, 'file')} indexed", file=sys.stderr)
    print(_summary(built, options.json))
    return UNREADABLE if built.problems else OK


def _export(options: argparse.Namespace) -> None:
    """Writes what is asked for beside the index."""
    if not (options.pages or options.tags):
        return
    from kwindex import exports
    from kwindex.discover import discover
    from kwindex.pages import write_pages
    from kwindex.store import read_index

    entries = read_index(options.out)
    if options.tags:
        paths = {source.file: source.path for source in discover(options.sources).files}
        text = exports.tags_text(entries, exports.openable(paths, options.out))
        exports.write(options.out / exports.TAGS, text.encode("utf-8", "backslashreplace"))
    if options.pages:
        title = ", ".join(Path(source).resolve().name for source in options.sources)
        with _progress_bar("writing pages") as progress:
            write_pages(
                options.sources,
                entries,
                options.out,
                source_address=options.source_address,
                title=title,
                progress=progress,
            )


def _summary(built: Built, as_json: bool) -> str:
    if not as_json:
        return f"{_count(built.entries, 'entry', 'entries')} of {_count(built.files, 'file')}: {built.path}"
    problems = [problem._asdict() for problem in built.problems]
    counts = {"files": built.files, "entries": built.entries}
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


def _search(options: argparse.Namespace) -> int:
    query = " ".join(options.query).strip()
    if not query:
        raise KwindexError("the query is empty; give a name, such as all_reduce")
    searcher = open_searcher(options.index)
    hits = searcher.search(query, options.limit)
    if options.json:
        print(json.dumps([hit.as_dict() for hit in hits], indent=1))
    else:
        _show(hits)
    if hits:
        return OK
    near = searcher.suggest(query)
    hint = f"; did you mean {', '.join(near)}?" if near else f" among {len(searcher.entries)} entries"
    print(f"kwindex: nothing found for {query!r}{hint}", file=sys.stderr)
    return NOTHING_FOUND


def _show(hits: list[Hit]) -> None:
    """Prints hits for people: bold names where stdout is a terminal, plain text elsewhere."""
    bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if _coloured() else ("", "", "")
    for hit in hits:
        entry = hit.entry
        print(f"{bold}{entry.name}{plain}  {entry.kind}  {dim}({hit.why}){plain}")
        print(f"  {entry.file}:{entry.line}")
        for text in (entry.signature, entry.summary):
            if text:
                print(f"  {text}")


def _coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
