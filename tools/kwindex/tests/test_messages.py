"""Messages that code gives: errors as templates, deprecations with what replaces them, and pasted text."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwindex import Entry
from kwindex.messages import replacement
from kwindex.pasted import Message, plain

Index = Callable[[str], list[Entry]]


def told(entries: list[Entry], kind: str) -> list[tuple[str, int, str, str]]:
    return [(e.name, e.line, e.signature, e.summary) for e in entries if e.kind == kind]


def test_messages_that_a_function_of_the_file_makes(entries_of: Index) -> None:
    text = (
        "def f(x):\n    raise ValueError(_msg(x, 'given'))\n"
        "def _msg(x, word):\n    'Says it.'\n    text = f'got {x}'\n    def inner():\n        return 'not this'\n"
        "    if x:\n        return text + '; need one'\n    return f'need {word}, not {x}'\n"
        "class A:\n    def g(self, x):\n        raise E(self._why(x))\n        raise E(_why(x))\n"
        "        raise E(o._why(x))\n"
        "    def _why(self, x):\n        return 'why {}'.format(x)\n    @classmethod\n    def h(cls):\n"
        "        raise self._why(1)\n        raise E(cls._why(1))\n        assert 0, _msg(1, '')\n"
        "def k(x):\n    def local():\n        return 'a local one'\n    raise E(local())\n    raise made(x)\n"
        "    torch._check(x, lambda: _msg(x, ''))\n    torch._check(x, local)\n    raise again(x)\n    raise odd(x)\n"
        "    raise lib.made(x)\n    raise E(deep(x))\n"
        "def made(x):\n    if x:\n        return lib.ShapeError(f'shape {x} is odd')\n"
        "    error = ValueError(_msg(x, ''))\n    return error\n"
        "def again(x):\n    return E(again(x))\ndef odd(x):\n    return x\ndef deep(x):\n    return _msg(x, '')\n"
        "def l(text):\n    text = 'of another place'\n    raise E(bare('a'))\ndef bare(text):\n    return text\n"
    )
    assert errors_of(entries_of(text)) == [
        (2, "ValueError: got {x}; need one"),
        (2, "ValueError: need given, not {x}"),
        (13, "E: why {}"),
        (21, "E: why {}"),
        (22, "AssertionError: got {x}; need one"),
        (22, "AssertionError: need {word}, not {x}"),
        (26, "E: a local one"),
        (27, "ValueError: got {x}; need one"),
        (27, "ValueError: need {word}, not {x}"),
        (27, "lib.ShapeError: shape {x} is odd"),
        (28, "RuntimeError: got {x}; need one"),
        (28, "RuntimeError: need {word}, not {x}"),
        (29, "RuntimeError: a local one"),
        (33, "E: got {x}; need one"),
        (33, "E: need {word}, not {x}"),
        (47, "E: a"),
    ]


def test_what_a_message_is_made_from_stands_in_it(entries_of: Index) -> None:
    text = (
        "def f(x):\n    word = f'{x} apples'\n    raise ValueError(_msg('pears', what=word))\n"
        "def _msg(one, /, *more, what):\n    return f'no {one}, {what} and {x!r}'\n"
        "class A:\n    def g(self):\n        raise E(self._why('late', *x, **y))\n"
        "    def _why(self, a, b=1):\n        return 'is ' + a\n"
        "def h():\n    raise _error('no path')\ndef _error(text):\n    return E('cannot start: ' + text)\n"
        "def i(what):\n    raise E(_msg(what, what=f'{one}'))\n"
    )
    assert errors_of(entries_of(text)) == [
        (3, "ValueError: no pears, {x} apples and {x}"),
        (8, "E: is late"),
        (12, "E: cannot start: no path"),
        (16, "E: no {one}, {one} and {x}"),
    ]


def test_messages_of_functions_that_call_each_other_come_to_an_end(entries_of: Index) -> None:
    many = "".join(f"    if x == {n}:\n        return f(f(g(x), g(x)), f(x, g(x)))\n" for n in range(20))
    text = f"def f(a, b=1):\n{many}def g(x):\n{many}def h():\n    raise f(g(1))\n    raise E(f(g(1)))\n"
    text += "    assert 0, f(g(1))\n"
    text += "def long():\n" + "    x = 1\n" * 200 + "    return 'of a long one'\ndef i():\n    raise E(long())\n"
    assert errors_of(entries_of(text)) == []


def test_errors_are_templates_at_the_place_that_raises_them(entries_of: Index) -> None:
    text = (
        "def f(x):\n    if x:\n        raise ValueError(\n            f'got {x!r} of {len(x):>3}, '\n"
        "            'need one')\n"
        "    assert x, 'x is empty'\n    raise\n"
        "class A:\n    def g(self):\n        raise lib.ShapeError(where='g', got=f'{x} ranks', need='a rank')\n"
        "raise RuntimeError('%s of %d (100%%)' % (a, b))\nraise KeyError('a' + b + 'c')\n"
        "raise OSError('{} is {}'.format(1, 2))\nraise err\nraise ValueError(msg)\nraise E(f'{x}')\nraise E from None\n"
    )
    assert told(entries_of(text), "error") == [
        ("m.f", 3, "ValueError: got {x} of {len(x)}, need one", ""),
        ("m.f", 6, "AssertionError: x is empty", ""),
        ("m.A.g", 10, "lib.ShapeError: g{…}{x} ranks{…}a rank", ""),
        ("m", 11, "RuntimeError: {…} of {…} (100%)", ""),
        ("m", 12, "KeyError: a{…}c", ""),
        ("m", 13, "OSError: {} is {}", ""),
    ]


def errors_of(entries: list[Entry]) -> list[tuple[int, str]]:
    return [(line, text) for _, line, text, _ in told(entries, "error")]


def test_messages_that_are_bound_to_a_name_first(entries_of: Index) -> None:
    text = (
        "TEXT = 'of the module'\ndef f(x):\n    msg = f'got {x}'\n    raise ValueError(msg)\n"
        "def g(x):\n    if x:\n        msg = 'first'\n    else:\n        msg = 'second'\n    raise E(msg)\n"
        "    msg = 'third'\n    msg += f' and {x}'\n    raise E(msg)\n"
        "def h(x):\n    raise E(TEXT)\ndef i(msg):\n    raise E(msg)\n"
        "def j():\n    msg: str = 'is {}'\n    raise E(msg.format(1)) from None\n    msg = other\n    raise E(msg)\n"
        "def k():\n    error = lib.E('made before')\n    raise error\n    raise TEXT\n    raise unknown\n"
        "    assert x, TEXT\n"
    )
    assert errors_of(entries_of(text)) == [
        (4, "ValueError: got {x}"),
        (10, "E: first"),
        (10, "E: second"),
        (13, "E: third"),
        (13, "E: third and {x}"),
        (15, "E: of the module"),
        (20, "E: is {}"),
        (25, "lib.E: made before"),
        (28, "AssertionError: of the module"),
    ]


def test_messages_in_other_forms(entries_of: Index) -> None:
    text = (
        "raise E(textwrap.dedent('''\n    On\n    two lines.'''))\nraise E('a' if x else f'b {x}')\n"
        "raise E('one ' + ('two' if x else 'three'))\nraise E('of more'.strip(), f(x))\nraise E(', '.join(names))\n"
    )
    assert errors_of(entries_of(text)) == [
        (1, "E: On two lines."),
        (4, "E: a"),
        (4, "E: b {x}"),
        (5, "E: one three"),
        (5, "E: one two"),
        (6, "E: of more"),
    ]


def test_what_checks_of_torch_raise(entries_of: Index) -> None:
    text = (
        "torch._check(x > 0, lambda: f'need {x}')\ntorch._check_index(x, message=lambda: 'no such')\n"
        "torch._check_with(NotImplementedError, x, lambda: 'not done')\ntorch._check(x)\nself._check(x, 'ours')\n"
        "torch._check_value(x, said)\ntorch.check_more(x, lambda: 'no')\n"
        "def f(x):\n    msg = 'bound'\n    torch._check_type(x, lambda: msg)\n"
        "    unimplemented(gb_type='Odd call', context='', explanation=f'{x} is odd.', hints=[])\n"
        "    exc.unimplemented(gb_type=x, explanation=y)\n    unimplemented('text')\n"
    )
    assert errors_of(entries_of(text)) == [
        (1, "RuntimeError: need {x}"),
        (2, "IndexError: no such"),
        (3, "NotImplementedError: not done"),
        (10, "TypeError: bound"),
        (11, "Unsupported: Odd call{…}{x} is odd."),
    ]


def test_deprecations_say_what_replaces_them(entries_of: Index) -> None:
    text = (
        "@deprecated('`f` is deprecated. Please use `lib.g` instead.', category=FutureWarning)\ndef f(): ...\n"
        "def h():\n    warnings.warn('h is old', DeprecationWarning, stacklevel=2)\n"
        "    warnings.warn(f'{x} goes in favor of new_name', category=FutureWarning)\n"
        "    warnings.warn('careful', UserWarning)\n    warnings.warn('use new_name')\n"
        "@typing_extensions.deprecated('gone')\nclass C: ...\n@other('use `x`')\ndef i(): ...\n"
        "warnings.warn(FutureWarning('i is old, use lib.j'))\nmsg = 'k is old'\nwarn(msg, DeprecationWarning)\n"
        "@deprecated(msg)\ndef l(): ...\nn = deprecated('use `o`', category=FutureWarning)(o)\n"
    )
    assert told(entries_of(text), "deprecation") == [
        ("m.f", 1, "`f` is deprecated. Please use `lib.g` instead.", "replaced by lib.g"),
        ("m.h", 4, "h is old", ""),
        ("m.h", 5, "{x} goes in favor of new_name", "replaced by new_name"),
        ("m.C", 8, "gone", ""),
        ("m", 12, "i is old, use lib.j", "replaced by lib.j"),
        ("m", 14, "k is old", ""),
        ("m.l", 15, "k is old", ""),
        ("m.n", 17, "use `o`", "replaced by o"),
    ]


def test_a_docstring_may_say_that_something_is_deprecated(entries_of: Index) -> None:
    text = (
        "def f():\n    '''Does it.\n\n    .. deprecated:: 2.0\n        Use `lib.g` instead.\n\n    More.\n    '''\n"
        "class C:\n    'Was. .. deprecated:: no directive'\n"
        "class D:\n    '''Is.\n\n    .. deprecated:: use lib.E\n    '''\n"
        "def h():\n    '''Does it.\n\n    .. deprecated:: 1.22.\n\n    More.\n    '''\n"
    )
    assert told(entries_of(text), "deprecation") == [
        ("m.f", 1, "2.0 Use `lib.g` instead.", "replaced by lib.g"),
        ("m.D", 11, "use lib.E", "replaced by lib.E"),
        ("m.h", 16, "deprecated since 1.22.", ""),
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("use `with x` around it", ""),
        ("please use the new way", ""),
        ("replaced by AsyncTensor", "AsyncTensor"),
        ("2.5 Please use :func:`torch.compile` instead.", "torch.compile"),
        ("Passing a dict is deprecated. Please pass in a QConfigMapping instead.", "QConfigMapping"),
        ("Deprecated, use `@prof` instead", "prof"),
        ("f is deprecated. Please see `nn.attention.sdpa_kernel()` for the new one.", "nn.attention.sdpa_kernel"),
        ("do not pass an X instead of a list", ""),
        ("Use torch.vmap()", "torch.vmap"),
        ("use 'dim' instead", "dim"),
        ("because of this, reuse a_b", ""),
    ],
)
def test_a_replacement_is_surely_an_identifier(text: str, name: str) -> None:
    assert replacement(text) == name


def test_settings_that_are_read(entries_of: Index) -> None:
    text = (
        "import os\nfrom lib import config\nimport lib.config as cfg\nimport lib.other.config\n"
        "from lib import confine\n"
        "class A:\n    x = os.environ.get('A_B', '0')\n    def f(self):\n"
        "        return [os.getenv('C') for i in config.size], os.environ['A_B'], cfg.depth.deeper, confine.no\n"
        "os.environ['SET'] = '1'\nif 'D' in os.environ or config.size: pass\nlib.no_key\nconfig.size = 2\n"
        "os.environ.get(name)\nother['E']\n'config.text'\n"
    )
    found = [(e.kind, e.name, e.line, e.summary) for e in entries_of(text) if e.summary.startswith("read in")]
    assert found == [
        ("environment variable", "A_B", 7, "read in m.A"),
        ("environment variable", "C", 9, "read in m.A.f"),
        ("config key", "lib.config.depth.deeper", 9, "read in m.A.f"),
        ("config key", "lib.config.size", 9, "read in m.A.f"),
        ("environment variable", "D", 11, "read in m"),
    ]


def settings_of(entries: list[Entry]) -> list[tuple[str, int, str]]:
    found = [e for e in entries if e.kind in ("config key", "environment variable")]
    return [(e.name, e.line, e.summary.removeprefix("read in ")) for e in found]


SHADOWED = """
import os
from os import environ
from lib import config
def parameter(config): return config.no, lambda: config.no
def assigned():
    config = load()
    return config.no
def walked(configs):
    for config in configs: print(config.no)
    return [config.no for config in configs], {c.x: config.no for c in configs}
def written():
    global config
    config = 1
    return config.one
def imported():
    def inner(config): return config.no
    from other import config
    return config.two, [config.three for _ in config.four]
def outside(x=config.five, y: "int" = lambda config: config.no) -> config.six:
    def reads(): return config.seven
    try: ...
    except E as config: config.no
@config.eight
def decorated(config): ...
def comprehended(): return [config.no for config in config.nine if config.no], config.ten
class C:
    config = 1
    def method(self): return config.eleven
def app(environ, os): return environ["NO"], environ.get("NO"), "NO" in os.environ, os.getenv("NO")
def env(): return environ["YES"], os.environ.get("ALSO")
"""


def test_a_name_that_a_function_binds_for_itself_is_no_config_module(entries_of: Index) -> None:
    entries = entries_of(SHADOWED)
    keys = [entry.name for entry in entries if entry.kind == "config key"]
    wanted = ["one", "two", "three", "four", "five", "six", "eight", "nine", "ten", "eleven"]
    assert sorted(keys) == sorted(
        f"{'other' if word in ('two', 'three', 'four') else 'lib'}.config.{word}" for word in wanted
    )
    assert [entry.name for entry in entries if entry.kind == "environment variable"] == ["ALSO", "YES"]


def test_a_class_of_a_config_module_is_no_config_key(entries_of: Index) -> None:
    text = (
        "from lib.config import config as old\nfrom lib import config\nimport a.config.config as cfg\n"
        "old.no, config.config.no, config.Config, config.A_B, cfg.x\n"
    )
    found = [entry.name for entry in entries_of(text) if entry.kind == "config key"]
    assert found == ["a.config.config.x", "lib.config.A_B"]


def test_a_config_key_is_all_that_is_read_of_a_config_module(entries_of: Index) -> None:
    text = (
        "import a.b.config, a.b as ab\nfrom a import obj, config\nfrom x import config as cfg\n"
        "def f():\n    from y import config\n    return config.inner, lambda: config.deep.est\n"
        "a.b.config.one, ab.config.two.three, a.b.other, ab.conf\n"
        "config.patch(x=1)\nconfig.text.lower()\nwith cfg.patch(four=1): cfg.five = 2\n"
        "cfg.six[cfg.seven].eight(cfg.nine)\n"
        "obj.config.no, self.config.no, config, config.__name__, f().config.no\ndel cfg.no\ncfg.no.no = 1\n"
        "x = (config\n    .ten\n    .eleven)\n@cfg.twelve\nclass C: ...\n"
    )
    assert settings_of(entries_of(text)) == [
        ("y.config.deep.est", 6, "m.f"),
        ("y.config.inner", 6, "m.f"),
        ("a.b.config.one", 7, "m"),
        ("a.b.config.two.three", 7, "m"),
        ("a.config.text", 9, "m"),
        ("x.config.nine", 11, "m"),
        ("x.config.seven", 11, "m"),
        ("x.config.six", 11, "m"),
        ("a.config.ten.eleven", 15, "m"),
        ("x.config.twelve", 18, "m"),
    ]


def test_variables_of_the_environment_by_other_names(entries_of: Index) -> None:
    text = (
        "import os as o\nfrom os import environ as env, getenv as ge\nA = 'BY_CONSTANT'\nTWICE = 'X'\nTWICE = 'Y'\n"
        "small = 'NO'\ndef f():\n    return o.environ.get(A), env['BY_ALIAS'], ge('BY_FUNCTION')\n"
        "o.getenv(key='BY_KEYWORD', default='0')\nenv.get(TWICE), env[small], ge(), ge(f'P_{A}'), env['SET'] == 1\n"
        "env['NOT_READ'] = '1'\ndef environ(x): ...\n"
    )
    assert settings_of(entries_of(text)) == [
        ("BY_ALIAS", 8, "m.f"),
        ("BY_CONSTANT", 8, "m.f"),
        ("BY_FUNCTION", 8, "m.f"),
        ("BY_KEYWORD", 9, "m"),
        ("SET", 10, "m"),
    ]


def test_the_keys_of_torch_that_the_handbook_is_about(original_entries: list[Entry]) -> None:
    keys = {entry.name for entry in original_entries if entry.kind == "config key"}
    assert {name for name in keys if name.endswith(".compile_on_one_rank")}  # of another module from torch 2.14 on
    assert keys >= {
        "torch._inductor.config._collective.auto_select",
        "torch._inductor.config._collective.one_shot_all_reduce_threshold_bytes",
        "torch._inductor.config.reorder_for_compute_comm_overlap",
    }


def test_imports_that_may_not_happen_are_marked(entries_of: Index) -> None:
    text = (
        "import a\nif TYPE_CHECKING:\n    import b\nelse:\n    import c\n"
        "if typing.TYPE_CHECKING:\n    from x import d\n"
        "try:\n    import e\nexcept ImportError:\n    import f\nelse:\n    import g\n"
        "try:\n    def k():\n        import h\nexcept KeyError:\n    import i\n"
        "with contextlib.suppress(KeyError, ImportError):\n    import j\n"
        "with suppress(KeyError), open(x):\n    import l\n"
    )
    found = {
        e.name.rpartition(".")[2]: e.signature.partition("  # ")[2] for e in entries_of(text) if e.kind == "import"
    }
    assert found == {
        **dict.fromkeys("acghil", ""),
        **dict.fromkeys("bd", "for type checkers only"),
        **dict.fromkeys("ej", "may be missing"),
        "f": "where another is missing",
    }


def test_imports_under_a_condition_of_the_module_say_it(entries_of: Index) -> None:
    text = (
        "if sys.platform == 'win32':\n    import a\nelif not ready(1):\n    import b\nelse:\n    import c\n"
        "if x:\n    try:\n        import d\n    except ImportError:\n        import e\n"
        "    def f():\n        import g\n        if y:\n            import h\n"
        "    class C:\n        if z:\n            import i\n"
        "    if y:\n        import j as k\nelse:\n    import l\n"
        "if TYPE_CHECKING:\n    if x:\n        import m\n    else:\n        import t\nelse:\n    import n\n"
        "while x:\n    import o\nfor p in x:\n    import q\n"
        "if " + " and ".join(["something"] * 20) + ":\n    from r import s\n"
    )
    found = {
        e.name.rpartition(".")[2]: e.signature.partition("  # ")[2] for e in entries_of(text) if e.kind == "import"
    }
    assert {name: guard for name, guard in found.items() if name != "s"} == {
        "a": "if sys.platform == 'win32'",
        "b": "if not ready(1)",
        "c": "if ready(1)",
        "d": "may be missing",
        "e": "where another is missing",
        "g": "if x",
        "h": "if x",
        "i": "if x",
        "k": "if y",
        "l": "unless x",
        "m": "for type checkers only",
        "t": "for type checkers only",
        "n": "",
        "o": "",
        "q": "",
    }
    assert found["s"].startswith("if something and")
    assert len(found["s"]) < 70


words = st.text("abcdefgh ", min_size=1, max_size=20).filter(str.strip)


@given(st.lists(words, min_size=1, max_size=4), st.lists(st.text(max_size=12), min_size=4, max_size=4), words)
def test_a_template_answers_its_message_whatever_fills_the_holes(
    pieces: list[str], fillings: list[str], around: str
) -> None:
    message = Message.of("E: " + "{x}".join(pieces))
    filled = "".join(piece + filling for piece, filling in zip(pieces, fillings, strict=False))
    pasted = plain(f"{around} {filled} {around}")
    is_enough = message.letters >= 40 or 4 * message.letters >= len(pasted)
    assert message.answers(pasted) >= (message.letters >= 12 and is_enough)
    assert message.answers(pasted) <= (message.letters >= 12)


@given(words, words)
def test_a_template_answers_nothing_that_lacks_a_piece(one: str, other: str) -> None:
    message = Message.of(f"E: {one}{{x}}zzz {other} zzz")
    assert not message.answers(plain(f"{one} {other}"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("raise E(' '.join(['it is', 'bad']))", ["E: it is bad"]),
        ("raise E('-'.join(('got', f'{n}', str(n), 'here')))", ["E: got-{n}-{…}-here"]),
        ("text = ', '.join(['no', x])\n    raise E('say: ' + text)", ["E: say: no, {…}"]),
        ("raise E(' '.join(names))", []),
        ("raise E(sep.join(['it is', 'bad']))", []),
        ("raise E(' '.join([a, b]))", []),
    ],
)
def test_literals_that_are_joined_are_a_message(entries_of: Index, text: str, found: list[str]) -> None:
    entries = entries_of(f"def f(n, x):\n    {text}\n")
    assert [entry.signature for entry in entries if entry.kind == "error"] == found


def test_a_deprecation_is_told_in_literals_that_are_joined(entries_of: Index) -> None:
    text = "def f():\n    warnings.warn(' '.join(['f is', 'deprecated, use g_h']))\n"
    found = [entry.signature for entry in entries_of(text) if entry.kind == "deprecation"]
    assert found == ["f is deprecated, use g_h"]


TABLE = "SAID = {'odd': '{} is odd', 2: f'{n} is two'}\nROWS = ['first %s', 'second']\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("raise E(SAID[kind])", ["E: {n} is two", "E: {} is odd"]),
        ("raise E(SAID[kind].format(x))", ["E: {n} is two", "E: {} is odd"]),
        ("raise E(SAID['odd'].format(x))", ["E: {} is odd"]),
        ("raise E(ROWS[1])", ["E: second"]),
        ("raise E(ROWS[i] % x + '!')", ["E: first {…}!", "E: second!"]),
        ("raise E('it: ' + ROWS[-1])", ["E: it: second"]),
        ("raise E(SAID['gone'])", []),
        ("raise E(ROWS[2])", []),
        ("raise E(ROWS[:1])", []),
        ("raise E(ROWS[i])\nROWS = []", []),
        ("raise E(ROWS[i])\ndef f(ROWS): raise E(ROWS[0])", ["E: first %s", "E: second"]),
        ("raise E(ROWS[i])\ndef f():\n    global ROWS\n    ROWS = g()", []),
        ("MIXED = {1: 'a text', 2: 3}\nraise E(MIXED[i])", []),
        ("MORE = {**SAID, 1: 'a text'}\nraise E(MORE[i])", []),
        ("NUMBERS = [1, 2]\nraise E(NUMBERS[i])", []),
        ("raise E(lib.ROWS[i])", []),
    ],
)
def test_messages_that_stand_in_tables(entries_of: Index, text: str, found: list[str]) -> None:
    assert sorted(signature for _, _, signature, _ in told(entries_of(TABLE + text), "error")) == found


def test_all_messages_of_a_table_are_listed(entries_of: Index) -> None:
    rows = ", ".join(f"{n}: 'message {n}'" for n in range(30))
    text = f"SAID = {{{rows}}}\nraise E(SAID[kind])"
    assert len(told(entries_of(text), "error")) == 30
