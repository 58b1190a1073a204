"""What files tell each other: texts of constants, and functions that read what they are told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import Entry, Searcher, build, read_index
from kwindex.given import settled
from kwindex.model import Want

HELPER = (
    "import os\ndef env_flag(name, default=False, *, also=''):\n    return os.environ.get(name) or os.getenv(also)\n"
    "def env_other(name): return name\n"
    "OLD = ('all of this is deprecated, '\n       'use new_thing instead')\nNAME = 'name'\n"
)
USER = (
    "import os\nfrom lib.helper import OLD, NAME, env_flag as flag, env_other\nfrom lib.nowhere import GONE, env_gone\n"
    "a = flag('ONE')\nb = flag(default='NO', name='TWO', also='THREE')\nc = env_other('NO'), env_gone('NO')\n"
    "d = os.environ['FOUR'], flag('FOUR'), flag('lower'), flag('ONE'), flag('X', 'NO')\n"
    "@deprecated(OLD)\ndef f(): ...\n@lib.deprecated(GONE, category=FutureWarning)\ndef g(): ...\n"
    "def h():\n    warnings.warn(OLD, FutureWarning)\n    warn(made(), DeprecationWarning)\n    warn(OLD)\n"
    "def i(flag): return flag('NO')\n"
)
FOUND = [
    ("ONE", 4, "flag('ONE')", "read in lib.user"),
    ("THREE", 5, "flag(default='NO', name='TWO', also='THREE')", "read in lib.user"),
    ("TWO", 5, "flag(default='NO', name='TWO', also='THREE')", "read in lib.user"),
    ("FOUR", 7, "os.environ['FOUR']", "read in lib.user"),
    ("X", 7, "flag('X', 'NO')", "read in lib.user"),
]
TOLD = "all of this is deprecated, use new_thing instead"
DEPRECATED = [
    ("lib.user.f", 8, TOLD, "replaced by new_thing"),
    ("lib.user.g", 10, "lib.deprecated(GONE, category=FutureWarning)", ""),
    ("lib.user.h", 13, TOLD, "replaced by new_thing"),
    ("lib.user.h", 14, "warn(made(), DeprecationWarning)", ""),
]
ALONE = "deprecated(OLD)"


def rows(out: Path, kind: str) -> list[tuple[str, int, str, str]]:
    entries: list[Entry] = read_index(out)
    return [(e.name, e.line, e.signature, e.summary) for e in entries if e.kind == kind and e.file.endswith("user.py")]


@pytest.fixture
def lib(tree: Callable[..., Path]) -> Path:
    return tree({"lib/__init__.py": "", "lib/helper.py": HELPER, "lib/user.py": USER}) / "lib"


def test_what_an_imported_function_is_told_to_read_is_read(lib: Path, tmp_path: Path) -> None:
    build([lib], tmp_path / "out")
    assert rows(tmp_path / "out", "environment variable") == FOUND


def test_a_deprecation_takes_its_message_from_where_it_is_imported_or_is_listed_without(
    lib: Path, tmp_path: Path
) -> None:
    build([lib], tmp_path / "out")
    assert rows(tmp_path / "out", "deprecation") == DEPRECATED
    hits = Searcher(read_index(tmp_path / "out")).search("FutureWarning: all of this is deprecated, use new_thing")
    assert hits[0].entry.kind == "deprecation"


EDITS = {
    "no reader any more": ("helper.py", HELPER.replace("environ.get(name)", "environ.get('a')")),
    "no constant any more": ("helper.py", HELPER.replace("OLD =", "YOUNG =")),
    "another text": ("helper.py", HELPER.replace("new_thing", "other_thing")),
    "another parameter": ("helper.py", HELPER.replace("(name, default=False,", "(default, name,")),
    "nothing": ("helper.py", ""),
    "broken": ("helper.py", "def broken(:"),
    "one that wants less": ("user.py", USER.replace("a = flag('ONE')", "")),
    "one that reads itself": ("user.py", USER + "os.environ['ONE']\n"),
    "another file": ("other.py", "x = 1\n"),
}


@pytest.mark.parametrize(("file", "text"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_and_its_undoing_give_the_bytes_of_a_build_from_nothing(
    lib: Path, edit_and_undo: Callable[[Path, str, str], None], file: str, text: str
) -> None:
    edit_and_undo(lib, file, text)


def test_a_file_alone_has_what_it_says_itself(lib: Path, tmp_path: Path) -> None:
    build([lib / "user.py"], tmp_path / "out")
    assert [row[0] for row in rows(tmp_path / "out", "environment variable")] == ["FOUR"]
    assert rows(tmp_path / "out", "deprecation")[0][2] == ALONE


def test_the_settings_of_inductor_and_the_deprecations_of_quantization_are_found(
    torch_folder: Path, tmp_path: Path
) -> None:
    files = (
        "_inductor/config.py",
        "utils/_config_module.py",
        "ao/quantization/quantize.py",
        "ao/quantization/utils.py",
    )
    build([torch_folder / file for file in files], tmp_path / "out")
    entries = read_index(tmp_path / "out")
    assert "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE" in {e.name for e in entries if e.kind == "environment variable"}
    told = {e.signature for e in entries if e.kind == "deprecation" and e.file.endswith("quantize.py")}
    assert len(told) == 1
    assert "torch.ao.quantization is deprecated" in told.pop()


class Seen(str):
    """A text that is compared in Python, where steps are counted."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)


def deprecations(count: int) -> list[Want]:
    rows = [Entry(Seen(f"n.f{n}"), "deprecation", "n.py", n, n, "deprecated(OLD)", "") for n in range(count)]
    return [Want("m.OLD", "", entry) for entry in rows]


def registrations(count: int) -> list[Want]:
    rows = [Entry("", "", "n.py", n, n, f"make('op{n}')", "") for n in range(count)]
    return [Want(f"m.make{n}(::)", '{"0": "op"}', entry) for n, entry in enumerate(rows)]


MANY = {"m.OLD": "use `g`", **{f"m.make{n}(::)": '[["a"], {}, [["op", "operator", "n::⟦1:a⟧"]]]' for n in range(400)}}


@pytest.mark.parametrize("made", [deprecations, registrations])
def test_twice_as_many_wants_take_no_more_than_twice_the_steps(
    steps_in: Callable[[Callable[[], object]], int], made: Callable[[int], list[Want]]
) -> None:
    def steps(count: int) -> int:
        wants = made(count)
        entries = [want.entry for want in wants]
        assert len(settled(entries, wants, MANY)) == count
        return steps_in(lambda: settled(settled(entries, wants, MANY), wants, MANY))

    assert steps(400) < 2.1 * steps(200)


def test_two_deprecations_on_one_line_are_both_told() -> None:
    rows = [Entry("n.f", "deprecation", "n.py", 1, 1, text, "") for text in ("deprecated(NEW)", "deprecated(OLD)")]
    wants = [Want(target, "", entry) for target, entry in zip(("m.NEW", "m.OLD"), rows, strict=True)]
    told = settled(rows, wants, {"m.NEW": "this is new", "m.OLD": "this is old"})
    assert [entry.signature for entry in told] == ["this is new", "this is old"]
    assert settled(told, wants, {}) == rows
