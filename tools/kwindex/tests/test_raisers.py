"""Messages that a class of errors makes itself, and those that functions raise as they are told them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import Entry, build, open_searcher, read_index

Index = Callable[[str], list[Entry]]


def errors_of(entries: list[Entry]) -> list[tuple[str, int, str]]:
    return [(entry.name, entry.line, entry.signature) for entry in entries if entry.kind == "error"]


def test_the_class_of_an_error_says_what_it_makes_of_what_it_is_told(entries_of: Index) -> None:
    text = (
        "class A(ValueError):\n    def __init__(self, n):\n        super().__init__(f'{n} is odd')\n"
        "class B(A):\n    def __init__(self, n):\n        text = 'B has ' + str(n)\n"
        "        ValueError.__init__(self, text)\n"
        "class C(lib.SomeException):\n    def __str__(self):\n        return f'kind {self.n}'\n"
        "    def other(self):\n        return 'no message'\n"
        "class D(Base):\n    def __init__(self):\n        super().__init__('no error')\n"
        "class E(KeyError):\n    def __init__(self, text, code):\n        super().__init__(f'{text} ({code})')\n"
        "    def __str__(self):\n        def inner():\n            return 'not this'\n        return self.text\n"
    )
    assert errors_of(entries_of(text)) == [
        ("m.A.__init__", 3, "A: {n} is odd"),
        ("m.B.__init__", 7, "B: B has {…}"),
        ("m.C.__str__", 10, "C: kind {self.n}"),
    ]


def test_a_function_that_raises_what_it_is_told_raises_where_it_is_called(entries_of: Index) -> None:
    text = (
        "def fail(text, code=1):\n    raise ValueError(text, code)\n"
        "def check(holds, text):\n    if not holds:\n        log(text)\n        raise RuntimeError(text)\n"
        "class A:\n    def f(self, x):\n        self._throw(TypeError, 'f of {} is not'.format(x))\n"
        "        fail(f'no {x} here')\n        check(x, text='x is ' + 'needed')\n        fail('word')\n"
        "        fail(x)\n        other.fail('of another')\n"
        "    def _throw(self, kind, message):\n        raise kind(message)\n"
        "def bound(text):\n    text = text.strip()\n    raise ValueError(text)\n"
        "bound('is not known')\nfail('at the top')\n"
        "def g(fail):\n    fail('of a parameter')\n"
    )
    assert errors_of(entries_of(text)) == [
        ("m.A.f", 9, "TypeError: f of {} is not"),
        ("m.A.f", 10, "ValueError: no {x} here"),
        ("m.A.f", 11, "RuntimeError: x is needed"),
        ("m", 21, "ValueError: at the top"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("warnings.warn('`f` is deprecated. Use `g` instead.', stacklevel=2)", [("m.f", "replaced by g")]),
        ("logger.warning('f is being DEPRECATED, use lib.g')", [("m.f", "replaced by lib.g")]),
        ("text = 'f will be deprecated'\n    warnings.warn(text, UserWarning)", [("m.f", "")]),
        ("warnings.warn('f is slow')\n    warnings.warn(deprecated)\n    logger.info('deprecated')", []),
    ],
)
def test_a_warning_of_any_kind_says_that_something_is_deprecated(
    entries_of: Index, text: str, found: list[tuple[str, str]]
) -> None:
    entries = entries_of(f"def f():\n    {text}\n")
    assert [(entry.name, entry.summary) for entry in entries if entry.kind == "deprecation"] == found


def test_a_warning_is_no_use_of_the_name_that_holds_its_text(entries_of: Index) -> None:
    text = (
        "def f(x):\n    text = 'one thing'\n    warnings.warn(text)\n    if x:\n        text = 'another'\n"
        "    raise E(text)\n"
    )
    assert [signature for _, _, signature in errors_of(entries_of(text))] == ["E: another", "E: one thing"]


def test_a_registration_by_another_name_is_one(entries_of: Index) -> None:
    text = (
        "from torch.library import register_fake as fake, impl\n"
        "from torch._inductor.lowering import register_lowering as lower\nnative = torch.ops.mine\n"
        "@fake('mine::add')\ndef f(x): ...\n@lower(native.add.default)\ndef g(x): ...\nlower(native.sub)(g)\n"
        "from lib import print_it as impl2\nimpl2('mine::no', 'CPU')\n"
    )
    found = [(entry.kind, entry.name) for entry in entries_of(text) if "::" in entry.name]
    assert found == [("kernel", "mine::add"), ("lowering", "mine::add"), ("lowering", "mine::sub")]


def test_a_higher_order_operator_has_its_gradient(entries_of: Index) -> None:
    text = (
        "class Op(HigherOrderOperator):\n    def __init__(self):\n        super().__init__('op')\nop = Op()\n"
        "@op.py_autograd_impl\ndef grad(x): ...\n@op.py_functionalize_impl\ndef functional(x): ...\n"
    )
    found = [(entry.kind, entry.summary) for entry in entries_of(text) if entry.name == "higher_order::op"]
    assert found == [
        ("op", "operator: m.Op"),
        ("gradient", "gradient: m.grad"),
        ("kernel", "functionalize kernel: m.functional"),
    ]


@pytest.mark.parametrize(
    ("query", "file", "kind"),
    [
        ("Invalid backend: 'foo', see `torch._dynamo.list_backends()` for available backends.", "exc.py", "error"),
        ("ValueError: device_ids can only be None or contain a single element.", "distributed.py", "error"),
        ("AssertionError: Expects storage to be freed but got storage with size 3", "_flat_param.py", "error"),
        ("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.", "functional.py", None),
    ],
)
def test_what_users_of_torch_paste_is_found(
    torch_folder: Path, tmp_path: Path, query: str, file: str, kind: str | None
) -> None:
    files = ("_dynamo/exc.py", "nn/parallel/distributed.py", "nn/functional.py")
    files += ("distributed/utils.py", "distributed/fsdp/_flat_param.py")
    build([torch_folder / name for name in files], tmp_path / "out")
    first = open_searcher(tmp_path / "out").search(query)[0].entry
    assert (Path(first.file).name, first.kind) == (file, kind or "deprecation")


LIB = "def check_or_raise(holds, text, *, why=''):\n    if not holds:\n        raise ValueError(text)\n"
USER = (
    "from lib import check_or_raise as or_raise\nimport lib\n"
    "def f(x):\n    or_raise(x, f'no {x} here')\n    lib.check_or_raise(x, text='not so')\n"
    "    or_raise(x, 'word', why='that is why')\n    or_raise('not the text', x)\n"
)


@pytest.fixture
def pair(tree: Callable[..., Path]) -> Path:
    return tree({"lib.py": LIB, "user.py": USER})


def test_a_function_of_another_module_raises_what_it_is_told(pair: Path, tmp_path: Path) -> None:
    build([pair], tmp_path / "out")
    entries = read_index(tmp_path / "out")
    assert errors_of(entries) == [
        ("user.f", 4, "ValueError: no {x} here"),
        ("user.f", 5, "ValueError: not so"),
    ]
    assert {entry.summary for entry in entries if entry.kind == "error"} == {"raised by lib.check_or_raise"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("lib.py", LIB.replace("raise ValueError(text)", "print(text)")),
        ("lib.py", LIB.replace("ValueError", "TypeError")),
        ("lib.py", LIB.replace("raise ValueError(text)", "raise ValueError(why)")),
        ("lib.py", ""),
        ("user.py", USER.replace("    lib.check_or_raise(x, text='not so')\n", "")),
        ("other.py", "x = 1\n"),
    ],
)
def test_an_edit_and_its_undoing_give_the_bytes_of_a_build_from_nothing(
    pair: Path, edit_and_undo: Callable[[Path, str, str], None], file: str, text: str
) -> None:
    edit_and_undo(pair, file, text)
