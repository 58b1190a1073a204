"""The link stage: one order, and imports that say what they bring."""

import itertools

from kwindex import Entry
from kwindex.link import link
from kwindex.model import FileRecord


def record(module: str, *entries: tuple[str, str, int, str], targets: tuple[tuple[int, str], ...] = ()) -> FileRecord:
    file = f"{module}.py"
    made = [Entry(f"{module}.{name}", kind, file, line, line, name, text) for name, kind, line, text in entries]
    return FileRecord(file, module, made, list(targets))


RECORDS = [
    record("a", ("g", "function", 9, "Later."), ("f", "function", 1, "Adds.")),
    record("b", ("f", "import", 1, ""), targets=((0, "a.f"),)),
    record("c", ("h", "import", 1, ""), ("n", "import", 2, ""), targets=((0, "b.f"), (1, "numpy"))),
    record("d", ("x", "import", 1, ""), targets=((0, "e.x"),)),
    record("e", ("x", "import", 1, ""), targets=((0, "d.x"),)),
]


def test_entries_come_in_the_order_of_files_and_lines_whatever_the_order_of_records() -> None:
    expected = ["a.f", "a.g", "b.f", "c.h", "c.n", "d.x", "e.x"]
    for records in itertools.permutations(RECORDS):
        assert [entry.name for entry in link(records)] == expected


def test_imports_say_what_they_bring_through_modules_that_hand_it_on() -> None:
    summaries = {entry.name: entry.summary for entry in link(RECORDS)}
    assert (summaries["b.f"], summaries["c.h"], summaries["c.n"]) == ("Adds.", "Adds.", "")


def test_imports_in_a_circle_end() -> None:
    assert [entry.summary for entry in link(RECORDS[3:])] == ["", ""]
