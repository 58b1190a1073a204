"""Concepts: titled notes of comments and docstrings, and where files refer to them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import Entry, Searcher, build, read_index
from kwindex.pages import page_texts, places_at, tree_of

Index = Callable[[str], list[Entry]]

TEXT = '''"""What it is.

Note [Two grids]
~~~~~~~~~~~~~~~~

Every rank stands in two grids. The second one
is for replicas.

NOTE [ The last one ]: it ends here.
Really.
"""

# Note [Waits are late]
# ~~~~~~~~~~~~~~~~~~~~~
# A wait comes as late as
# possible, e.g. at the first use. So it hides.
#
# More of it.
#
# Note [Waits that are early]
# These are rare.

def f():
    # See Note [Two grids] and NOTE [ Waits are late ].
    x = 1  # as in Note [Two grids]
    # it is told in
    # Note [Two grids]
    return x  # Note [Two grids]

class A:
    """Does it. See Note [Waits are late]."""

    def g(self):
        """Note [Inside a method]: one line is enough."""
        raise ValueError("it is so (See Note [Not in a string])")
    y = """
Note [Not in a docstring]
It is a value.
# Note [Not in a comment]
# It only looks so.
"""

"""
Note [A block of its own]
It documents, and nothing takes it.
"""
'''


def rows(entries: list[Entry], kind: str) -> list[tuple[str, int, int, str, str]]:
    return [(e.name, e.line, e.end_line, e.signature, e.summary) for e in entries if e.kind == kind]


def test_titled_notes_are_concepts(entries_of: Index) -> None:
    assert rows(entries_of(TEXT), "concept") == [
        ("m.Two grids", 3, 7, "Note [Two grids]", "Every rank stands in two grids."),
        ("m.The last one", 9, 10, "Note [The last one]", "it ends here."),
        (
            *("m.Waits are late", 13, 18, "Note [Waits are late]"),
            "A wait comes as late as possible, e.g. at the first use.",
        ),
        ("m.Waits that are early", 20, 21, "Note [Waits that are early]", "These are rare."),
        ("m.Inside a method", 34, 34, "Note [Inside a method]", "one line is enough."),
        ("m.A block of its own", 44, 45, "Note [A block of its own]", "It documents, and nothing takes it."),
    ]


def test_what_a_file_refers_to_is_listed_once(entries_of: Index) -> None:
    assert rows(entries_of(TEXT), "mention") == [
        ("m.Two grids", 24, 24, "Note [Two grids]", "in f"),
        ("m.Waits are late", 24, 24, "Note [Waits are late]", "in f, A"),
    ]


def test_two_notes_of_one_title_are_two_concepts(entries_of: Index) -> None:
    text = "# Note [Same]\n# One.\nx = 1\n# Note [Same]\n# Another.\n"
    assert [row[-1] for row in rows(entries_of(text), "concept")] == ["One.", "Another."]


@pytest.mark.parametrize(
    "text",
    [
        "# Note [not closed\n# It goes on.\n",
        "# Note [a [b]\n# It goes on.\n",
        "# Note []\n# It goes on.\n",
        "# Note [[0, 1]]\n# It goes on.\n",
        "# Note [alone]\nx = 1\n",
        "# A Note [in words]\n# It goes on.\n",
        "Note [code]\n",
        'd["#"] = Note [code]\n',
        "f'''\nNote [{x}]\nIt goes on.\n'''\n",
        "x = '''\n# Note [a value]\n# It goes on.\n'''\n",
    ],
)
def test_what_is_no_note_is_none(entries_of: Index, text: str) -> None:
    assert rows(entries_of(text), "concept") == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_note_ends_with_its_block_whatever_ends_its_lines(entries_of: Index, end: str) -> None:
    text = "é = 'é'  # Note [Far off]\n# Note [Ünique, l[0]]:\n# Says {it}.\n\n# Not this.\n".replace("\n", end)
    assert rows(entries_of(text), "concept") == [("m.Ünique, l[0]", 2, 3, "Note [Ünique, l[0]]", "Says {it}.")]
    assert [row[0] for row in rows(entries_of(text), "mention")] == ["m.Far off"]


def test_an_underlined_title_needs_no_empty_line_before_it(entries_of: Index) -> None:
    text = "# Ends.\n# Note [One]\n# ======\n# Says.\n# Note [Two]\n# ~~~~~~\n# Tells.\n# Note [No title]\n# as here.\n"
    assert [(*row[:3], row[-1]) for row in rows(entries_of(text), "concept")] == [
        ("m.One", 2, 4, "Says."),
        ("m.Two", 5, 9, "Tells."),
    ]
    assert [row[0] for row in rows(entries_of(text), "mention")] == ["m.No title"]


def test_dots_of_a_title_are_no_dots_of_the_name(entries_of: Index) -> None:
    (found,) = rows(entries_of("# Note [torch.compile x a::b capturable]\n# It is.\n"), "concept")
    assert found[0] == "m.torch compile x a b capturable"
    assert found[3] == "Note [torch.compile x a::b capturable]"


QUERIES = {
    "Waits are late": "exact name",
    "waits_are_late": "same letters, other spelling",
    "waits are la": "the name starts with it",
    "late waits": "words of the name, other order",
    "kind:concept late": "words of the name",
    "Note [Waits are late]": "exact name",
    "    # See NOTE [ waits are late ].": "same letters, other spelling",
    "see also Note [Waits are la": "the name starts with it",
    "kind:concept": "passes the filters",
    "comes as late as possible": "in the summary",
}


@pytest.mark.parametrize(("query", "why"), QUERIES.items())
def test_a_note_is_found_by_its_title_and_what_it_says(entries_of: Index, query: str, why: str) -> None:
    hits = Searcher(entries_of(TEXT)).search(query)
    first = next(hit for hit in hits if hit.entry.name == "m.Waits are late")
    assert (first.entry.kind, first.why) == ("concept", why)


def test_a_pasted_note_is_asked_of_notes_alone_and_comes_before_those_who_refer_to_it(entries_of: Index) -> None:
    searcher = Searcher(entries_of("def same(): ...  # see Note [same]\n# Note [same]\n# It is.\n"))
    assert [hit.entry.kind for hit in searcher.search("same")] == ["function", "concept", "mention"]
    assert [hit.entry.kind for hit in searcher.search("See Note [same]")] == ["concept", "mention"]


def test_a_title_of_many_words_is_a_name(entries_of: Index) -> None:
    title = "How one may find out that two rows of ten columns are the same one"
    searcher = Searcher(entries_of(f"# Note [{title}]\n# It is.\ndef find_columns(): ...\n"))
    for query in (title, title.lower(), f"See Note [{title}]"):
        assert searcher.search(query)[0].entry.signature == f"Note [{title}]"


def test_pages_show_notes_with_who_refers_to_them(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a.py").write_text("# Note [<b>*x* |`] (c)]\n# No.\n#\n# Note [<script>*x* | `y`]\n# Says <i>it</i>.\n")
    (root / "b.py").write_text("# Note [<script>*x* | `y`] (c\n\n# see Note [<script>*x* | `y`]\nx = 1\n")
    assert build([root], tmp_path / "out").problems == []
    pages = dict(page_texts(tree_of([root], read_index(tmp_path / "out")), places_at("")))
    (row,) = (line for line in pages["a.py_docs.md"].splitlines() if "Says" in line)
    title = "<code>&lt;script&gt;&#42;x&#42; &#124; &#96;y&#96;</code>"
    assert row == f"| {title} | Says &lt;i&gt;it&lt;/i&gt;. | line 4 | [`b.py`](b.py_docs.md) |"
    for page in ("a.py_kw.md", "sub.md", "keywords/other.md"):
        assert title in pages[page]
    assert "<script" not in "".join(pages.values())
    assert "Refers to" in pages["b.py_docs.md"]
    assert title not in pages["b.py_kw.md"].partition("## Mentions")[0]


def test_the_notes_of_torch_are_found(torch_folder: Path, tmp_path: Path) -> None:
    built = build([torch_folder / "_functorch", torch_folder / "_inductor"], tmp_path / "out")
    entries = read_index(built.path.parent)
    concepts = {entry.signature for entry in entries if entry.kind == "concept"}
    assert "Note [AOT Autograd: outputs aliasing inputs or intermediates!]" in concepts
    assert "Note [lowering-time collective optimization]" in concepts
    assert len(concepts) >= 20
    hits = Searcher(entries).search("See Note [Recomputing collectives in the partitioner]")
    assert [hit.entry.kind for hit in hits][:2] == ["concept", "mention"]
