"""Operators and what is registered for them: the shapes that are recognised, and what torch's originals hold."""

from collections import Counter
from collections.abc import Callable

import pytest

from kwindex import Entry, search

Index = Callable[[str], list[Entry]]
HEAD = "import torch\nlib = torch.library.Library('mine', 'FRAGMENT')\nnative = torch.ops.mine\n"


@pytest.mark.parametrize(
    ("text", "kind", "name", "summary"),
    [
        ("lib.define('add(Tensor a) -> Tensor')", "op", "mine::add", ""),
        ("torch.library.define('mine::add', '(Tensor a) -> Tensor')", "op", "mine::add", ""),
        ("@torch.library.custom_op('mine::add', mutates_args=())\ndef f(x): ...", "op", "mine::add", "operator: m.f"),
        ("lib.impl('add', meta, 'Meta')", "kernel", "mine::add", "Meta kernel: meta"),
        ("@torch.library.impl(lib, 'add', 'CPU')\ndef f(x): ...", "kernel", "mine::add", "CPU kernel: m.f"),
        (
            "from torch.library import impl\n@impl('mine::add', 'CPU')\ndef f(x): ...",
            "kernel",
            "mine::add",
            "CPU kernel: m.f",
        ),
        ("@torch.library.register_fake('mine::add')\ndef f(x): ...", "kernel", "mine::add", "fake kernel: m.f"),
        (
            "torch.library.register_autograd('mine::add', back, setup_context=s)",
            "gradient",
            "mine::add",
            "gradient: back",
        ),
        ("@register_lowering(native.add.default)\ndef f(x): ...", "lowering", "mine::add", "lowering: m.f"),
        (
            "@register_comm_lowering(torch.ops.mine.add.out)\ndef f(x): ...",
            "lowering",
            "mine::add.out",
            "lowering: m.f",
        ),
        ("@register_decomposition([native.add])\ndef f(x): ...", "decomposition", "mine::add", "decomposition: m.f"),
        ("torch.fx.node.has_side_effect(native.add.default)", "side effect", "mine::add", "side effect"),
        (
            "aten = torch._ops.ops.aten\n@register_decomposition(aten.add)\ndef f(x): ...",
            "decomposition",
            "aten::add",
            "decomposition: m.f",
        ),
        ("@register_meta([native.add.default])\ndef f(x): ...", "kernel", "mine::add", "Meta kernel: m.f"),
        ("@register_op_impl(native.add.default)\ndef f(x): ...", "kernel", "mine::add", "fake kernel: m.f"),
        ("register_lowering(native.add)(f)", "lowering", "mine::add", "lowering: f"),
        ("g = register_lowering(native.add, x=None)(f)", "lowering", "mine::add", "lowering: f"),
        ("make_fallback(native.add)", "lowering", "mine::add", "fallback lowering"),
        ("relu = register_pointwise(native.add, name='x')", "lowering", "mine::add", "pointwise lowering"),
        ("g = torch.library.custom_op('mine::add', mutates_args=())(f)", "op", "mine::add", "operator: f"),
        ("g = torch.library.custom_op('mine::add', f, mutates_args=())", "op", "mine::add", "operator: f"),
        ("torch.library.register_autocast('mine::add', 'cuda', t)", "kernel", "mine::add", "cuda autocast kernel"),
        ("_register_effectful_op('mine::add', E.ORDERED)", "side effect", "mine::add", "side effect: E.ORDERED"),
        (
            "table = {'add': meta}\nfor op, f in table.items():\n    lib.impl(op, f, 'Meta')",
            "kernel",
            "mine::add",
            "Meta kernel: f",
        ),
        (
            "with torch.library._scoped_library('mine', 'DEF') as inner:\n    inner.define('add() -> ()')",
            "op",
            "mine::add",
            "",
        ),
    ],
)
def test_a_registration_becomes_an_entry_of_its_operator(
    entries_of: Index, text: str, kind: str, name: str, summary: str
) -> None:
    found = [entry for entry in entries_of(HEAD + text + "\n") if "::" in entry.name]
    assert [(entry.kind, entry.name, entry.summary) for entry in found] == [(kind, name, summary)]
    assert found[0].line > 3


def test_decorators_of_an_operator_made_in_the_same_file(entries_of: Index) -> None:
    text = (
        "@torch.library.custom_op('mine::add')\ndef add(x): ...\n"
        "@add.register_fake\ndef _(x): ...\nadd.register_autograd(back)\n"
    )
    found = [(entry.kind, entry.line) for entry in entries_of(text) if entry.name == "mine::add"]
    assert found == [("op", 2), ("kernel", 4), ("gradient", 5)]


def test_a_higher_order_operator_is_one_with_what_is_registered_for_it(entries_of: Index) -> None:
    text = (
        "from torch._ops import HigherOrderOperator\nimport torch\nclass CondOp(HigherOrderOperator):\n"
        "    'Branches.'\n    def __init__(self):\n        super().__init__('cond', cacheable=True)\n"
        "cond_op = CondOp()\n@cond_op.py_impl(DispatchKey.Autograd)\ndef f(x): ...\n@register_fake(cond_op)\n"
        "def g(x): ...\nclass Other(Base):\n    def __init__(self):\n        super().__init__('other')\n"
        "class Named(HigherOrderOperator):\n    def __init__(self, name):\n        super().__init__(name)\n"
        "other = Other()\n@other.py_impl(K)\ndef h(): ...\n"
    )
    found = [(e.kind, e.name, e.line, e.summary) for e in entries_of(text) if "::" in e.name]
    assert found == [
        ("op", "higher_order::cond", 3, "operator: m.CondOp"),
        ("kernel", "higher_order::cond", 9, "Autograd kernel: m.f"),
        ("kernel", "higher_order::cond", 11, "fake kernel: m.g"),
    ]


def test_a_table_of_side_effects_marks_each_operator_in_it(entries_of: Index) -> None:
    text = HEAD + (
        "from torch._ops import ops as _ops\n"
        "_side_effectful: set[F] = {\n    torch._assert,\n    _ops.aten.check.msg,\n    native.add.default,\n}\n"
        "side_effects = [native.sub]\nothers = [native.mul]\nfx.node._side_effectful.add(native.div)\n"
        "_side_effectful.update({native.one, native.two})\nothers.add(native.neg)\n"
        "def f():\n    side_effects = [native.x]\n"
    )
    found = [(e.name, e.line, e.summary) for e in entries_of(text) if e.kind == "side effect"]
    assert found == [
        ("aten::check.msg", 7, "in m._side_effectful"),
        ("mine::add", 8, "in m._side_effectful"),
        ("mine::sub", 10, "in m.side_effects"),
        ("mine::div", 12, "side effect"),
        ("mine::one", 13, "side effect"),
        ("mine::two", 13, "side effect"),
    ]


def test_a_loop_over_a_table_of_schemas_defines_each(entries_of: Index) -> None:
    text = HEAD + "table = ['a(int x) -> int', 'b() -> ()']\nfor row in table:\n    lib.define(row)\n"
    assert [entry.name for entry in entries_of(text) if entry.kind == "op"] == ["mine::a", "mine::b"]


@pytest.mark.parametrize(
    "text",
    [
        "for row in other():\n    lib.impl(row, f)\n",
        "for row, f in other():\n    lib.impl(row, f)\n",
        "def f(row):\n    lib.impl(row, g)\n",
        "def f():\n    for row in other():\n        lib.impl(row, g)\n",
        "row = other()\nlib.impl(row, f)\n",
        "def f(table):\n    for row in table:\n        lib.impl(row, g)\n",
        "table = [row for row in table if keeps(row)]\nfor row in table:\n    lib.impl(row, g)\n",
    ],
)
def test_what_a_loop_went_over_is_not_what_its_name_is_elsewhere(entries_of: Index, text: str) -> None:
    table = "table = ['a', 'b']\nfor row in table:\n    lib.impl(row, f)\n"
    assert [entry.line for entry in entries_of(HEAD + table + text) if entry.kind == "kernel"] == [6, 6]


@pytest.mark.parametrize("over", ["('a', 'b')", "['a', 'b']", "{'a': f, 'b': g}", "{'a': f, 'b': g}.items()"])
def test_a_loop_over_literals_registers_each(entries_of: Index, over: str) -> None:
    target = "row, made" if "items" in over else "row"
    found = entries_of(HEAD + f"for {target} in {over}:\n    lib.impl(row, made, 'CPU')\n")
    assert [entry.name for entry in found if entry.kind == "kernel"] == ["mine::a", "mine::b"]


@pytest.mark.parametrize(
    "text",
    [
        "lib = other()\nlib.impl('a', f)\n",
        "for lib in others:\n    lib.impl('a', f)\n",
        "class C:\n    lib = other()\n    lib.impl('a', f)\n",
        "def f(ops):\n    register_lowering(ops.a)(f)\n",
        "def f():\n    ops = other()\n    register_lowering(ops.a)(f)\n",
        "def f():\n    for ops in others:\n        register_lowering(ops.a)(f)\n",
    ],
)
def test_a_name_that_is_bound_anew_is_no_library_and_no_operator(entries_of: Index, text: str) -> None:
    head = HEAD + "ops = torch.ops.mine\n"
    assert [entry.name for entry in entries_of(head + text) if entry.kind in ("kernel", "lowering")] == []


def test_a_loop_that_cuts_the_name_from_each_schema_registers_for_it(entries_of: Index) -> None:
    head = HEAD + "table = ['a(int x) -> int', 'b() -> ()']\nfor row in table:\n"
    for cut in ("row[0 : row.index('(')]", "row[: row.find('(')]", "row.split('(')[0]", "row.partition('(')[0]"):
        found = entries_of(head + f"    name = {cut}\n    lib.impl(name, meta, 'Meta')\n")
        assert [entry.name for entry in found if entry.kind == "kernel"] == ["mine::a", "mine::b"], cut
    for cut in ("row[1 : row.index('(')]", "row[: row.index(')')]", "row.split('(')[1]", "row.split(x)[0]"):
        assert [
            e for e in entries_of(head + f"    name = {cut}\n    lib.impl(name, meta)\n") if e.kind == "kernel"
        ] == []


@pytest.mark.parametrize(
    "text",
    [
        "x.define(f())",
        "x.impl('add', f, 'CPU')",
        "lib.define(name)",
        "register_lowering(op)(f)",
        "f().impl()",
        "register_lowering(native.add)()",
        "_register_effectful_op('mine::add', None)",
        "for op, f in table.items():\n    lib.impl(op, f, 'Meta')",
    ],
)
def test_what_is_computed_at_run_time_is_left_out(entries_of: Index, text: str) -> None:
    assert [entry.name for entry in entries_of(HEAD + text + "\n") if "::" in entry.name] == []


def test_the_originals_register_what_they_do(original_entries: list[Entry]) -> None:
    count = Counter((entry.file.rpartition("/")[2], entry.kind) for entry in original_entries)
    assert count["comm_lowering.py", "lowering"] >= 18
    assert count["_fsdp_collectives.py", "op"] == 3
    assert count["_fsdp_collectives.py", "kernel"] >= 21
    assert count["_functional_collectives.py", "kernel"] >= 32  # 12 of them for the legacy ops, in a loop
    assert count["_functional_collectives.py", "gradient"] >= 12
    assert count["_functional_collectives.py", "side effect"] >= 8
    legacy = {entry.name for entry in original_entries if entry.kind == "op"}
    assert {"c10d_functional::all_reduce", "c10d_functional::wait_tensor", "fsdp::chunk_cat"} <= legacy


def test_an_operator_name_lands_on_the_closure_that_lowers_it(original_entries: list[Entry]) -> None:
    hit = search("_c10d_functional::all_reduce_", original_entries)[0].entry
    assert hit.kind == "lowering"
    closure = next(
        e for e in original_entries if e.kind == "nested function" and (e.file, e.line) == (hit.file, hit.line)
    )
    assert closure.name == "torch._inductor.comm_lowering.register_comm_lowerings._all_reduce_"
