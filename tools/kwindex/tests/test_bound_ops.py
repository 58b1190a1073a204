"""What is registered for operators that another module binds to its names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import Entry, build, read_index

MAKER = "import torch\ndef make_prim(name):\n    torch.library.custom_op(f'mine::{name}', f)\n"
OPS = (
    "import torch\nfrom lib.maker import make_prim\nfrom torch._ops import HigherOrderOperator\n"
    "seed = make_prim('inner_seed')\n"
    "class Cond(HigherOrderOperator):\n    def __init__(self):\n        super().__init__('cond')\n"
    "cond = Cond()\ntwice = make_prim('one')\ntwice = other\nunsure = Cond()\n"
    "def f():\n    global unsure\n    unsure = None\n"
    "@torch.library.custom_op('mine::add', mutates_args=())\ndef add(x): ...\n"
)
USER = (
    "from lib import ops\nfrom lib.ops import add, cond as when, seed, twice, unsure\n"
    "@register_lowering(ops.seed, x=None)\ndef a(): ...\n"
    "@when.py_impl(DispatchKey.Autograd)\ndef b(): ...\n"
    "@add.register_fake\ndef c(): ...\n"
    "make_fallback(seed)\nregister_decomposition([seed, when])(d)\n"
    "register_lowering(twice)(a)\nregister_lowering(unsure)(a)\nregister_lowering(ops.gone)(a)\n"
    "register_lowering([ops.seed, torch.ops.mine.known])(e)\n"
    "def g(seed):\n    make_fallback(seed)\n"
)
FOUND = [
    ("lowering", "mine::inner_seed", 4, "lowering: lib.user.a"),
    ("kernel", "higher_order::cond", 6, "Autograd kernel: lib.user.b"),
    ("kernel", "mine::add", 8, "fake kernel: lib.user.c"),
    ("lowering", "mine::inner_seed", 9, "fallback lowering"),
    ("decomposition", "higher_order::cond", 10, "decomposition: d"),
    ("decomposition", "mine::inner_seed", 10, "decomposition: d"),
    ("lowering", "mine::known", 14, "lowering: e"),
]


@pytest.fixture
def lib(tree: Callable[..., Path]) -> Path:
    files = {"lib/__init__.py": "", "lib/maker.py": MAKER, "lib/ops.py": OPS, "lib/user.py": USER}
    return tree(files) / "lib"


def test_what_is_registered_for_an_operator_of_another_module_is_listed_for_it(lib: Path, tmp_path: Path) -> None:
    build([lib], tmp_path / "out")
    entries: list[Entry] = [entry for entry in read_index(tmp_path / "out") if entry.file.endswith("user.py")]
    assert [(e.kind, e.name, e.line, e.summary) for e in entries if "::" in e.name] == FOUND
    assert "" not in {entry.name for entry in entries}


EDITS = {
    "another maker": ("maker.py", MAKER.replace("mine::", "yours::")),
    "no maker": ("maker.py", ""),
    "another operator": ("ops.py", OPS.replace("'inner_seed'", "'outer_seed'").replace("'cond'", "'when'")),
    "none for sure": ("ops.py", OPS + "seed = cond = add = None\n"),
    "no operators": ("ops.py", ""),
    "one that asks less": ("user.py", USER.replace("make_fallback(seed)\n", "")),
}


@pytest.mark.parametrize(("file", "text"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_and_its_undoing_give_the_bytes_of_a_build_from_nothing(
    lib: Path, edit_and_undo: Callable[[Path, str, str], None], file: str, text: str
) -> None:
    edit_and_undo(lib, file, text)


def test_the_lowerings_of_inductors_own_operators_are_found(torch_folder: Path, tmp_path: Path) -> None:
    files = ("_inductor/inductor_prims.py", "_inductor/lowering.py", "_prims/__init__.py")
    build([torch_folder / file for file in files], tmp_path / "out")
    lowered = {entry.name for entry in read_index(tmp_path / "out") if entry.kind == "lowering"}
    assert {"prims::inductor_seed", "prims::inductor_random", "prims::prepare_softmax_online"} <= lowered


DOOR = "from lib.ops import add, cond, seed as sown, twice\nfrom lib.ops import unsure\nadd = None\n"
OUTER = "from lib.door import cond, sown, twice\nfrom lib.door import add\nif cond:\n    from lib import maker\n"
GUEST = (
    "from lib.door.outer import add, cond, sown, twice\nimport lib.door.outer as outer\n"
    "make_fallback(sown)\nregister_lowering(outer.cond)(f)\n"
    "make_fallback(twice)\nmake_fallback(add)\nmake_fallback(outer.maker)\nmake_fallback(outer.gone)\n"
)


@pytest.fixture
def doors(tree: Callable[..., Path]) -> Path:
    files = {"lib/__init__.py": "", "lib/maker.py": MAKER, "lib/ops.py": OPS, "lib/guest.py": GUEST}
    files |= {"lib/door/__init__.py": DOOR, "lib/door/outer/__init__.py": OUTER}
    return tree(files) / "lib"


def test_an_operator_is_known_through_the_packages_that_hand_its_name_on(doors: Path, tmp_path: Path) -> None:
    build([doors], tmp_path / "out")
    entries: list[Entry] = [entry for entry in read_index(tmp_path / "out") if entry.file.endswith("guest.py")]
    assert [(e.kind, e.name, e.line) for e in entries if "::" in e.name] == [
        ("lowering", "mine::inner_seed", 3),
        ("lowering", "higher_order::cond", 4),
    ]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("door/__init__.py", ""),
        ("door/__init__.py", DOOR.replace("cond, seed as sown", "seed as cond")),
        ("door/outer/__init__.py", "from lib.ops import seed as sown, seed as cond\n"),
        ("ops.py", OPS.replace("'inner_seed'", "'outer_seed'").replace("'cond'", "'when'")),
        ("maker.py", MAKER.replace("mine::", "yours::")),
    ],
)
def test_an_edit_of_what_hands_on_gives_the_bytes_of_a_build_from_nothing(
    doors: Path, edit_and_undo: Callable[[Path, str, str], None], file: str, text: str
) -> None:
    edit_and_undo(doors, file, text)


def test_names_that_hand_each_other_on_in_a_circle_come_to_an_end(tree: Callable[..., Path], tmp_path: Path) -> None:
    files = {"lib/a/__init__.py": "from lib.b import op\n", "lib/b/__init__.py": "from lib.a import op\n"}
    files |= {"lib/__init__.py": "", "lib/user.py": "from lib.a import op\nmake_fallback(op)\n"}
    build([tree(files) / "lib"], tmp_path / "out")
    assert not [entry for entry in read_index(tmp_path / "out") if entry.kind == "lowering"]


def test_torchs_lowerings_of_operators_of_a_package_are_found(torch_folder: Path, tmp_path: Path) -> None:
    build([torch_folder / "_higher_order_ops", torch_folder / "_inductor/lowering.py"], tmp_path / "out")
    lowered = {entry.name for entry in read_index(tmp_path / "out") if entry.kind == "lowering"}
    assert {"higher_order::inline_asm_elementwise", "higher_order::invoke_quant"} <= lowered
