"""The command line: `kwindex build`, `update`, `search`, `serve` and `evaluate`.

A command's work is imported when the command is known, so that a search starts at once.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from kwindex.errors import KwindexError

OK, NOTHING_FOUND, USAGE, UNREADABLE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 70, 130
DEFAULT_FOLDER = "kwindex-out"

_EXIT_CODES = """\
exit codes:
  0  all went well
  1  the search, or one of several, found nothing; near names are on stderr
  2  the command cannot be carried out as given; stderr says why
  3  some files could not be read: each is on stderr as path:line: why; all others are indexed
 70  kwindex failed, or its index is damaged: stderr has the traceback
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments give and returns its exit code.

    Example:
        >>> main(["search", "x", "--index", "/no/such/folder"])
        2
    """
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args([f" {one}" if one.startswith("->") else one for one in given])  # types, no option
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # no name is a reason to fail on a narrow encoding
    try:
        module, function = options.run
        run: Callable[[argparse.Namespace], int] = getattr(import_module(module), function)
        code = run(options)
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
    except Exception:  # not by Python's own exit code for it, which says that nothing was found
        import traceback

        traceback.print_exc()
        print("kwindex: a mistake of kwindex, or the index is damaged; build it again", file=sys.stderr)
        return BROKEN


def version() -> str:
    """Returns the version that is installed.

    Example:
        >>> version()[:2]
        '0.'
    """
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed  # a search never needs it

    try:
        return installed("kwindex")
    except PackageNotFoundError:
        return "unknown"


class _Version(argparse.Action):
    """Prints the version and ends the command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"kwindex {version()}")
        parser.exit(OK)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kwindex",
        description="Keyword index and symbol search for Python trees. Sources are parsed, never imported or run.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_building(commands)
    search = commands.add_parser("search", help="find symbols, operators, messages and types by any spelling")
    search.add_argument(
        "query",
        nargs="+",
        metavar="QUERY",
        help="all_reduce, allreduce, agit, psum, Tensor.wait, 'str -> Tensor', ...; -: each line of stdin",
    )
    _add_index(search)
    search.add_argument(
        "--json", action="store_true", help="print the hits as a JSON list, best first; with -, a line each"
    )
    search.add_argument("--limit", type=_positive, default=10, metavar="N", help="hits (default: %(default)s)")
    search.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="default: %(default)s")
    search.add_argument("--no-pager", action="store_true", help="do not show what is longer than the screen in a pager")
    search.set_defaults(run=("kwindex.finding", "run_search"))
    serve = commands.add_parser(
        "serve", help="answer editors and agents: the Model Context Protocol on stdin and stdout"
    )
    _add_index(serve)
    serve.set_defaults(run=("kwindex.serving", "run_serve"))
    evaluate = commands.add_parser("evaluate", help="ask golden queries and print how well they are answered")
    evaluate.add_argument("golden", metavar="FILE", help="stratum, half, query and expected names, tabs between them")
    _add_index(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print figures and failed queries as JSON")
    evaluate.set_defaults(run=("kwindex.finding", "run_evaluate"))
    return parser


def _add_building(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    build = commands.add_parser("build", help="index Python files into DIR/index.json")
    build.add_argument("sources", nargs="+", metavar="SRC", help="a Python file, or a folder with all below it")
    build.add_argument("--out", default=DEFAULT_FOLDER, metavar="DIR", help="outside SRC (default: %(default)s)")
    build.add_argument("--json", action="store_true", help="print what was built as JSON")
    build.add_argument("--jobs", type=_positive, metavar="N", help="processes (default: one a core, at most 4)")
    build.add_argument("--pages", action="store_true", help="write pages for every file and folder to DIR/pages too")
    build.add_argument("--tags", action="store_true", help="write DIR/tags for editors too")
    build.add_argument(
        "--source-address",
        default="",
        metavar="URL",
        help="where the pages' line numbers lead, such as https://host/{commit}/{file}#L{line}",
    )
    build.add_argument(
        "--commit", default="", metavar="REV", help="what the sources are, for the pages; nothing is asked of git"
    )
    build.set_defaults(run=("kwindex.building", "run_build"))
    update = commands.add_parser("update", help="read changed files of an index anew: the same as build, sooner")
    update.add_argument("files", nargs="+", metavar="FILE", help="a file of the index that has changed")
    update.add_argument("--out", default=DEFAULT_FOLDER, metavar="DIR", help="the index (default: %(default)s)")
    update.add_argument("--json", action="store_true", help="print what was built as JSON")
    update.set_defaults(run=("kwindex.building", "run_update"))


def _add_index(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--index", default=DEFAULT_FOLDER, metavar="DIR", help="what `build --out` wrote (default: %(default)s)"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)
