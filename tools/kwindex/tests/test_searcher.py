"""The fast search against its definition, filters, quotes, pasted messages, and imports shown once."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kwindex
from kwindex import Entry, Hit, KwindexError, Searcher, build, paths, read_index
from kwindex.kinds import TABLE, UNNAMED
from kwindex.link import is_definition
from kwindex.rank import (
    PART,
    TYPO,
    Match,
    NearWord,
    Query,
    allowed_edits,
    match_qualified,
    match_short,
    standing,
)
from kwindex.spelling import edits, fold, segments, short, subtokens

Index = Callable[[str], list[Entry]]
WORDS = ["all", "reduce", "Tensor", "_", "x", "2", "gather", "to", "wait", "é", "RE"]
names = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(lambda words: "_".join(words).strip("_") or "_")
qualified = st.lists(names, min_size=1, max_size=4).map(".".join) | st.tuples(names, names, names).map(
    lambda parts: f"{parts[0]}::{parts[1]}.{parts[2]}"
)
entries = st.builds(
    Entry,
    qualified,
    st.sampled_from([kind.word for kind in TABLE if kind.named]),
    st.sampled_from(["m.py", "tests/test_m.py"]),
    st.integers(1, 3),
    st.just(3),
    st.just(""),
    st.sampled_from(["", "Adds up.", "all waits"]),
)
letters = st.text("alredugthxT_ .:2é", max_size=10)


def linear(text: str, entries: list[Entry], limit: int) -> list[tuple[Entry, int]]:
    """Returns the entries and their scores, of imports of one name the best alone; looks at no message."""
    query = Query.of(text)
    named = [entry for entry in entries if entry.kind not in UNNAMED]
    hits = [*_by_path(query, entries), *_by_name(query, named)] or list(_by_typo(query, named))
    hits.sort(key=lambda hit: (hit.score, hit.entry.summary != "", hit.entry), reverse=True)
    hits = [*{(hit.entry[:3] if is_definition(hit.entry) else hit.entry): hit for hit in reversed(hits)}.values()]
    hits.sort(key=lambda hit: (-hit.score, len(hit.entry.name), hit.entry))
    shown: dict[Entry, int] = {}
    imported: set[str] = set()
    for hit in hits:
        name = short(hit.entry.name)
        if hit.entry.kind != "import" or name not in imported:
            shown.setdefault(hit.entry, hit.score)
        if hit.entry.kind == "import":
            imported.add(name)
    return [*shown.items()][:limit]


def _by_path(query: Query, entries: list[Entry]) -> Iterator[Hit]:
    """What imports lead to has tests of its own."""
    searcher = Searcher(entries)
    path = paths.Path(searcher.paths, query)
    for numbers, name, match in [*path.whole(), *path.begun()]:
        for entry in map(searcher.entries.__getitem__, numbers):
            points = match.points + standing(query, entry)
            assert short(entry.name) == short(name)
            yield Hit(entry, points, match.why)


def _by_name(query: Query, entries: list[Entry]) -> Iterator[Hit]:
    for entry in entries:
        name = short(entry.name)
        match = match_short(query, name)
        if name == query.text or len(query.parts) > 1 or " " in query.text:
            match = match_qualified(query, entry.name) or match
        if match is None or match.points < PART:
            inside = query.folded and any(query.folded == fold(part) for part in segments(entry.name[: -len(name)]))
            match = Match(PART, "inside") if inside else match
        if match is not None:
            yield Hit(entry, match.points + standing(query, entry), match.why)


def _by_typo(query: Query, entries: list[Entry]) -> Iterator[Hit]:
    allowed = allowed_edits(query.folded)
    near = [NearWord(word) for word in query.words]
    for entry in entries:
        name = short(entry.name)
        differing = edits(query.folded, fold(name), allowed) if allowed else 1
        if differing <= allowed:
            yield Hit(entry, TYPO - 20 * differing + standing(query, entry), "near")
        elif len(near) > 1 and all(any(word.is_near(token) for token in subtokens(name)) for word in near):
            yield Hit(entry, TYPO - 50 + standing(query, entry), "near words")


def assert_equal(searcher: Searcher, query: str, limit: int) -> None:
    """Holds the search against its definition; words of summaries have tests of their own."""
    hits = searcher.search(query, limit)
    fast = [] if any("summary" in hit.why for hit in hits) else [(hit.entry, hit.score) for hit in hits]
    if fast or not hits:
        assert fast == linear(query, list(searcher.entries), limit), query


@settings(max_examples=150, deadline=None)
@given(st.lists(entries, max_size=25, unique=True), st.one_of(letters, names, qualified), st.integers(1, 6))
def test_fast_search_equals_its_definition(index: list[Entry], query: str, limit: int) -> None:
    if query.strip():
        assert_equal(Searcher(index), query, limit)


def spoiled(rng: random.Random, name: str) -> str:
    """Returns a query that someone who knows the name might type."""
    last = short(name)
    tokens = subtokens(last) or ["x"]
    parts = segments(name)
    place = rng.randrange(len(last)) if last else 0
    return rng.choice(
        [
            last,
            fold(last),
            last[: rng.randint(1, max(1, len(last)))],
            last[place : place + 4],
            "".join(token[0] for token in tokens),
            "".join(token[: rng.randint(1, 3)] for token in tokens),
            " ".join(rng.sample(tokens, min(2, len(tokens)))),
            last[:place] + rng.choice("aeiou_") + last[place + 1 :],
            ".".join(parts[-2:]),
            ".".join(parts[-3:])[:-1],
            f"{rng.choice(parts)} {rng.choice(tokens)[:4]}",
            rng.choice(parts),
        ]
    )


@pytest.fixture(scope="module")
def searcher(originals: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    out = tmp_path_factory.mktemp("searcher")
    build([*originals, Path(kwindex.__file__).parent], out)
    return Searcher(entry for entry in read_index(out) if entry.kind not in ("error", "deprecation"))


def test_fast_search_equals_its_definition_on_real_names(searcher: Searcher) -> None:
    rng = random.Random(11)
    for _ in range(60):
        query = spoiled(rng, rng.choice(searcher.entries).name).strip()
        if query:
            assert_equal(searcher, query, rng.choice([1, 3, 10]))


SOURCE = (
    "import os\nfrom a import thing\n"
    "class Mesh:\n    '''A grid.'''\n    def size(self): ...\n    def sizes(self): ...\n"
    "def size(n):\n    if n:\n        raise ValueError(f'need {n} ranks in the group, got {os.environ[\"SIZE\"]}')\n"
    "    raise RuntimeError('the group is gone for good')\n"
)


def found(index: list[Entry], query: str) -> list[tuple[str, str]]:
    return [(hit.entry.name, hit.entry.kind) for hit in Searcher(index).search(query)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("kind:func size", [("m.size", "function")]),
        ("size kind:method", [("m.Mesh.size", "method"), ("m.Mesh.sizes", "method")]),
        ('kind:"environment variable"', [("SIZE", "environment variable")]),
        ("kind:env size", [("SIZE", "environment variable")]),
        ("kind:errors size", [("m.size", "error"), ("m.size", "error")]),
        ("kind:class in:M.PY", [("m.Mesh", "class")]),
        ("kind:class in:n.py", []),
        ("kind:class pkg:m", [("m.Mesh", "class")]),
        ("kind:class pkg:m.Mesh.size", []),
        ('"size"', [("m.size", "function"), ("m.Mesh.size", "method")]),
        ('"Mesh.size"', [("m.Mesh.size", "method")]),
        ('"siz"', []),
        ("ValueError: need 3 ranks in the group, got 4 (why)", [("m.size", "error")]),
        ("need 3 ranks\n in the GROUP, got None", [("m.size", "error")]),
        ("group is gone for", [("m.size", "error")]),
    ],
)
def test_filters_quotes_and_messages(entries_of: Index, query: str, expected: list[tuple[str, str]]) -> None:
    assert found(entries_of(SOURCE), query) == expected


def test_a_kind_that_there_is_not() -> None:
    with pytest.raises(KwindexError, match=r"kind:colour names no kind of entry; the kinds are module, class"):
        Searcher([]).search("kind:colour x")


def test_an_operator_is_no_filter(entries_of: Index) -> None:
    index = entries_of("lib = torch.library.Library('kind', 'DEF')\nlib.define('add(Tensor x) -> Tensor')\n")
    assert found(index, "kind::add")[0] == ("kind::add", "op")


def test_many_imports_of_a_name_are_one_hit_below_its_definition(tree: Callable[..., Path], tmp_path: Path) -> None:
    users = {f"u{i}.py": "from d import all_reduce\n" for i in range(30)}
    build([tree({"d.py": "def all_reduce(): ...\n", **users})], tmp_path / "out")
    hits = Searcher(read_index(tmp_path / "out")).search("all_reduce")
    assert [(hit.entry.name, hit.why) for hit in hits] == [
        ("d.all_reduce", "exact name"),
        ("u0.all_reduce", "exact name; one of 30 imports of that name"),
    ]


def test_a_lower_layer_is_looked_at_while_what_stands_well_in_it_may_be_better() -> None:
    far = Entry("m._gather" + "x" * 60, "function", "tests/m.py", 1, 1, "", "")
    near = Entry("m.all_gather", "function", "m.py", 1, 1, "", "")
    assert [hit.entry for hit in Searcher([far, near]).search("gather", 1)] == [near]


def test_a_package_has_what_is_registered_and_read_in_its_files() -> None:
    rows = [
        ("c10d::sum", "lowering", "src/lib/inner/low.py"),
        ("c10d::sum", "gradient", "src/other/lib2/low.py"),
        ("LEVEL", "environment variable", "src/lib/__init__.py"),
        ("lib.f", "function", "elsewhere.py"),
        ("g", "function", "src/lib/g.py"),
    ]
    searcher = Searcher([Entry(name, kind, file, 1, 1, "", "") for name, kind, file in rows])
    for package, wanted in (
        ("lib", ["c10d::sum", "LEVEL", "lib.f"]),
        ("lib.inner", ["c10d::sum"]),
        ("lib.inner.low", ["c10d::sum"]),
        ("li", []),
    ):
        assert sorted((hit.entry.name for hit in searcher.search(f"pkg:{package}")), key=str.lower) == wanted


OVERLOADS = """
from typing import overload
@overload
def to(x: int) -> int: ...
@overload
def to(x: str) -> str: ...
def to(x):
    'Converts.'
if FAST:
    def run(): ...
else:
    def run(): ...
class C:
    @property
    def size(self):
        'How large it is.'
    @size.setter
    def size(self, value): ...
"""


def test_of_overloads_one_is_shown_which_says_what_it_does(entries_of: Index) -> None:
    searcher = Searcher(entries_of(OVERLOADS))
    found = {
        query: [(hit.entry.line, hit.why) for hit in searcher.search(query)]
        for query in ("to", "m.to", "run", "C.size", "int -> int")
    }
    assert found == {
        "to": [(7, "exact name; one of 3 definitions of it")],
        "m.to": [(7, "exact qualified name; one of 3 definitions of it")],
        "run": [(12, "exact name; one of 2 definitions of it")],
        "C.size": [(15, "end of the qualified name; one of 2 definitions of it")],
        "int -> int": [(4, "these types; one of 3 definitions of it")],
    }


def test_an_operator_without_a_name_is_no_reason_to_fail() -> None:
    assert Searcher([Entry("0::.", "op", "m.py", 1, 1, "", "")]).search("a.b") == []
