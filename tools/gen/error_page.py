"""The page of errors: every class, what causes it and what to do, read from every place that makes one."""

from __future__ import annotations

from pathlib import Path

from . import messages
from .reference import HEAD
from .sources import ROOT, Output

PAGE = "docs/reference/errors.md"
INTRODUCTION = """\
Everything that commbook raises for a user's mistake or a failed transport is a
[`CommError`][comm_core.errors.CommError], and the builtin exception named beside it. Each message says where it
happened, what was got, what is needed and what to try; those words stand in `.where`, `.got`, `.need` and `.hint`.
Words in braces are filled in when the error is made. The rows are read from the code; where one has nothing of its own
to try, what stands above its table does.
"""
ADVICE = {
    "CommError": "Catch it to catch every error of commbook.",
    "ArgumentError": "Pass what the row says is needed.",
    "GroupError": "Pass a group that this rank is in: [Groups](../understand/groups.md) has every way to name one.",
    "RankError": "Count ranks as positions in the group, from 0, not as ranks of the whole job.",
    "ReduceOpError": "Choose an op that the dtype has, or cast the tensor to a dtype that has the op.",
    "ShapeError": "Reshape, pad or split the tensor, or change the dim or the sizes, until they fit as the row says.",
    "DtypeError": "Convert the argument to what is needed: `x.to(dtype)`, `x.to_local()` of a DTensor, `x.to_dense()`.",
    "PlacementError": "Give a placement for each mesh axis that fits the tensor: "
    "[Placements and gradients](../understand/placements_and_gradients.md).",
    "GradientError": "Choose an op that has a derivative, or call it on `x.detach()` or under `torch.no_grad()`: "
    "[Gradients](../understand/gradients.md).",
    "MismatchError": "Make every rank of the group make the same call with agreeing arguments: "
    "[Find a hang](../do/find_a_hang.md) shows how to see who does not.",
    "DeadlockError": "Look at what each rank waits for, which the message says, and make all call in the same order: "
    "[Find a hang](../do/find_a_hang.md).",
    "TransportError": "Use a transport that can do it (gloo can most), or repair what the row names.",
    "RankFailedError": "Mend what that rank raised, whose traceback the message has; the other ranks are well.",
    "RankTimeoutError": "See where that rank is, which the message says; give more time if it only is slow: "
    "[Find a hang](../do/find_a_hang.md).",
    "UnwaitedWarning": "Use the result, or call `wait_tensor` on it; the warning has the line that started it.",
}
"""What to do about an error of each class, where a row says no more."""


def files() -> list[Path]:
    """The sources of all distributions."""
    return [file for folder in ("packages", "tools") for file in sorted((ROOT / folder).glob("*/src/**/*.py"))]


def page() -> Output:
    """The page, from the code as it is."""
    found = [message for file in files() for message in messages.of_file(file)]
    lines = [f"{HEAD}# Every error", "", INTRODUCTION]
    lines += ["| error | is also | places |", "|---|---|---:|"]
    for kind, (base, _) in messages.kinds().items():
        count = sum(message.kind == kind for message in found)
        lines.append(f"| [{kind}](#{kind.lower()}) | `{base}` | {count} |")
    for kind, (_, meaning) in messages.kinds().items():
        lines += ["", f"## {kind}", "", f"{' '.join(meaning.split())} {messages.link(kind)}"]
        lines += ["", f"**What to do.** {ADVICE[kind]}"]
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
