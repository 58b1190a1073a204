"""The life of a collective: one page for each entry of the catalogue, from its schema to its tests.

What an entry lacks stands there as missing, with the reason.
"""

from __future__ import annotations

import enum
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import fields
from itertools import takewhile
from typing import Any

import torch

import functional_collectives as fc
from comm_core import Collective, Lowering, Missing, run
from comm_core.catalog import CATALOG

from . import examples, figures, messages
from .doors import linked
from .markup import prose
from .mentions import docstring_of, files_mentioning, mentioning
from .picture import drawn
from .reference import HEAD, cell
from .sources import ROOT, Distribution, Output, first_line_of
from .torch_compat import lone_rank, traced_code

SOURCE = "packages/comm_core/src/comm_core/catalog"
PUBLIC = "packages/functional_collectives/src/functional_collectives/*.py"
MIB = 1 << 20
VERSION = torch.__version__.partition("+")[0]


def pages(distributions: list[Distribution]) -> list[Output]:
    """A page for every entry, from the catalogue as it is and from runs of it."""
    with lone_rank(examples.WORLD):
        graphs = {entry.name: graph(entry) for entry in CATALOG.values()}
    return [
        Output(f"docs/{where(entry)}", page(entry, graphs[entry.name], distributions), committed=False)
        for entry in CATALOG.values()
    ]


def where(entry: Collective) -> str:
    """Where the page of an entry stands, relative to docs/."""
    return f"reference/collectives/{entry.name}.md"


def page(entry: Collective, traced: str, distributions: list[Distribution]) -> str:
    """All sections of an entry's page."""
    sections = [
        opening(entry),
        calls(entry, distributions),
        shapes(entry),
        wire(entry),
        [*rule_section("Eager", "kernel", entry)],
        gradient(entry),
        [*rule_section("Under vmap", "batch", entry)],
        ["## In a traced graph", "", f"What `make_fx` traces of the example, in torch {VERSION}:", "", *code(traced)],
        lowering(entry, distributions),
        errors(entry),
        tests(entry),
        benchmarks(entry),
        every_field(entry),
    ]
    return HEAD + "\n".join(line for section in sections for line in [*section, ""])


def opening(entry: Collective) -> list[str]:
    """The summary, the schema, and the picture of the example."""
    title = f"What 4 ranks hold before and after {entry.name}"
    flow = drawn(examples.forward(entry), title, ("before: x of each rank", "after"))
    return [
        *(f"# {entry.name}", "", entry.summary, "", f"    {entry.schema}", ""),
        *(f"`{examples.call(entry)}` on 4 ranks; `a0` is the first element of rank 0:", "", flow),
    ]


def functions_of(entry: Collective) -> list[tuple[str, str]]:
    """The public functions that run the entry, each with its file: the plain one, its variants, those of others."""
    found = [row for row in mentioning(PUBLIC, {entry.name.upper()}) if row[1] in fc.__all__]
    return sorted(found, key=lambda row: (row[1] != entry.name and row[1] in CATALOG, len(row[1])))


def calls(entry: Collective, distributions: list[Distribution]) -> list[str]:
    """The public functions that run the entry."""
    found = []
    for file, name in functions_of(entry):
        module = file.rpartition("/")[2].removesuffix(".py")
        target = linked(f"functional_collectives.{module}.{name}", distributions)
        if target:
            found.append(f"- [`functional_collectives.{name}`][{target}]")
    example = example_of(entry)
    always = f"- [`comm_core.run`][comm_core.execution.run]`(catalog.{entry.name.upper()}, x, group, ...)`"
    return ["## Call it", "", *found, always, *example]


def example_of(entry: Collective) -> list[str]:
    """The example of the entry's first public function; the tests run it."""
    for file, name in functions_of(entry):
        if not file.endswith(("/coalesced.py", "/inplace.py")):
            text = docstring_of(file, name).partition("Example:\n")[2]
            block = textwrap.dedent(
                "\n".join(takewhile(lambda line: not line.strip() or line[0] == " ", text.split("\n")))
            )
            return ["", "```pycon", block.strip(), "```"]
    return []


def shapes(entry: Collective) -> list[str]:
    """The example's shapes by rank, and the rule."""
    sizes = [len(rank) for rank in examples.forward(entry).after.ranks]
    same = f"`({sizes[0]},)` on every rank" if len(set(sizes)) == 1 else f"{', '.join(f'`({n},)`' for n in sizes)}"
    given = list(dict.fromkeys(examples.rows(entry)))
    origin = f"`({given[0]},)`" if len(given) == 1 else f"{', '.join(f'`({n},)`' for n in examples.rows(entry))}"
    said = f"In the example: from {origin} to {same}. The rule, and the definition of the values:"
    return ["## What it computes", "", said, "", *written(entry.shape, entry), *written(entry.oracle, entry)]


def wire(entry: Collective) -> list[str]:
    """What each rank of the example would send if its tensor had 1 MiB."""
    counts = []
    for rank in range(examples.WORLD):
        x = torch.zeros(examples.rows(entry)[rank])
        parsed = entry.check(x, examples.WORLD, rank, **examples.parameters(entry, rank))
        counts.append(entry.wire_bytes(MIB, examples.WORLD, rank, **parsed))
    row = " | ".join(f"{count:,}" for count in counts)
    heads = " | ".join(f"rank {rank}" for rank in range(examples.WORLD))
    said = "Bytes that must leave each rank of the example if its tensor has 1 MiB (1,048,576 bytes):"
    rule = written(entry.wire_bytes, entry)
    return ["## Bytes on the wire", "", said, "", f"| {heads} |", "|---:" * 4 + "|", f"| {row} |", "", *rule]


def gradient(entry: Collective) -> list[str]:
    """The picture of the cotangents, and the rules of both conventions."""
    flow = examples.backward(entry)
    lines = ["## Gradient", ""]
    if flow is not None:
        title = f"What 4 ranks hold before and after the gradient of {entry.name}"
        words = ("cotangents of the results", "cotangents of x")
        lines += ["Backward on the same ranks; here `a0` is the cotangent of the first element that rank 0 got:", ""]
        lines += [drawn(flow, title, words), ""]
    for field, said in (("gradient", "adjoint, the default"), ("identity", '`backward="identity"`'), ("partial", "")):
        lines += [f"**{field}**{f' ({said})' if said else ''}:", "", *written(getattr(entry, field), entry)]
    both = "[Gradients](../../understand/gradients.md) says what the two conventions mean."
    return [*lines, both]


def rule_section(title: str, field: str, entry: Collective) -> list[str]:
    """A section that shows one rule."""
    return [f"## {title}", "", *written(getattr(entry, field), entry)]


def lowering(entry: Collective, distributions: list[Distribution]) -> list[str]:
    """The word, what it means, and who carries it out."""
    handler = linked(f"comm_lowering.kinds.{entry.lowering.name.lower()}", distributions)
    by = f"carried out by [`{handler}`][{handler}]" if handler else nobody(entry)
    twin, in_place = (
        f"none: {value.why}" if isinstance(value, Missing) else f"`torch.ops._c10d_functional.{value}`"
        for value in (entry.twin, entry.in_place)
    )
    rows = [
        f"| torch's op | {cell(twin)} |",
        f"| in place | {cell(in_place)} |",
        f"| lowering | `{entry.lowering.name}`: {entry.lowering.value}; {by} |",
    ]
    return ["## Lowering", "", "| fact | value |", "|---|---|", *rows]


def nobody(entry: Collective) -> str:
    """Why the word needs no handler."""
    parts = entry.lowering is Lowering.COMPOSITE
    return "its parts are lowered by their own handlers" if parts else "which compilers run as it is"


def errors(entry: Collective) -> list[str]:
    """What the entry's check can raise, in its own file or in the functions that it calls."""
    rows = [
        f"| {messages.link(one.kind)} | {messages.words(one.got)} | {messages.words(one.need)} |"
        for one in messages.of_function(entry.check)
    ]
    if not rows:
        return [
            "## Errors at the call",
            "",
            "It refuses nothing of its own; what every call refuses stands here:",
            "",
            "[every error](../errors.md)",
        ]
    said = "What its check refuses, besides what [every call refuses](../errors.md):"
    return ["## Errors at the call", "", said, "", "| error | got | need |", "|---|---|---|", *rows]


def tests(entry: Collective) -> list[str]:
    """The contract, which runs over every entry, and the tests that name this one's functions."""
    contract = [f"| `{file.relative_to(ROOT)}` | {prose(first_line_of(file))} |" for file in contract_files()]
    found = [f"`{file}::{name}`" for file, name in named_tests(entry)]
    shown = [f"- {one}" for one in found[:12]] + ([f"- and {len(found) - 12} more"] if len(found) > 12 else [])
    return [
        *("## Tests", "", "The contract matrix runs over every entry of the catalogue:", ""),
        *("| file | what holds |", "|---|---|", *contract, ""),
        *(["Tests of the packages that name it:", "", *shown] if found else ["No test of a package names it."]),
    ]


def contract_files() -> list[Any]:
    """The files of the contract."""
    return sorted((ROOT / "tests/contract").glob("test_*.py"))


def named_tests(entry: Collective) -> list[tuple[str, str]]:
    """The tests of the packages in which the entry or one of its public functions stands."""
    public = {name for _, name in functions_of(entry)}
    found = mentioning("packages/*/tests/**/test_*.py", public | {entry.name.upper()})
    return [(file, name) for file, name in found if name.startswith("test_")]


def benchmarks(entry: Collective) -> list[str]:
    """What it costs, and the benchmarks in which it stands."""
    public = {name for _, name in functions_of(entry)}
    found = files_mentioning("tools/bench/[a-z]*.py", public | {entry.name, entry.name.upper()})
    lines = [f"- `nox -s bench -- {file.stem}`: {first_line_of(file)}" for file in found]
    more = (
        ["Benchmarks that measure it against others:", "", *lines]
        if lines
        else ["No benchmark holds it against others."]
    )
    return ["## Benchmarks", "", *figures.table(entry.name), *figures.copies(entry.name), *more]


def every_field(entry: Collective) -> list[str]:
    """Every field in a table."""
    named = [(field.name, getattr(entry, field.name)) for field in fields(entry)][2:]
    rows = [f"| {name} | {cell(full(value))} |" for name, value in named]
    return [
        "## Every field",
        "",
        f"As `{SOURCE}/{entry.name}.py` fills them:",
        "",
        "| field | value |",
        "|---|---|",
        *rows,
    ]


def full(value: Any) -> str:
    """A field in full: the value, the reason why there is none, or where the rule is written."""
    if isinstance(value, Missing):
        return f"none: {value.why}"
    if isinstance(value, enum.Enum):
        return f"`{value.name}`: {value.value}"
    if isinstance(value, frozenset):
        return ", ".join(f"`{one}`" for one in sorted(value)) or "none"
    return f"`{value.__module__}.{value.__qualname__}`" if callable(value) else f"`{value}`"


def written(rule: Callable[..., Any] | Missing, entry: Collective) -> list[str]:
    """A rule as its file has it, or the reason why there is none."""
    if isinstance(rule, Missing):
        return [f"None: {rule.why}.", ""]
    return code(inspect.getsource(rule).rstrip())


def code(text: str) -> list[str]:
    """A block of Python, and the empty line behind it."""
    return ["```python", text, "```", ""]


def graph(entry: Collective) -> str:
    """The example as `make_fx` traces it on one of four ranks, without the lines that only free memory."""

    def example(x: torch.Tensor) -> torch.Tensor:
        return run(entry, x, **examples.parameters(entry, 0))

    lines = traced_code(example, torch.zeros(examples.rows(entry)[0])).strip().splitlines()
    return "\n".join(line.partition(";  ")[0].rstrip() for line in lines)
