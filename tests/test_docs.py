"""Every Python block of the pages and READMEs runs, in page order, in one namespace per page.

A ```text block right after a Python block is what it prints; one under `<!-- shows: EXPRESSION -->` is what that is.
A block that cannot run here (it needs a GPU, say) stands under a comment `<!-- not run: REASON -->`. Anything that
needs several ranks runs on the simulator. The blocks that are no Python are checked by test_commands.py.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tools.gen.sources import ROOT

FENCE = re.compile(r"(?ms)^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```[ ]*$")
SHOWS = re.compile(r"<!-- shows: (?P<expression>[^\n]+) -->\s*\Z")
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^\n]+?) -->\s*\Z")
PAGES = sorted(
    page
    for pattern in ("README.md", "docs/**/*.md", "packages/*/README.md", "tools/*/README.md")
    for page in ROOT.glob(pattern)
    if not {"reference", "generated", "originals"} & set(page.parts)
)


@dataclass(frozen=True)
class Example:
    """One Python block: its code, the line it starts on, what it must print, and why it is not run, if so."""

    code: str
    line: int
    printed: str | None
    not_run: str | None


def examples(text: str) -> list[Example]:
    fences = list(FENCE.finditer(text))
    found = []
    for here, after in pairwise([*fences, None]):
        if here is None:
            continue
        if here["language"] == "text" and (shows := SHOWS.search(text[: here.start()])):
            line = text.count("\n", 0, here.start("body"))
            found.append(Example(f"print({shows['expression']})", line, here["body"], None))
        if here["language"] != "python":
            continue
        follows = after is not None and after["language"] == "text" and not text[here.end() : after.start()].strip()
        said = NOT_RUN.search(text[: here.start()])
        line = text.count("\n", 0, here.start("body"))
        found.append(
            Example(here["body"], line, after["body"] if follows and after else None, said["reason"] if said else None)
        )
    return found


def run(example: Example, page: Path, namespace: dict[str, object]) -> str:
    """Runs a block with the page's own line numbers in tracebacks, and returns what it printed."""
    code = compile("\n" * example.line + example.code, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, namespace)
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_of_a_page_run_and_print_what_the_page_says(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "page"}
    for example in examples(page.read_text(encoding="utf-8")):
        if example.not_run:
            continue
        printed = run(example, page, namespace)
        if example.printed is not None:
            assert printed == example.printed, f"{page.relative_to(ROOT)}:{example.line + 1}"


def test_the_first_tutorial_really_runs_on_several_ranks() -> None:
    page = (ROOT / "docs" / "learn" / "first_collective.md").read_text(encoding="utf-8")
    ran = [example for example in examples(page) if not example.not_run]
    assert any("World(4)" in example.code and example.printed for example in ran)


def test_a_wrong_output_would_be_noticed() -> None:
    (example,) = examples("x\n\n```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n")
    assert example.line == 3
    assert run(example, Path("page.md"), {}) == "2\n" != example.printed


def test_a_block_that_an_expression_shows_is_held_against_it() -> None:
    text = "```python\na = 2\n```\n\nIt is:\n\n<!-- shows: a + 1 -->\n```text\n3\n```\n"
    first, shown = examples(text)
    namespace: dict[str, object] = {}
    run(first, Path("page.md"), namespace)
    assert run(shown, Path("page.md"), namespace) == "3\n" == shown.printed


def test_a_reason_excuses_only_the_block_below_it() -> None:
    text = "<!-- not run: needs two GPUs -->\n\n```python\na\n```\n\n```python\nb\n```\n"
    assert [example.not_run for example in examples(text)] == ["needs two GPUs", None]
