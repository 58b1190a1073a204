"""The fields of named tuples that a call makes."""

from collections.abc import Callable

import pytest

from kwindex import Entry

HEAD = "import collections\nfrom collections import namedtuple\nimport typing as t\nfrom typing import NamedTuple\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Row = namedtuple('Row', 'a b')", ["a", "b"]),
        ("Row = collections.namedtuple('Other', 'a, b,c', defaults=(1,))", ["a", "b", "c"]),
        ("Row = namedtuple('Row', ['a', 'b'])", ["a", "b"]),
        ("Row = namedtuple('Row', field_names=('a',))", ["a"]),
        ("Row = NamedTuple('Row', [('a', int), ('b', 'Row | None')])", ["a: int", "b: 'Row | None'"]),
        ("Row = t.NamedTuple('Row', (('a', list[int]),))", ["a: list[int]"]),
        ("Row = namedtuple('Row', names)", []),
        ("Row = namedtuple('Row', ['a', b])", []),
        ("Row = namedtuple('Row', [*names, 'a'])", []),
        ("Row = namedtuple('Row', 'a class', rename=True)", []),
        ("Row = namedtuple('Row', 'a a')", []),
        ("Row = namedtuple('Row', 'a', **more)", []),
        ("Row = other.namedtuple('Row', 'a')", []),
        ("def namedtuple2(): ...\nRow = namedtuple2('Row', 'a')", []),
        ("Row = NamedTuple('Row', [('a', int), pair])", []),
        ("Row = Other = namedtuple('Row', 'a')", []),
        ("def f():\n    Row = namedtuple('Row', 'a')", []),
    ],
)
def test_fields_that_a_call_tells_for_sure_are_listed(
    entries_of: Callable[[str], list[Entry]], text: str, found: list[str]
) -> None:
    fields = [entry for entry in entries_of(f"{HEAD}{text}\n") if entry.kind == "field"]
    assert [entry.signature for entry in fields] == found
    assert [entry.name for entry in fields] == [f"m.Row.{one.partition(':')[0]}" for one in found]
