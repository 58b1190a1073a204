"""Search: the layers and their order, golden queries on a small index, and names that nothing answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwindex import Entry, search, suggest
from kwindex.rank import Query, match_qualified, match_short
from kwindex.spelling import edits, fold, short, subtokens


def entry(name: str, kind: str = "function", file: str = "lib/m.py", summary: str = "") -> Entry:
    return Entry(name, kind, file, 1, 2, short(name), summary)


INDEX = [
    entry("lib.collectives.all_reduce", summary="Adds the tensors of all ranks."),
    entry("lib.collectives.all_reduce_", summary="The same in place."),
    entry("lib.collectives._all_reduce"),
    entry("lib.collectives.all_reduce_coalesced"),
    entry("lib.collectives.all_gather_into_tensor", summary="Concatenates along a dimension."),
    entry("lib.collectives._all_gather_into_tensor"),
    entry("lib.collectives.all_gather_tensor"),
    entry("lib.collectives.reduce_scatter_tensor"),
    entry("lib.collectives.all_to_all_single"),
    entry("lib.collectives.wait_tensor"),
    entry("lib.tensor.AsyncCollectiveTensor", "class"),
    entry("lib.tensor.AsyncCollectiveTensor.wait", "method"),
    entry("lib.tensor.AsyncCollectiveTensor.completed", "field"),
    entry("lib.mesh.DeviceMesh", "class"),
    entry("lib.lowering.register._all_reduce_", "nested function"),
    entry("mine::all_reduce_", "lowering"),
    entry("lib.other.all_reduce", "import"),
    entry("lib.other.np", "import"),
    entry("test_m.all_reduce", file="tests/test_m.py"),
]

GOLDEN = [
    ("lib.collectives.all_reduce", "lib.collectives.all_reduce", "exact qualified name"),
    ("all_reduce", "lib.collectives.all_reduce", "exact name"),
    ("all_reduce(x, 'sum')", "lib.collectives.all_reduce", "exact name"),
    ("_all_reduce", "lib.collectives._all_reduce", "exact name"),
    ("@lib.collectives.all_reduce", "lib.collectives.all_reduce", "exact qualified name"),
    ("await all_reduce(x, group=(1, 2))", "lib.collectives.all_reduce", "exact name"),
    ("with lib.tensor.AsyncCollectiveTensor(x):", "lib.tensor.AsyncCollectiveTensor", "exact qualified name"),
    ("from lib.collectives import wait_tensor as w", "lib.collectives.wait_tensor", "exact qualified name"),
    ("import lib.mesh.DeviceMesh", "lib.mesh.DeviceMesh", "exact qualified name"),
    ("DeviceMesh = None", "lib.mesh.DeviceMesh", "exact name"),
    ("export all_reduce=1", "lib.collectives.all_reduce", "exact name"),
    ("os.environ['all_reduce']", "lib.collectives.all_reduce", "exact name"),
    ("torch.ops.mine.all_reduce_.default", "mine::all_reduce_", "exact qualified name"),
    ("torch.ops.mine.all_reduce_", "mine::all_reduce_", "exact qualified name"),
    ("torch.ops.mine.all_red", "mine::all_reduce_", "beginning of the qualified name's end"),
    ("np", "lib.other.np", "exact name"),
    ("allreduce", "lib.collectives.all_reduce", "same letters, other spelling"),
    ("AllReduce", "lib.collectives.all_reduce", "same letters, other spelling"),
    ("all reduce", "lib.collectives.all_reduce", "same letters, other spelling"),
    ("devicemesh", "lib.mesh.DeviceMesh", "same letters, other spelling"),
    ("psum", "lib.collectives.all_reduce", "synonym: psum means all_reduce"),
    ("AR", "lib.collectives.all_reduce", "synonym: AR means all_reduce"),
    ("a2a", "lib.collectives.all_to_all_single", "synonym: a2a means all_to_all_single"),
    (
        "lax.psum_scatter",
        "lib.collectives.reduce_scatter_tensor",
        "synonym: lax.psum_scatter means reduce_scatter_tensor",
    ),
    ("hvd.allreduce", "lib.collectives.all_reduce", "synonym: hvd.allreduce means all_reduce"),
    ("ncclAllReduce", "lib.collectives.all_reduce", "synonym: ncclAllReduce means all_reduce"),
    ("lax.pmean", "lib.collectives.all_reduce", "synonym: lax.pmean means all_reduce"),
    (
        "MPI_All_to_all_single",
        "lib.collectives.all_to_all_single",
        "synonym: MPI_All_to_all_single means all_to_all_single",
    ),
    ("all_red", "lib.collectives.all_reduce", "the name starts with it"),
    ("asynccoll", "lib.tensor.AsyncCollectiveTensor", "the name starts with it"),
    ("Tensor.wait", "lib.tensor.AsyncCollectiveTensor.wait", "end of the qualified name"),
    ("asynccollectivetensor.wait", "lib.tensor.AsyncCollectiveTensor.wait", "end of the qualified name"),
    (
        "AsyncCollectiveTensor.comp",
        "lib.tensor.AsyncCollectiveTensor.completed",
        "beginning of the qualified name's end",
    ),
    ("mine::all_reduce_", "mine::all_reduce_", "exact qualified name"),
    ("gather tensor", "lib.collectives.all_gather_tensor", "words of the name"),
    ("gath into", "lib.collectives.all_gather_into_tensor", "words of the name"),
    ("tensor gather", "lib.collectives.all_gather_tensor", "words of the name, other order"),
    ("agit", "lib.collectives.all_gather_into_tensor", "initials"),
    ("act", "lib.tensor.AsyncCollectiveTensor", "synonym: act means AsyncCollectiveTensor"),
    ("allgit", "lib.collectives.all_gather_into_tensor", "initials and word beginnings"),
    ("agi", "lib.collectives.all_gather_into_tensor", "first initials"),
    ("mesh device", "lib.mesh.DeviceMesh", "words of the name, other order"),
    ("mesh.device", "lib.mesh.DeviceMesh", "beginning of the qualified name's end"),
    ("collectives.scatter", "lib.collectives.reduce_scatter_tensor", "words of the qualified name"),
    ("async completed", "lib.tensor.AsyncCollectiveTensor.completed", "words of the qualified name"),
    ("mine", "mine::all_reduce_", "inside what is named so"),
    ("llectiv", "lib.tensor.AsyncCollectiveTensor", "inside the name"),
    ("all_redcue", "lib.collectives.all_reduce", "near spelling: one letter differs"),
    ("DeviceMehs", "lib.mesh.DeviceMesh", "near spelling: one letter differs"),
    ("gahter tenosr", "lib.collectives.all_gather_tensor", "near spelling of words of the name"),
    ("concatenates", "lib.collectives.all_gather_into_tensor", "in the summary"),
]


@pytest.mark.parametrize(("query", "name", "why"), GOLDEN)
def test_golden_query(query: str, name: str, why: str) -> None:
    hit = search(query, INDEX)[0]
    assert (hit.entry.name, hit.why) == (name, why)


def test_order_of_one_query_through_the_layers() -> None:
    names = [hit.entry.name for hit in search("all_reduce", INDEX, limit=20)]
    assert names == [
        "lib.collectives.all_reduce",
        "test_m.all_reduce",
        "lib.collectives.all_reduce_",
        "mine::all_reduce_",
        "lib.collectives._all_reduce",
        "lib.lowering.register._all_reduce_",
        "lib.collectives.all_reduce_coalesced",
        "lib.other.all_reduce",
    ]


def test_a_leading_underscore_asks_for_what_is_private() -> None:
    assert search("_all_gather", INDEX)[0].entry.name == "lib.collectives._all_gather_into_tensor"
    assert search("all_gather_in", INDEX)[0].entry.name == "lib.collectives.all_gather_into_tensor"


def test_a_definition_comes_before_an_import_of_it() -> None:
    kinds = [hit.entry.kind for hit in search("all_reduce", INDEX, limit=20)]
    assert kinds.index("import") == len(kinds) - 1


def test_scores_fall_and_reasons_are_never_empty() -> None:
    hits = search("all", INDEX, limit=20)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.why for hit in hits)


def test_the_order_of_the_entries_does_not_matter() -> None:
    assert search("tensor", INDEX, 20) == search("tensor", INDEX[::-1], 20)


def test_what_is_inside_comes_before_a_name_that_only_holds_the_letters() -> None:
    names = [hit.entry.name for hit in search("mesh", [entry("lib.remeshing"), entry("lib.mesh.f")])]
    assert names == ["lib.mesh.f", "lib.remeshing"]


def test_limit() -> None:
    assert [len(search("all", INDEX, limit)) for limit in (1, 3)] == [1, 3]


@pytest.mark.parametrize("query", ["zzqx", "frobnicate", "::", ".", "_", "é", "()"])
def test_what_nothing_answers(query: str) -> None:
    assert search(query, INDEX) == []


def test_suggestions_share_letters_or_words() -> None:
    assert suggest("scatter_everything", INDEX) == ["reduce_scatter_tensor"]
    assert suggest("zzqx", INDEX) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("all_gather_into_tensor", ["all", "gather", "into", "tensor"]),
        ("AsyncCollectiveTensor", ["async", "collective", "tensor"]),
        ("HTTPServer2D", ["http", "server2", "d"]),
        ("__init__", ["init"]),
        ("FSDP2", ["fsdp2"]),
        ("RANK_TYPES", ["rank", "types"]),
        ("étéBleu", ["été", "bleu"]),
        ("_", []),
    ],
)
def test_words_of_names(name: str, words: list[str]) -> None:
    assert subtokens(name) == words


identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,15}", fullmatch=True)


@given(identifiers)
def test_every_name_finds_itself_in_the_first_layer(name: str) -> None:
    match = match_short(Query.of(name), name)
    assert match is not None
    assert match.why == "exact name"
    qualified = match_qualified(Query.of(f"pkg.{name}"), f"pkg.{name}")
    assert qualified is not None
    assert qualified.why == "exact qualified name"


@given(identifiers.filter(fold))
def test_a_name_is_found_by_its_folded_form_and_by_its_words(name: str) -> None:
    assert match_short(Query.of(fold(name)), name) is not None
    assert match_short(Query.of(" ".join(subtokens(name))), name) is not None


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_edits_is_symmetric_and_zero_for_equal_words_alone(left: str, right: str) -> None:
    assert edits(left, right, 6) == edits(right, left, 6)
    assert (edits(left, right, 6) == 0) == (left == right)
    assert min(edits(left, right, 6), 3) == edits(left, right, 2)


@given(st.text(max_size=30))
def test_any_text_is_a_query(text: str) -> None:
    assert isinstance(search(text, INDEX), list)
    assert isinstance(suggest(text, INDEX), list)
