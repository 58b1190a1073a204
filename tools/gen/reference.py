"""The reference: one page per package with its public names, one page per module for mkdocstrings to fill."""

from __future__ import annotations

from .doors import PublicName, public_names
from .markup import prose
from .sources import GENERATED, Distribution, Module, Output

HEAD = f"<!-- {GENERATED} -->\n\n"


def pages(distributions: list[Distribution]) -> list[Output]:
    """The overview, a door page for every package and a page for each of its public modules."""
    documented = [d for d in distributions if d.package]
    written = [Output("docs/reference/index.md", overview(documented), committed=False)]
    for distribution in documented:
        written.append(Output(f"docs/{door_page(distribution)}", door(distribution), committed=False))
        written += [
            Output(f"docs/{module_page(module)}", f"{HEAD}::: {module.name}\n", committed=False)
            for module in inner_modules(distribution)
        ]
    index = Output("docs/index/generated/names.md", all_names(documented), committed=False)
    return [*written, index]


def inner_modules(distribution: Distribution) -> list[Module]:
    """The public modules of a package below its door."""
    return [module for module in distribution.modules if module.public and module.name != distribution.package]


def door_page(distribution: Distribution) -> str:
    """Where the page of a package stands, relative to docs/."""
    return f"reference/{distribution.package}/index.md"


def module_page(module: Module) -> str:
    """Where the page of a module stands, relative to docs/."""
    package, *rest = module.name.split(".")
    return f"reference/{package}/{'.'.join(rest)}.md"


def overview(distributions: list[Distribution]) -> str:
    """The first page of the reference: the packages, and the tables that cut across them."""
    rows = [f"| [`{d.package}`]({d.package}/index.md) | {d.description} |" for d in distributions]
    return "\n".join(
        [
            f"{HEAD}# Reference",
            "",
            "Written from the docstrings. Every example on these pages is run by the tests.",
            "",
            "| package | what it is |",
            "|---|---|",
            *rows,
            "",
            "Across the packages: [every collective](collectives.md), [every error](errors.md),",
            "[torch's names and ours](concordance.md), [what came and went in torch](drift.md),",
            "[all public names](../index/generated/names.md).",
            "",
        ]
    )


def door(distribution: Distribution) -> str:
    """A package's page: its docstring, then its public names, each with a link to its definition."""
    names = public_names(distribution)
    inside = [f"- [`{module.name}`][{module.name}]: {prose(module.summary)}" for module in inner_modules(distribution)]
    options = "    options:\n      members: false\n      show_root_toc_entry: false\n"
    return "\n".join(
        [
            f"{HEAD}# {distribution.package}",
            "",
            f"`pip install {distribution.name}`",
            "",
            f"::: {distribution.package}\n{options}      show_root_heading: false",
            "",
            *(["## Public names", "", *name_table(names), ""] if names else []),
            *(["## Modules", "", *inside, ""] if inside else []),
        ]
    )


def name_table(names: list[PublicName]) -> list[str]:
    """A table row per public name."""
    rows = [f"| [`{one.name}`][{one.path}] | {one.kind} | {prose(one.summary)} |" for one in names]
    return ["| name | kind | what it is |", "|---|---|---|", *rows]


def cell(text: str) -> str:
    """Text that may stand in a table cell."""
    return text.replace("|", "\\|")


def all_names(distributions: list[Distribution]) -> str:
    """Every public name of every package, in alphabetical order."""
    found = [(one, d) for d in distributions for one in public_names(d)]
    rows = [
        f"| [`{one.name}`][{one.path}] | `{d.package}` | {prose(one.summary)} |"
        for one, d in sorted(found, key=lambda pair: (pair[0].name.lower(), pair[1].name))
    ]
    table = ["| name | package | what it is |", "|---|---|---|", *rows]
    return "\n".join([f"{HEAD}# All public names", "", *table, ""])
