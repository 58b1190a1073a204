"""The search palette of the site: its scripts, and the index that they search, with the place of each entry."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import griffe

from kwindex import Entry
from kwindex.pages.tree import has_anchor
from kwindex.web import BY_NAME, IN_FILE, IN_FILE_AND_LINE, PAGE, SCRIPTS, STYLE, Address, asset, payload

from .doors import load
from .index import Index
from .originals import is_original
from .reference import door_page, module_page
from .sources import GENERATED, Distribution, Module, Output

FOLDER = "docs/assets/palette"


def files(index: Index, distributions: list[Distribution]) -> list[Output]:
    """Everything that the palette loads."""
    made = payload(index.entries, addresses(index, distributions))
    head = f"/* {GENERATED} */\n"
    own = [Output(f"{FOLDER}/{name}", head + asset(name), committed=False) for name in (*SCRIPTS, STYLE)]
    texts = {"names": head + made.names, **made.parts}  # of a small part the head would be a good part
    return own + [Output(f"{FOLDER}/{name}.js", f"{text};\n", committed=False) for name, text in texts.items()]


def addresses(index: Index, distributions: list[Distribution]) -> Callable[[Entry], Address]:
    """How the site shows each entry: torch's on the pages made by kwindex, ours in the reference."""
    shown = Counter((entry.file, entry.name) for entry in index.entries if has_anchor(entry))
    modules = {module.name: (module, d) for d in distributions for module in d.modules}

    def address(entry: Entry) -> Address:
        if is_original(entry.file):
            anchor = IN_FILE_AND_LINE if shown[entry.file, entry.name] > 1 else IN_FILE
            return Address(f"originals/{entry.file}_docs/", anchor if has_anchor(entry) else PAGE)
        module, distribution = modules[index.modules[entry.file]]
        page = page_of(module, distribution)
        return Address(page, BY_NAME if is_documented(entry, module, distribution) else PAGE)

    return address


def page_of(module: Module, distribution: Distribution) -> str:
    """The page of a module; the package's own for a module without one."""
    inner = module.public and module.name != distribution.package
    return url(module_page(module) if inner else door_page(distribution))


def url(page: str) -> str:
    """Where a page is on the site."""
    return page.removesuffix("index.md") if page.endswith("index.md") else page.removesuffix(".md") + "/"


def is_documented(entry: Entry, module: Module, distribution: Distribution) -> bool:
    """Whether the reference shows an entry: a public definition that griffe sees, on a page with its members."""
    inside = entry.name.removeprefix(f"{module.name}.").split(".")
    if not module.public or module.name == distribution.package or any(part.startswith("_") for part in inside):
        return False
    found: griffe.Object | griffe.Alias = load(module.name.partition(".")[0], distribution.where)
    for part in entry.name.split(".")[1:]:
        if part not in found.members or found.members[part].is_alias:
            return False
        found = found.members[part]
    return has_anchor(entry)


def dead(site: Path, index: Index, distributions: list[Distribution]) -> list[str]:
    """The entries whose page or anchor the built site lacks."""
    address = addresses(index, distributions)
    found = []
    for entry in index.entries:
        place = address(entry)
        ids = ids_of(site / place.page / "index.html")
        inside = entry.name.removeprefix(f"{index.modules[entry.file]}.")
        anchor = {PAGE: "", BY_NAME: entry.name, IN_FILE: inside, IN_FILE_AND_LINE: f"{inside}-{entry.line}"}[
            place.anchor
        ]
        if ids is None or (anchor and anchor not in ids):
            found.append(f"{place.page}#{anchor} ({entry.kind} at {entry.file}:{entry.line})")
    return found


@cache
def ids_of(page: Path) -> frozenset[str] | None:
    """The anchors of a page, or None where there is no page."""
    if not page.exists():
        return None
    return frozenset(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))
