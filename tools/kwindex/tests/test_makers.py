"""Functions that register operators that calls tell them: calls of them are registrations."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import Entry, Searcher, build, read_index

Index = Callable[[str], list[Entry]]
HEAD = "import torch\nlib = torch.library.Library('mine', 'DEF')\nnative = torch.ops.mine\n"
LINE = 4


def ops(entries: list[Entry], kind: str = "op") -> list[tuple[str, int]]:
    return [(entry.name, entry.line) for entry in entries if entry.kind == kind and "::" in entry.name]


TEXT = """import torch
prim = torch.library.Library("mine", "DEF")
early = unary("early")
def make(*, schema, meta, old=False):
    def run(*args):
        return meta(*args)
    name = schema.split("(", maxsplit=1)[0]
    schema = schema[len(name):]
    if old:
        prim.define(name + schema)
        prim.impl(name, run, "CPU")
    else:
        made = torch.library.custom_op("mine::" + name, run, schema=schema)
        made.register_fake(meta)
    return getattr(torch.ops.mine, name)
def unary(name, **more):
    return make(schema=f"{name}(Tensor self) -> Tensor", meta=m, **more)
abs = unary(
    "abs",
    doc="",
)
add = make(schema="add(Tensor a, Tensor b) -> Tensor", meta=m)
class A:
    neg = unary("neg")
def later():
    name = "sub"
    return make(schema=name + "(Tensor a) -> Tensor", meta=m)
"""


def test_calls_of_a_function_that_defines_what_it_is_told_are_definitions(entries_of: Index) -> None:
    found = entries_of(TEXT)
    assert ops(found) == [
        ("mine::early", 3),
        ("mine::abs", 18),
        ("mine::add", 22),
        ("mine::neg", 24),
        ("mine::sub", 27),
    ]
    by_name = {entry.name: entry for entry in found if entry.kind == "op"}
    assert by_name["mine::abs"].signature == "unary('abs', doc='')"
    assert by_name["mine::abs"].end_line == 21
    assert by_name["mine::abs"].summary == "operator: m.abs, through m.unary"
    assert by_name["mine::neg"].summary == "operator: m.A.neg, through m.unary"
    assert by_name["mine::sub"].summary == "operator, through m.make"


def test_its_kernels_come_with_it(entries_of: Index) -> None:
    found = [(e.name, e.summary) for e in entries_of(TEXT) if e.kind == "kernel" and e.line == 22]
    assert found == [
        ("mine::add", "CPU kernel, through m.make"),
        ("mine::add", "fake kernel, through m.make"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f(schema): lib.define(schema)\nf('a(int x) -> int')\n", ["mine::a"]),
        ("def f(schema):\n    return lib.define(schema)\nx = f(schema='a() -> ()')\n", ["mine::a"]),
        ("def f(name): return torch.library.custom_op(f'mine::{name}', g)\nf('a')\n", ["mine::a"]),
        ("def f(name, version=2): torch.library.custom_op(f'mine::{name}.v{version}', g)\nf('a')\nf('b', 7)\n",
         ["mine::a.v2", "mine::b.v7"]),
        ("def f(ns, name): torch.library.define(ns + '::' + name, '() -> ()')\nf('other', 'a')\n", ["other::a"]),
        ("def f(ns, name):\n    own = torch.library.Library(ns, 'DEF')\n    own.define(name)\nf('n', 'a() -> ()')\n",
         ["n::a"]),
        ("def f(name):\n    def wrap(g):\n        full = f'mine::{name}'\n"
         "        return torch.library.custom_op(full, mutates_args=())(g)\n    return wrap\n"
         "@f('a')\ndef a(x): ...\n", ["mine::a"]),
        ("class C:\n    own = torch.library.Library('c', 'DEF')\n    @classmethod\n"
         "    def make(cls, schema): cls.own.define(schema)\nC.make('a() -> ()')\n", ["c::a"]),
        ("NAME = 'a'\ndef f(name): lib.define(name + '() -> ()')\nf(NAME)\n", ["mine::a"]),
        ("def a(x): return b(x)\ndef b(x): return c(x)\ndef c(x): lib.define(x)\na('one() -> ()')\n", ["mine::one"]),
        ("async def f(x): lib.define(x)\nf('a')\n", ["mine::a"]),
        ("def f(): return torch.library.custom_op('mine::a', g)\n", ["mine::a"]),
        ("NAME = 'a'\nlib.define(NAME + '() -> ()')\n", ["mine::a"]),
    ],
)  # fmt: skip
def test_shapes_of_such_functions(entries_of: Index, text: str, found: list[str]) -> None:
    assert [name for name, _ in ops(entries_of(HEAD + text))] == found


@pytest.mark.parametrize(
    "text",
    [
        "def f(name): lib.define(name)\nf(computed())\nf(a + 'b')\nf(f'{a}b')\nf(*names)\nf(**names)\nf()\n",
        "def f(name):\n    name = name.lower()\n    lib.define(name)\nf('No')\n",
        "def f(name):\n    for x in y:\n        lib.define(name)\n        name = name + x\nf('No')\n",
        "def f(name):\n    def g(): lib.define(name)\n    name = other\n    g()\nf('No')\n",
        "def f(name):\n    def g():\n        nonlocal name\n        lib.define(name)\n        name = x\nf('No')\n",
        "def f(name):\n    full = name + 'a'\n    full = full + 'b'\n    lib.define(full)\nf('No')\n",
        "def f(name):\n    for name in names: lib.define(name)\nf('No')\n",
        "def f(name):\n    with g() as name: lib.define(name)\nf('No')\n",
        "def f(name): lib.define(name)\ndef g(f): f('No')\n",
        "def f(name): lib.define(name)\nf = other\nf('No')\n",
        "def g():\n    def f(name): lib.define(name)\nf('No')\n",
        "def f(name): lib.define(name)\ndef f(name): pass\nf('No')\n",
        "NAME = 'No'\nNAME = g()\nlib.define(NAME)\n",
        "NAME = 'No'\ndef f(NAME): lib.define(NAME)\nf(g())\n",
        "def f(name, lib): lib.define(name)\nf('No', x)\n",
        "def f(name): other.define(name)\nf('No')\n",
        "def f(name): lib.define(name)\nf('not a name')\nf('a::b::c')\nf('')\nf(3)\nf(f)\n",
        "def f(name): lib.define(name[1:])\nf('No')\n",
        "def f(name): lib.define(f'{name!r}')\nf('No')\n",
        "def f(name): lib.define(f'{name:>9}')\nf('No')\n",
        "def f(name, text): lib.define(name + text.split('(')[1])\nf('No', 'x(y')\n",
        "class A:\n    def f(self, name): lib.define(name)\nx.f('No')\nf('No')\n",
        "lib.define(NAME)\n",
        "class A:\n    def f(self, name): lib.define(name)\n    def g(self): self.f('No')\n",
        "def f(op, name): op.register_fake(name)\nf(x, 'mine::No')\n",
        "def f(x):\n    class A: my_side_effects = [x]\nf(native.No)\n",
        "def a(x): return b(x)\ndef b(x): return c(x)\ndef c(x): return d(x)\ndef d(x): return e(x)\n"
        "def e(x): return f(x)\ndef f(x): lib.define(x)\na('TooFar')\n",
    ],
)
def test_what_is_not_sure_is_no_operator(entries_of: Index, text: str) -> None:
    assert ops(entries_of(HEAD + text)) == []


def test_functions_that_call_themselves_or_each_other_come_to_an_end(entries_of: Index) -> None:
    text = (
        "def f(name):\n    lib.define(name)\n    return f(name + '_')\nf('one')\n"
        "def g(name):\n    lib.define(name)\n    h(name + '_g')\ndef h(name): g(name + '_h')\ng('two')\nh('three')\n"
    )
    assert {name for name, _ in ops(entries_of(HEAD + text))} == {"mine::one", "mine::two", "mine::three_h"}


def test_what_is_registered_for_an_operator_that_is_told(entries_of: Index) -> None:
    text = (
        "def meta(op):\n    @register_meta(op)\n    def f(x): ...\n    return f\n"
        "add_meta = meta(native.add.default)\nmeta([native.sub, native.mul])\nmeta(unknown)\n"
    )
    found = [(e.name, e.line, e.summary) for e in entries_of(HEAD + text) if e.kind == "kernel"]
    assert found == [
        ("mine::add", LINE + 4, "Meta kernel, through m.meta"),
        ("mine::mul", LINE + 5, "Meta kernel, through m.meta"),
        ("mine::sub", LINE + 5, "Meta kernel, through m.meta"),
    ]


HELPER = (
    "import torch\nprim = torch.library.Library('mine', 'DEF')\n"
    "def make_prim(schema, meta=None, *, tag='x'):\n    name = schema.split('(')[0]\n    prim.define(schema)\n"
    "    prim.impl(name, meta, 'Meta')\n"
    "def named_op(name): return torch.library.custom_op('mine::' + name, f)\n"
    "def other_op(name): return name\n"
    "class Table:\n    own = torch.library.Library('own', 'DEF')\n    @classmethod\n"
    "    def register_op(cls, name, schema): cls.own.define(schema)\n"
)
USER = (
    "from lib.helper import make_prim as prim, named_op, other_op, Table\n"
    "from lib import helper\nimport lib.helper as h\n"
    "from lib.nowhere import make_op\n"
    "abs = prim('abs(Tensor x) -> Tensor')\nhelper.make_prim(schema='add() -> ()', tag='y')\nh.named_op('neg')\n"
    "other_op('no')\nmake_op('no')\nprim(computed())\nnamed_op('not a name')\n"
    "def own(name): return prim(f'{name}(Tensor x) -> Tensor', tag=unknown)\nown('sub')\n"
    "Table.register_op('key', 'mul() -> ()')\n@named_op('div')\ndef div(): ...\n"
    "def shadowed(prim): prim('no() -> ()')\n"
)
FOUND = [
    ("op", "mine::abs", 5, "operator: lib.user.abs, through lib.helper.make_prim"),
    ("kernel", "mine::abs", 5, "Meta kernel, through lib.helper.make_prim"),
    ("op", "mine::add", 6, "operator, through lib.helper.make_prim"),
    ("kernel", "mine::add", 6, "Meta kernel, through lib.helper.make_prim"),
    ("op", "mine::neg", 7, "operator, through lib.helper.named_op"),
    ("op", "mine::sub", 13, "operator, through lib.helper.make_prim"),
    ("kernel", "mine::sub", 13, "Meta kernel, through lib.helper.make_prim"),
    ("op", "own::mul", 14, "operator, through lib.helper.Table.register_op"),
    ("op", "mine::div", 16, "operator: lib.user.div, through lib.helper.named_op"),
]  # fmt: skip


def rows(out: Path) -> list[tuple[str, str, int, str]]:
    entries = [e for e in read_index(out) if "::" in e.name and e.file.endswith("user.py")]
    return [(e.kind, e.name, e.line, e.summary) for e in entries]


@pytest.fixture
def lib(tree: Callable[..., Path]) -> Path:
    return tree({"lib/__init__.py": "", "lib/helper.py": HELPER, "lib/user.py": USER}) / "lib"


def test_what_an_imported_function_is_told_to_define_is_defined(lib: Path, tmp_path: Path) -> None:
    build([lib], tmp_path / "out")
    assert sorted(rows(tmp_path / "out")) == sorted(FOUND)


EDITS = {
    "another namespace": ("helper.py", HELPER.replace("Library('mine'", "Library('yours'")),
    "defines nothing any more": ("helper.py", HELPER.replace("prim.define(schema)", "pass")),
    "another parameter": ("helper.py", HELPER.replace("(schema, meta=None,", "(meta, schema=None,")),
    "nothing": ("helper.py", ""),
    "broken": ("helper.py", "def broken(:"),
    "one that wants less": ("user.py", USER.replace("own('sub')", "")),
    "one that defines it itself": ("user.py", USER + "torch.library.define('mine::abs', '() -> ()')\n"),
    "another file": ("other.py", "x = 1\n"),
}


@pytest.mark.parametrize(("file", "text"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_and_its_undoing_give_the_bytes_of_a_build_from_nothing(
    lib: Path, edit_and_undo: Callable[[Path, str, str], None], file: str, text: str
) -> None:
    edit_and_undo(lib, file, text)


def test_what_no_one_writes_by_hand_comes_to_an_end(entries_of: Index) -> None:
    doubled = "".join(f"    t{n} = f'{{t{n - 1}}}{{t{n - 1}}}{{t{n - 1}}}'\n" for n in range(1, 40))
    text = f"def f(t0):\n{doubled}    lib.define(t39)\n    a = b\n    b = a\n    lib.define(a)\nf('x')\n"
    many = "".join(f"    lib.define(f'{{x}}_{n}')\n" for n in range(99))
    several = "".join(f"def g{n}(x):\n" + f"    g{n - 1}(f'{{x}}a')\n" * 99 for n in range(1, 4))
    assert ops(entries_of(HEAD + text)) == []
    assert len(ops(entries_of(f"{HEAD}def g0(x):\n{many}{several}g3('y')\ng0('z')\n"))) == 64 * 2
    odd = "for row in ['⟦7:x⟧', '⟦1:y⟧']:\n    lib.define(row)\ndef f(x): lib.define('⟦1:x⟧')\nf('a')\n"
    assert ops(entries_of(HEAD + odd)) == []


def test_the_prims_of_torch_are_found_where_they_are_made(torch_folder: Path, tmp_path: Path) -> None:
    files = ("_prims/__init__.py", "_prims/rng_prims.py", "_inductor/inductor_prims.py", "onnx/ops/_impl.py")
    files += ("__init__.py", "cuda/__init__.py", "_dynamo/tensor_version_op.py")
    build([torch_folder / file for file in files], tmp_path / "out")
    entries = read_index(tmp_path / "out")
    found = {e.name: e for e in entries if e.kind == "op"}
    assert len([name for name in found if name.startswith("prims::")]) >= 130
    assert {"triton::_triton_bsr_dense_mm_out", "prims::_tensor_version"} <= found.keys()
    assert {"rngprims::philox_rand", "onnx::Attention.opset23", "prims::inductor_seed"} <= found.keys()
    hit = Searcher(entries).search("prims::abs")[0].entry
    line = (torch_folder / "_prims/__init__.py").read_text().splitlines()[hit.line - 1]
    assert (hit.kind, line) == ("op", "abs = _make_elementwise_unary_prim(")
