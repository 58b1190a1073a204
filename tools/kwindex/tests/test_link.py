"""What only all files together tell: imports say what they bring."""

from kwindex import Entry, Searcher
from kwindex.link import link


def entry(name: str, kind: str, text: str) -> Entry:
    return Entry(name, kind, f"{name.split('.')[0]}.py", 1, 1, text, "Adds." if kind == "function" else "")


ENTRIES = [
    entry("a.f", "function", "f()"),
    entry("b.f", "import", "from a import f"),
    entry("c.h", "import", "from b import f as h  # may be missing"),
    entry("c.n", "import", "import numpy as n"),
    entry("d.x", "import", "from e import x"),
    entry("e.x", "import", "from d import x"),
]
EXPECTED = {"a.f": "Adds.", "b.f": "Adds.", "c.h": "Adds.", "c.n": "", "d.x": "", "e.x": ""}


def test_imports_say_what_they_bring_through_modules_that_hand_it_on_and_circles_end() -> None:
    assert {linked.name: linked.summary for linked in link(ENTRIES)} == EXPECTED


def test_hits_say_the_same_as_the_whole_index() -> None:
    searcher = Searcher(ENTRIES)
    assert [searcher.linked(some) for some in ENTRIES] == link(ENTRIES)
    assert searcher.search("kind:import h")[0].entry.summary == "Adds."


def test_the_order_stays() -> None:
    assert [linked.name for linked in link(ENTRIES)] == list(EXPECTED)


def test_an_import_does_not_bring_what_only_bears_the_name() -> None:
    """A key that another file reads, or an operator, is called like a definition and is none."""
    read = Entry("a.config.level", "config key", "0.py", 1, 1, "config.level", "read in f")
    rows = [
        read,
        entry("a.config.level", "function", "level()"),
        entry("b.level", "import", "from a.config import level"),
    ]
    assert link(rows)[2].summary == "Adds."
    assert Searcher(rows).linked(rows[2]).summary == "Adds."
    alone = [read, rows[2]]
    assert link(alone)[1].summary == Searcher(alone).linked(alone[1]).summary == ""
