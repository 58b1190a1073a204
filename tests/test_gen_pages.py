"""The pages made from runs and from code: pictures show what the ranks held, and messages are those that are raised."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

import functional_collectives
from comm_core import Collective, Missing, World, catalog, run
from comm_core.errors import CommError, ShapeError
from tools.gen import drift, error_page, examples, figures, life, markup, messages
from tools.gen.picture import drawn, label
from tools.gen.sources import ROOT, distributions

FUNCTIONAL = "torch/distributed/_functional_collectives.py"
RANKS, ELEMENTS = range(examples.WORLD), range(examples.ELEMENTS)


@pytest.mark.parametrize("entry", catalog.CATALOG.values(), ids=lambda entry: entry.name)
def test_a_picture_agrees_with_the_definition_on_other_numbers(entry: Collective) -> None:
    """What the picture says is in a value, multiplied out, is what the oracle gives for numbers of one's own."""
    numbers = [torch.randn(rows, dtype=torch.float64) for rows in examples.rows(entry)]
    params = [entry.check(numbers[rank], examples.WORLD, rank, **examples.parameters(entry, rank)) for rank in RANKS]
    defined = entry.oracle(numbers, params)
    for value, shown in zip(defined, examples.forward(entry).after.ranks, strict=True):
        told = [sum(times * float(numbers[rank][row]) for (rank, row), times in one.items()) for one in shown]
        torch.testing.assert_close(torch.tensor(told, dtype=torch.float64), value.reshape(-1))


@pytest.mark.parametrize("entry", catalog.CATALOG.values(), ids=lambda entry: entry.name)
def test_the_picture_of_the_gradient_is_the_transpose_of_the_other(entry: Collective) -> None:
    back = examples.backward(entry)
    if back is None:
        assert isinstance(entry.gradient, Missing)
        return
    forth = examples.forward(entry).after.ranks
    there = {(i, s): times for i in address(forth) for s, times in forth[i[0]][i[1]].items()}
    again = {(s, i): times for i in address(back.after.ranks) for s, times in back.after.ranks[i[0]][i[1]].items()}
    assert there == again
    assert there


def address(ranks: tuple[tuple[examples.Sources, ...], ...]) -> list[tuple[int, int]]:
    return [(rank, row) for rank, rows in enumerate(ranks) for row in range(len(rows))]


def test_a_picture_is_well_formed_and_holds_a_box_for_every_element() -> None:
    flow = examples.forward(catalog.ALL_GATHER)
    tree = ElementTree.fromstring(drawn(flow, "a < b", ("before", "after")))
    texts = ["".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    for rank in RANKS:
        for row in ELEMENTS:
            assert texts.count(f"{'abcd'[rank]}{row}") == 1 + examples.WORLD
    assert tree.find("{http://www.w3.org/2000/svg}title").text == "a < b"  # type: ignore[union-attr]


def test_labels_name_sums_multiples_and_nothing() -> None:
    assert label({(0, 1): 1.0, (2, 3): 0.5}) == "a1+0.5·c3"
    assert label({}) == "0"


def test_a_parameter_without_an_example_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(examples.PARAMETERS, "src")
    with pytest.raises(SystemExit, match="give PARAMETERS a value for src of broadcast"):
        examples.parameters(catalog.BROADCAST, 0)


def test_the_graph_on_the_page_is_what_is_traced() -> None:
    pages = {output.path: output.text for output in life.pages(distributions())}
    traced = pages["docs/reference/collectives/all_reduce.md"].split("## In a traced graph")[1].split("\n## ")[0]
    assert "torch.ops._c10d_functional.all_reduce.default(x_1, 'sum'" in traced
    assert "torch.ops._c10d_functional.wait_tensor.default(all_reduce)" in traced


def test_a_collectives_functions_are_public_and_the_plain_one_comes_first() -> None:
    names = [name for _, name in life.functions_of(catalog.ALL_REDUCE)]
    assert names == ["all_reduce", "all_reduce_inplace", "all_reduce_coalesced"]
    assert next(name for _, name in life.functions_of(catalog.ALL_GATHER)) == "all_gather_tensor"
    for entry in catalog.CATALOG.values():
        assert [name for _, name in life.functions_of(entry) if not hasattr(functional_collectives, name)] == []


def test_words_in_angle_brackets_stay_on_the_page(tmp_path: Path) -> None:
    assert markup.prose("`<a>` is <Cx, y> | z") == "`<a>` is &lt;Cx, y> \\| z"
    (page,) = [one for one in life.pages(distributions()) if one.path.endswith("/all_reduce.md")]
    assert "sum over ranks &lt;Cx, y> == sum over ranks &lt;x, C'y>" in page.text
    (tmp_path / "a").mkdir()
    for text in (
        "<p>of <pid of rank 0></p>",
        "<P><svg><path/></svg><script>'<no>'</script><!-- <no> --><b>x < y</b></P>",
    ):
        (tmp_path / "a/index.html").write_text(text)
        said = [line.split(" is no tag")[0] for line in markup.unknown_tags(tmp_path)]
        assert said == (["a/index.html: <pid>"] if "pid" in text else [])


def test_every_collective_has_its_figures_and_the_one_that_moves_nothing_says_that_it_has_none() -> None:
    measured = {row["name"] for row in figures.measured()["rows"]}
    assert measured == set(catalog.CATALOG) - {"wait"}
    row = next(row for row in figures.measured()["rows"] if row["name"] == "scan")
    text = "\n".join(life.benchmarks(catalog.SCAN))
    assert f"| {figures.size(row['bytes'])} | {row['shm']:,.0f} | {row['gloo']:,.0f} |" in text
    assert "No figures:" in "\n".join(life.benchmarks(catalog.WAIT))


def test_bytes_are_said_in_the_largest_unit_that_divides_them() -> None:
    assert [figures.size(count) for count in (4, 4096, 1 << 20, 3 << 19)] == ["4 bytes", "4 KiB", "1 MiB", "1536 KiB"]


def raised(group: object) -> CommError:
    with pytest.raises(ShapeError) as caught:
        run(catalog.ALL_TO_ALL, torch.ones(4), group, output_splits=[1, 3], input_splits=[1, 2])  # type: ignore[arg-type]
    return caught.value


def test_an_error_that_is_raised_fits_a_row_of_the_page() -> None:
    (error, _) = World(2).run(raised)
    rows = [one for one in messages.of_function(catalog.ALL_TO_ALL.check) if one.kind == "ShapeError"]
    fitting = [
        one for one in rows if as_pattern(one.got).fullmatch(error.got) and as_pattern(one.need).fullmatch(error.need)
    ]
    assert fitting
    fitting.sort(key=lambda one: len(re.sub(r"\{.*?\}", "", one.got + one.need)), reverse=True)  # the most literal one
    text = error_page.page().text
    assert messages.words(fitting[0].got) in text
    assert f"`{fitting[0].file}:{fitting[0].line}`" in text
    source = (ROOT / fitting[0].file).read_text(encoding="utf-8").splitlines()
    assert source[fitting[0].line - 1].strip().startswith("raise ShapeError(")


def as_pattern(template: str) -> re.Pattern[str]:
    return re.compile(".+".join(re.escape(part) for part in re.split(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", template)))


def test_every_error_class_has_a_section_and_a_builtin_beside_it() -> None:
    text = error_page.page().text
    for kind in CommError.__subclasses__():
        if kind.__module__ == "comm_core.errors":
            base = kind.__mro__[kind.__mro__.index(CommError) + 1]
            assert f"\n## {kind.__name__}\n" in text
            assert f"| [{kind.__name__}](#{kind.__name__.lower()}) | `{base.__name__}` |" in text


def test_every_error_class_says_what_to_do() -> None:
    assert list(error_page.ADVICE) == list(messages.kinds())
    text = error_page.page().text
    assert text.count("\n**What to do.** ") == len(messages.kinds())


def test_words_that_are_bound_to_a_name_first_stand_on_the_page(tmp_path: Path) -> None:
    tree = messages.syntax_tree(
        "HINT = 'try it'\ndef f(x):\n    got, need = f'{x} things', 'one thing'\n"
        "    if x:\n        need = 'two things'\n"
        "    def g(y):\n        raise ShapeError('here' if y else WHERE, got=got, need=need, hint=HINT)\n"
        "    raise ShapeError(x, got=y)\n"
    )
    first, second = sorted(messages.made(tree, "m.py", 10), key=lambda message: message.line)
    assert (first.where, first.got, first.need) == ("here", "{x} things", "one thing or two things")
    assert (first.hint, first.line) == ("try it", 17)
    assert (second.where, second.got, second.need) == ("{x}", "{y}", "")
    rows = [line for line in error_page.page().text.splitlines() if line.startswith("| `")]
    bare = [row for row in rows if re.search(r"\| `\{(?:got|need|hint)\}` \|", row)]
    assert bare == [], "what an error got or needs stands in the code, not only the name of a variable"


def test_what_is_filled_into_a_message_is_told_in_words() -> None:
    tree = messages.syntax_tree(
        "def f(x):\n    got = f'{len(xs)} of {type(x).__name__}'\n"
        "    raise ShapeError(str(where), got, f\"{f'{side} {said(xs[0])}'}\", ', '.join(sorted(names)) or 'none')\n"
        "    need = f'pad to {up(n, w) * w}'\n"
        "    raise ShapeError(f'{x.shape[dim]} in {self._world - 1}', f'{a.b.dtype} {KINDS[0]}', need)\n"
    )
    first, second = sorted(messages.made(tree, "m.py", 0), key=lambda message: message.line)
    assert (first.where, first.got) == ("{where}", "{number of xs} of {type of x}")
    assert (first.need, first.hint) == ("{side} {xs}", "{names or none}")
    assert (second.where, second.got) == ("{size of x in dim dim} in {world - 1}", "{dtype of b} {kind}")
    assert second.need == "pad to {number from n and w}"
    found = [one for file in error_page.files() for one in messages.of_file(file)]
    holes = {
        hole for one in found for word in messages.WORDS for hole in re.findall(r"\{([^{}]+)\}", getattr(one, word))
    }
    assert len(holes) > 100
    source = {hole for hole in holes if re.search(r"\w\(|['\"\\]|\b(?:for|if|self|lambda)\b|\._|__", hole)}
    assert source - {"'name': [Shard(0)]"} == set(), "the last is what a user is to write"


def test_drift_finds_nested_definitions_and_tells_what_came_and_went(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text(
        "class A:\n    def f(self):\n        def g(): ...\nif True:\n    def h(): ...\nelse:\n    def h(): ...\n"
    )
    assert dict(drift.definitions(file)) == {"A": 1, "A.f": 2, "A.f.g": 3, "h": 5}
    went = [{"name": "old", "kind": "function", "none": "torch dropped it"}]
    text = "\n".join(drift.section("a.py", {"all_reduce": 7}, went, distributions()))
    assert "| `all_reduce` | 7 | [`functional_collectives.all_reduce`]" in text
    assert "| `old` | function | none needed: torch dropped it |" in text


def test_the_drift_page_knows_what_the_concordance_marks_as_gone() -> None:
    text = drift.page(distributions()).text
    for row in tomllib.loads((ROOT / "docs/concordance.toml").read_text(encoding="utf-8"))[FUNCTIONAL]:
        if row.get("gone") and row["kind"] in ("class", "function"):
            assert f"| `{row['name']}` | {row['kind']} |" in text.split("Gone:")[1].split("\n## ")[0]
