"""Messages that a class of errors makes itself, and those that functions raise as they are told them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import Entry, build, open_searcher, read_index
from kwindex.extract import record_of

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


def test_an_instance_calls_the_method_of_its_own_class(entries_of: Index) -> None:
    one = (
        "class {0}:\n    def fail(self, msg):\n        raise {1}(msg)\n"
        "    def g(self):\n        self.fail('{0} is bad')\n"
    )
    other = (
        "class T(TestCase):\n    def test(self):\n        self.fail('no method of it')\n"
        "        B.fail(self, 'B is told')\n"
    )
    assert errors_of(entries_of(one.format("A", "ValueError") + one.format("B", "TypeError") + other)) == [
        ("m.A.g", 5, "ValueError: A is bad"),
        ("m.B.g", 10, "TypeError: B is bad"),
        ("m.T.test", 14, "TypeError: B is told"),
    ]


def test_a_method_that_a_class_leaves_open_raises_as_the_classes_that_derive_from_it_say(entries_of: Index) -> None:
    text = (
        "class A:\n    def fail(self, text):\n        'Raises.'\n        raise NotImplementedError('abstract')\n"
        "    def shout(self, text):\n        print(text)\n"
        "    def f(self, x):\n        self.fail(f'no {x} here')\n        self.shout('not an error')\n"
        "        x.fail('of another thing')\n"
        "class B(A):\n    def fail(self, text):\n        raise RuntimeError(text)\n"
        "    def shout(self, text):\n        raise KeyError(text)\n"
        "class C(B):\n    def fail(self, text):\n        raise lib.Odd(text)\n"
        "class D(other.A):\n    def fail(self, text):\n        raise OSError(text)\n"
        "class E(E):\n    def fail(self, text):\n        raise OSError(text)\n"
    )
    assert errors_of(entries_of(text)) == [
        ("m.A.fail", 4, "NotImplementedError: abstract"),
        ("m.A.f", 8, "RuntimeError: no {x} here"),
        ("m.A.f", 8, "lib.Odd: no {x} here"),
    ]


def test_what_torch_says_of_triton_kernels_is_found(torch_folder: Path, tmp_path: Path) -> None:
    build([torch_folder / "_higher_order_ops/triton_kernel_wrap.py"], tmp_path / "out")
    said = {entry.signature for entry in read_index(tmp_path / "out") if entry.kind == "error"}
    assert {"RuntimeError: Only tuple grids are supported", "RuntimeError: Grid can have at most rank 3"} <= said


def test_what_a_function_raises_for_one_call_is_listed_once(entries_of: Index) -> None:
    text = "def f(msg):\n    raise E(msg)\nf('it is bad'); f('it is bad')\n"
    text += "def g(msg):\n" + "".join(f"    if x:\n        raise E{n}(msg)\n" for n in range(9)) + "g('any of these')\n"
    assert [signature for _, _, signature in errors_of(entries_of(text))] == [
        "E: it is bad",
        *(f"E{n}: any of these" for n in range(4)),
    ]


@pytest.mark.parametrize(
    ("parameters", "raises", "call", "found"),
    [
        ("h, msg, error=ValueError", "error(msg)", "x, 'it is bad'", ["ValueError: it is bad"]),
        ("h, msg, *, error=lib.Odd", "error(msg)", "x, 'it is bad'", ["lib.Odd: it is bad"]),
        ("msg, error=ValueError", "error(msg)", "'it is bad', TypeError", ["TypeError: it is bad"]),
        ("msg, error=None", "error(msg)", "'it is bad'", []),
        ("msg, error=made()", "error(msg)", "'it is bad'", []),
        ("msg, error=ValueError", "error(msg)", "'it is bad', lambda t: t", []),
        ("msg, error=ValueError", "error(msg)", "'it is bad', **more", []),
        ("where, msg", "CommError(where, msg)", "'the where part', 'it is bad'", []),
        ("where, msg", "CommError(msg, where=where)", "'the where part', 'it is bad'", []),
        ("where, msg", "CommError('at', msg.x, where)", "'the where part', 'it is bad'", ["CommError: at"]),
        ("*msg", "E(msg)", "'it is bad'", []),
        ("**msg", "E(msg)", "msg='it is bad'", []),
        ("msg, *args", "E(msg, args)", "'it is bad'", []),
    ],
)
def test_which_error_is_raised_with_which_message_is_known_or_not_told(
    entries_of: Index, parameters: str, raises: str, call: str, found: list[str]
) -> None:
    text = f"def f({parameters}):\n    raise {raises}\nf({call})\n"
    assert [signature for _, _, signature in errors_of(entries_of(text))] == found


def test_an_error_that_a_function_imports_is_known(entries_of: Index) -> None:
    text = "def f(msg):\n    from lib import Odd\n    raise Odd(msg)\nf('it is bad')\n"
    assert errors_of(entries_of(text)) == [("m", 4, "Odd: it is bad")]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        *(("error", one) for one in ("error = self.kind", "error: type = A if x else B", "for error in kinds: pass")),
        ("ValueError", "if msg := made(msg): pass"),
        ("ValueError", "match msg:\n        case [msg, 1]: pass"),
        ("ValueError", "match x:\n        case [*msg]: pass"),
        ("ValueError", "match x:\n        case {'a': 1, **msg}: pass"),
        ("ValueError", "match x:\n        case A(b=[1, msg]): pass"),
        ("ValueError", "for msg in x: pass"),
        ("ValueError", "with x as (msg, y): pass"),
        ("ValueError", "try: pass\n    except E as msg: pass"),
        ("ValueError", "msg += x"),
    ],
)
def test_an_error_or_message_that_a_function_binds_anew_is_not_what_a_call_tells(
    entries_of: Index, error: str, text: str
) -> None:
    found = errors_of(entries_of(f"def f(msg):\n    {text}\n    raise {error}(msg)\nf('it is bad')\n"))
    assert found == []


def test_a_function_whose_name_stands_for_another_thing_in_the_end_is_not_told_of() -> None:
    text = "def f(msg):\n    raise ValueError(msg)\n"
    assert list(record_of(text.encode(), "m.py", "m").gives) == ["m.f(!)"]
    assert record_of(f"{text}f = other\n".encode(), "m.py", "m").gives == {}


def test_only_what_the_base_of_an_error_is_told_in_its_init_is_its_message(entries_of: Index) -> None:
    text = (
        "class E(lib.OddError, Mixin):\n    def __init__(self, n):\n        super().__init__('of super')\n"
        "        lib.OddError.__init__(self, 'of the base')\n        Mixin.__init__(self, 'of a mixin')\n"
        "        OddError.__init__(other, 'of another')\n        self.x.__init__('of a field')\n"
        "    def helper(self):\n        super().__init__('of a helper')\n"
        "def f():\n    class E(list):\n        def __init__(self):\n            super().__init__('of a list')\n"
    )
    assert errors_of(entries_of(text)) == [("m.E.__init__", 3, "E: of super"), ("m.E.__init__", 4, "E: of the base")]


def test_what_stands_behind_an_unpacked_argument_has_no_place() -> None:
    text = "from lib import or_raise\nor_raise('at first', *x, 'behind it', why='by name')\n"
    found = record_of(text.encode(), "m.py", "m").wants
    assert [(want.key, want.entry.signature) for want in found] == [("0", "at first"), ("why", "by name")]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("mode = os.environ.get('DEPRECATED')\n    warnings.warn(f'mode {mode} is slow')", 0),
        ("warnings.warn('no such name: ' + str({'deprecated': 1}))", 0),
        ("logger.warning('f is not deprecated')", 0),
        ("logger.warning('f is undeprecated')", 0),
        ("logger.warning('no is_deprecated here')", 0),
        ("logger.warning('skip %s', 'deprecated')", 0),
        ("warnings.warn('{} is old'.format('deprecated'))", 0),
        ("warnings.warn(lambda: 'deprecated')", 0),
        ("text = 'f is deprecated'\n    text = 'f is old'\n    warnings.warn(text)", 0),
        ("warnings.warn('{} is Deprecated: %s'.format(x) % y)", 1),
        ("text = f'{x} is deprecated'\n    warnings.warn(text + more)", 1),
        ("warnings.warn('all is well' if x else textwrap.dedent('f is deprecated'))", 1),
    ],
)
def test_a_message_itself_says_that_something_is_deprecated(entries_of: Index, text: str, count: int) -> None:
    assert len([entry for entry in entries_of(f"def f(x):\n    {text}\n") if entry.kind == "deprecation"]) == count


METHOD = "@classmethod\n        def f(cls, msg):\n            raise E(msg)"
CLASS = (
    "class C{0}:\n    def fail(self, msg):\n        raise E(msg)\n    def g(self):\n        self.fail('C{0} is bad')\n"
)


@pytest.mark.parametrize(
    ("first", "each"),
    [
        ("", "def fail_{0}(msg):\n    raise E(msg)\nfail_{0}('{0} is bad')\n"),
        ("", "def fail(msg):\n    raise E(msg)\nfail('{0} is bad')\n"),
        ("", CLASS),
        ("", f"{CLASS}C{{0}}.fail(x, msg='it is bad')\n"),
        ("", f"def f{{0}}():\n    class A:\n        {METHOD}\n    A.f('is bad')\n"),
        ("def f(msg):\n    pass\n", "    raise E{0}(msg)\n    f('{0} is bad')\n"),
        ("def f():\n    text = ''\n", "    text = text + 'part {0}'\n    warnings.warn(text)\n"),
        ("def f():\n    pass\n", "    text{0} = 'part {0}'\n    warnings.warn(text{0} + ' is old')\n"),
        ("from lib import or_raise\n", "or_raise('it is {0}')\n"),
    ],
)
def test_twice_as_much_takes_no_more_than_twice_the_steps(
    steps_of: Callable[[str], int], first: str, each: str
) -> None:
    once, twice = (steps_of(first + "".join(each.format(n) for n in range(count))) for count in (60, 120))
    assert twice < 2.1 * once


def test_a_long_text_is_looked_at_once_for_all_warnings_with_it(steps_of: Callable[[str], int]) -> None:
    def of(count: int) -> int:
        return steps_of(f"def f():\n    text = {' + '.join(count * ['x'])}\n" + count * "    warnings.warn(text)\n")

    assert of(120) < 2.1 * of(60)


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
