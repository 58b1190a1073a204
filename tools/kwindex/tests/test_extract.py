"""What one file's record holds, kind by kind, and every input that cannot be read."""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kwindex
from kwindex import Entry, SourceError
from kwindex.extract import extract
from kwindex.render import expression
from kwindex.syntax import syntax_tree

DEFINITIONS = {"class", "function", "method", "property", "nested function"}
Index = Callable[[str], list[Entry]]


def kinds(entries: list[Entry], *wanted: str) -> dict[str, str]:
    return {entry.name: entry.kind for entry in entries if not wanted or entry.kind in wanted}


def test_every_kind_of_definition_is_found_with_its_qualified_name(entries_of: Index) -> None:
    found = kinds(
        entries_of(
            "class A(B):\n"
            "    @property\n    def p(self): ...\n"
            "    async def m(self):\n        def inner():\n"
            "            class Deep:\n                def last(self): ...\n"
            "    class C: ...\n"
            "def f(): ...\n"
        )
    )
    assert found == {
        "m": "module",
        "m.A": "class",
        "m.A.p": "property",
        "m.A.m": "method",
        "m.A.m.inner": "nested function",
        "m.A.m.inner.Deep": "class",
        "m.A.m.inner.Deep.last": "method",
        "m.A.C": "class",
        "m.f": "function",
    }


def test_definitions_in_every_compound_statement_are_found(entries_of: Index) -> None:
    text = (
        "if x:\n    def a(): ...\nelif y:\n    def b(): ...\nelse:\n    def c(): ...\n"
        "for i in x:\n    def d(): ...\nelse:\n    def e(): ...\n"
        "while x:\n    def f(): ...\nelse:\n    def g(): ...\n"
        "try:\n    def h(): ...\nexcept E:\n    def i(): ...\nelse:\n    def j(): ...\nfinally:\n    def k(): ...\n"
        "try:\n    def l(): ...\nexcept* E:\n    def m(): ...\n"
        "with x as y:\n    def n(): ...\n"
        "match x:\n    case 1:\n        def o(): ...\n    case _:\n        def p(): ...\n"
    )
    names = [entry.name for entry in entries_of(text) if entry.kind == "function"]
    assert names == [f"m.{letter}" for letter in "abcdefghijklmnop"]


def test_same_name_twice_is_two_entries(entries_of: Index) -> None:
    lines = [
        entry.line
        for entry in entries_of("if x:\n    def f(): ...\nelse:\n    def f(): ...\n")
        if entry.kind == "function"
    ]
    assert lines == [2, 4]


def test_prose_and_docstrings_define_nothing(entries_of: Index) -> None:
    text = (
        '"""A subclass that class needed: def in: import torchdynamo\n\n    def example(): ...\n"""\n'
        'x = "def g(): ..."  # class C\n'
    )
    assert kinds(entries_of(text)) == {"m": "module", "m.x": "variable"}


def test_bindings_have_their_kinds(entries_of: Index) -> None:
    text = (
        "from typing import Final, TypeAlias, TypeVar\nLIMIT = 3\nlog = make()\n__all__ = ['a']\nanswer: Final = 42\n"
        "Ranks = list[int] | None\nT = TypeVar('T')\nN: TypeAlias = 'int'\nFLAGS = re.I | re.M\na, *b = 1, 2\n_ = 0\n"
    )
    found = kinds(entries_of(text), "constant", "variable", "type alias")
    assert found == {
        "m.LIMIT": "constant",
        "m.log": "variable",
        "m.__all__": "constant",
        "m.answer": "constant",
        "m.Ranks": "type alias",
        "m.T": "type alias",
        "m.N": "type alias",
        "m.FLAGS": "constant",
        "m.a": "variable",
        "m.b": "variable",
    }


def test_fields_are_of_the_class_and_of_the_instances_it_makes(entries_of: Index) -> None:
    text = (
        "class A:\n    size: int = 3\n    '''How many.'''\n    name = ''\n"
        "    def __init__(this, x):\n        this.x = x\n        local = 1\n        if x:\n"
        "            this.y: int = 2\n"
        "        other.z = 3\n    def later(self):\n        self.w = 1\n"
    )
    fields = {entry.name: entry for entry in entries_of(text) if entry.kind == "field"}
    assert set(fields) == {"m.A.size", "m.A.name", "m.A.x", "m.A.y"}
    assert fields["m.A.size"].summary == "How many."
    assert fields["m.A.y"].signature == "y: int = 2"


def test_local_variables_are_not_entries(entries_of: Index) -> None:
    assert kinds(entries_of("def f():\n    LOCAL = 1\n    x: int = 2\n")) == {"m": "module", "m.f": "function"}


def test_imports_carry_their_alias_and_their_resolved_module(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree(
        {
            "p/__init__.py": "from .q import r\n",
            "p/q.py": "'''Module q.'''\ndef r():\n    '''Returns r.'''\n",
            "p/s/__init__.py": "",
            "p/s/t.py": "import a.b, c.d as e\nfrom ..q import (\n    r as again,\n)\n"
            "from . import u\nfrom p import r\nfrom x import *\n",
        }
    )
    kwindex.build([root], tmp_path / "out")
    found = {entry.name: entry for entry in kwindex.read_index(tmp_path / "out") if entry.kind == "import"}
    assert {name: entry.signature for name, entry in found.items()} == {
        "p.r": "from p.q import r",
        "p.s.t.a": "import a.b",
        "p.s.t.e": "import c.d as e",
        "p.s.t.again": "from p.q import r as again",
        "p.s.t.u": "from p.s import u",
        "p.s.t.r": "from p import r",
        "p.s.t.*": "from x import *",
    }
    assert found["p.s.t.again"].summary == found["p.s.t.r"].summary == "Returns r."


def test_signature_summary_and_lines_of_a_decorated_function(entries_of: Index) -> None:
    (entry,) = entries_of(
        "@d\ndef f(a, /, b: int = 3, *c, e=None, **g) -> 'X | None':\n    '''Does it. Then rests.'''\n    return 1\n"
    )[2:]
    assert entry == Entry(
        "m.f", "function", "m.py", 2, 4, "f(a, /, b: int = 3, *c, e=None, **g) -> 'X | None'", "Does it."
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = ...` came with Python 3.12")
def test_type_statement(entries_of: Index) -> None:
    assert entries_of("type X = int | None\n")[1].signature == "type X = int | None"
    text = (
        "type X[T] = list[T]\ndef f[T: (int, str), *Ts, **P](x: T) -> T: ...\nclass C[T](B[T]): ...\nclass D[T]: ...\n"
    )
    assert [entry.signature for entry in entries_of(text)[1:]] == [
        "type X[T] = list[T]",
        "f[T: (int, str), *Ts, **P](x: T) -> T",
        "class C[T](B[T])",
        "class D[T]",
    ]


@pytest.mark.parametrize(
    ("data", "line", "why"),
    [
        (b"x = 1\ndef f(:\n", 2, "invalid syntax"),
        (b"x = 1\n# caf\xe9\n", 2, "0xe9"),
        (b"# coding: no-such\n", 1, "encoding"),
        (b"# coding: ascii\n\n'\xc3\xa9'\n", 3, "0xc3"),
        (b"x = 1\ny = '\0'\n", 2, "null byte"),
        (b"if x:\n  a\n b\n", 3, "unindent"),
        (b"(" * 5000, 1, ""),
        (b"x = " + b"-" * 100_000 + b"1\n", 1, "nested too deeply"),
        (b"x = " + b"1+" * 100_000 + b"1\n", 1, "nested too deeply"),
        (b"x = '''never closed\n\n", 1, "unterminated"),
    ],
)
def test_what_cannot_be_read_says_line_and_why(data: bytes, line: int, why: str) -> None:
    with pytest.raises(SourceError) as caught:
        extract(data, "m.py", "m")
    assert caught.value.line == line
    assert why in caught.value.why


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"\xef\xbb\xbfx = 1\n", b"x = 1\r\ny = 2\r\n", b"# coding: latin-1\n# \xe9\n"]
)
def test_odd_but_valid_files_are_read(data: bytes) -> None:
    assert extract(data, "m.py", "m")[0].name == "m"


@pytest.mark.parametrize(
    ("text", "last"), [("", 1), ("x = 1", 1), ("x = 1\n", 1), ("x = 1\ny = 2", 2), ("\n\n", 2), ("x\ry\r\nz", 3)]
)
def test_a_module_ends_at_its_last_line(text: str, last: int) -> None:
    assert extract(text.encode(), "m.py", "m")[0].end_line == last


def test_deep_but_valid_nesting_is_read() -> None:
    chain = "if x: pass\n" + "elif y:\n    def f(): ...\n" * 300
    assert sum(entry.kind == "function" for entry in extract(chain.encode(), "m.py", "m")) == 300
    deep = "x = a" + ".b" * 900 + "\ny = 0x" + "f" * 6000 + "\n"
    assert [entry.name for entry in extract(deep.encode(), "m.py", "m")] == ["m", "m.x", "m.y"]


@pytest.mark.parametrize(
    "text", ["1.5", "1e999", "2j", "{'a': (0.1, 1e300), 'b': [-0.5]}", "f(x=1e-7)", "a[1.0]", "1.0.real", "..."]
)
def test_short_texts_are_those_of_python(text: str) -> None:
    node = ast.parse(text, mode="eval").body
    assert expression(node) == ast.unparse(node)


def test_texts_never_act_on_a_terminal_nor_break_the_encoding() -> None:
    source = b"def f():\n    '''\\x1b[31mred \\ud800 text\\u202e.'''\nx: '\\x1b' = 1\n"
    for entry in extract(source, "m.py", "m"):
        text = "".join((entry.name, entry.signature, entry.summary))
        assert text.isprintable()
        assert text.encode()


def test_escapes_in_sources_give_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    extract(b"x = '\\d'\ny = 1 is 1\n", "m.py", "m")
    assert not recwarn.list


def oracle(node: ast.AST, prefix: str) -> Iterator[tuple[str, int, int | None]]:
    """All definitions below a node, found by descending into everything, expressions too."""
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}"
            yield name, child.lineno, child.end_lineno
        yield from oracle(child, name)


def assert_equals_oracle(path: Path) -> int:
    data = path.read_bytes()
    found = [e for e in extract(data, "m.py", "m") if e.kind in DEFINITIONS]
    expected = sorted(oracle(syntax_tree(data), "m"))
    assert sorted((entry.name, entry.line, entry.end_line) for entry in found) == expected
    return len(expected)


def test_own_sources_hold_exactly_the_definitions_that_ast_sees() -> None:
    folder = Path(kwindex.__file__).parent
    assert sum(assert_equals_oracle(path) for path in sorted(folder.glob("*.py"))) > 100


@pytest.mark.parametrize(
    "name",
    [
        "_dynamo/guards.py",
        "_inductor/ir.py",
        "distributed/fsdp/_flat_param.py",
        "nn/modules/module.py",
        "testing/_internal/common_utils.py",
    ],
)
def test_torch_files_hold_exactly_the_definitions_that_ast_sees(torch_folder: Path, name: str) -> None:
    path = torch_folder / name
    if not path.exists():
        pytest.skip(f"this torch has no {name}")
    assert assert_equals_oracle(path) > 20


def test_the_originals_hold_exactly_the_definitions_that_ast_sees(originals: list[Path]) -> None:
    assert sum(assert_equals_oracle(path) for path in originals) > 150


def test_settings_are_found_wherever_they_are_read(entries_of: Callable[[str], list[Entry]]) -> None:
    text = (
        "import os\n@skip(os.environ.get('IN_A_DECORATOR'))\ndef g(): ...\ndef f(x=os.getenv('IN_A_DEFAULT')):\n"
        "    return f'''\n{os.environ['IN_A_STRING']}'''\n"
        "y = [z for z in a if z in (\n    os.environ.get('IN_A_LIST'))]\n"
    )
    for lines in (text, text.replace("\n", "\r\n")):
        found = {entry.name for entry in entries_of(lines) if entry.kind == "environment variable"}
        assert found == {"IN_A_DECORATOR", "IN_A_DEFAULT", "IN_A_STRING", "IN_A_LIST"}


def test_a_call_that_is_told_which_variable_to_read_reads_it(entries_of: Callable[[str], list[Entry]]) -> None:
    text = (
        "a = Config(\n    default=True,\n    env_name_force='ONE',\n    env_name_default=['TWO', 'THREE'],\n)\n"
        "@click.option('--x', envvar='FOUR')\ndef f():\n    flag('IS_CI', env_var='FIVE', env_name=g(), other='SIX')\n"
        "h(env_var='not one')\nenv_var = 'SEVEN'\n"
    )
    found = [(e.name, e.line, e.signature, e.summary) for e in entries_of(text) if e.kind == "environment variable"]
    assert found == [
        ("ONE", 3, "env_name_force='ONE'", "read in m"),
        ("THREE", 4, "env_name_default=['TWO', 'THREE']", "read in m"),
        ("TWO", 4, "env_name_default=['TWO', 'THREE']", "read in m"),
        ("FOUR", 6, "envvar='FOUR'", "read in m"),
        ("FIVE", 8, "env_var='FIVE'", "read in m.f"),
    ]


def test_a_name_has_the_part_of_the_value_that_it_takes(entries_of: Callable[[str], list[Entry]]) -> None:
    text = (
        "a, [b, c] = 1, (2, 3)\nd, *e = 4, 5\nf, g = h()\ni = j, k = 6, 7\n"
        "class C:\n    def __init__(self, n):\n        self.p, self.q = n, None\n        self.r, self.s = n\n"
    )
    signatures = {entry.name: entry.signature for entry in entries_of(text) if entry.line != 6 and "." in entry.name}
    assert signatures == {
        **{"m.a": "a = 1", "m.b": "b = 2", "m.c": "c = 3", "m.i": "i = (6, 7)", "m.j": "j = 6", "m.k": "k = 7"},
        **dict.fromkeys(("m.d", "m.e"), "(d, *e) = (4, 5)"),
        **dict.fromkeys(("m.f", "m.g"), "(f, g) = h()"),
        **{"m.C": "class C", "m.C.p": "p = n", "m.C.q": "q = None"},
        **dict.fromkeys(("m.C.r", "m.C.s"), "(self.r, self.s) = n"),
    }


@pytest.mark.parametrize(
    ("text", "signature"),
    [
        ("__all__ = ['a', \"b\"]", "__all__ = ['a', 'b']"),
        ("__all__ = ('a', 'b')\n__all__ += ('c',)", "__all__ = ['a', 'b', 'c']"),
        ("__all__: list[str] = []", "__all__: list[str] = []"),
        ("__all__ = ['a'] + ['b']\n__all__ = __all__ + ['c']", "__all__ = ['a', 'b', 'c']"),
        ("__all__ = ['a']\n__all__.extend(['b'])\n__all__.append('c')\n__all__.remove('a')", "__all__ = ['b', 'c']"),
        ("if x:\n    __all__ = ['a']\nelse:\n    __all__ = ['b', 'a']", "__all__ = ['a', 'b']"),
        ("__all__ = ['a', *other]", "__all__ = ['a', …]"),
        ("__all__ = ['a'] + lib.__all__", "__all__ = ['a', …]"),
        ("__all__ = ['a']\n__all__ += lib.__all__", "__all__ = ['a', …]"),
        ("__all__ = ['a']\n__all__.extend(x for x in y)", "__all__ = ['a', …]"),
        ("__all__ = ['a']\n__all__ = sorted(x)", "__all__ = ['a', …]"),
        ("__all__ = sorted(x)", "__all__ = sorted(x)"),
        ("__all__ = [x for x in y]", "__all__ = [x for x in y]"),
        ("__all__ = ['a'] + ['a b', 3]", "__all__ = ['a', …]"),
        (f"__all__ = {['n' * 9 + str(n) for n in range(200)]}", f"__all__ = {['n' * 9 + str(n) for n in range(200)]}"),
        ("class A:\n    __all__ = ['a']\n    __all__ += x", "__all__ = ['a']"),
        ("other += ['a']\nother.append('b')\n__all__ = ['a']\ndef f():\n    __all__.append('b')", "__all__ = ['a']"),
    ],
)
def test_all_holds_every_name_that_literals_give_it(entries_of: Index, text: str, signature: str) -> None:
    (found,) = [entry for entry in entries_of(text) if entry.name.endswith("__all__")]
    assert found.signature == signature
