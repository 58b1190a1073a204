"""The page of errors: every class, what causes it and what to do, read from every place that makes one."""

from __future__ import annotations

from . import messages
from .reference import HEAD
from .sources import ROOT, Output

PAGE = "docs/reference/errors.md"
INTRODUCTION = """\
Everything that commbook raises for a user's mistake or a failed transport is a
[`CommError`][comm_core.errors.CommError], and the builtin exception named beside it. Each message says where it
happened, what was got, what is needed and what to try; those words stand in `.where`, `.got`, `.need` and `.hint`.
Words in braces are filled in when the error is made. The rows are read from the code.
"""


def page() -> Output:
    """The page, from the code as it is."""
    found = [
        message
        for folder in ("packages", "tools")
        for file in sorted((ROOT / folder).glob("*/src/**/*.py"))
        for message in messages.of_file(file)
    ]
    lines = [f"{HEAD}# Every error", "", INTRODUCTION]
    lines += ["| error | is also | places |", "|---|---|---:|"]
    for kind, (base, _) in messages.kinds().items():
        count = sum(message.kind == kind for message in found)
        lines.append(f"| [{kind}](#{kind.lower()}) | `{base}` | {count} |")
    for kind, (_, meaning) in messages.kinds().items():
        lines += ["", f"## {kind}", "", f"{' '.join(meaning.split())} {messages.link(kind)}"]
        lines += rows([message for message in found if message.kind == kind])
    return Output(PAGE, "\n".join(lines) + "\n", committed=False)


def rows(found: list[messages.Message]) -> list[str]:
    """The places that make one kind of error, as a table."""
    if not found:
        return []
    table = [
        f"| {messages.words(one.where)} | {messages.words(one.got)} | {messages.words(one.need)} "
        f"| {messages.words(one.hint)} | `{one.file}:{one.line}` |"
        for one in found
    ]
    return ["", "| where | got | need | what to do | made in |", "|---|---|---|---|---|", *table]
