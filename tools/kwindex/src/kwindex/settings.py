"""Settings that code reads: environment variables, and attributes of config modules."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kwindex.link import target_of
from kwindex.model import Entry
from kwindex.named import Named, may_be_variable
from kwindex.readers import Readers
from kwindex.render import expression, string_of
from kwindex.shadows import Around, Shadows, children
from kwindex.spans import holds, one_ended, owners_of

_STRINGS = (ast.JoinedStr, ast.FormattedValue)
_READS = {"get", "pop", "setdefault", "__getitem__"}
_ENVIRONMENT = {"os.environ": "environ", "os.getenv": "getenv"}
_CONFIG, VARIABLE = "config", "environment variable"
_TOLD = ("envvar", "env_var", "env_name", "env_name_default", "env_name_force")
"""The arguments by which calls are told the variables that they read, such as torch's `Config(env_name_force="X")`."""
_DISPLAYS = (ast.List, ast.Tuple)
_CANDIDATES = (ast.Call, ast.Subscript, ast.Compare, ast.Attribute)
"""The expressions that may read a setting."""
_AFTER_FIRST = (ast.Call, ast.Subscript, ast.Attribute)
_ENV = "env"
"""What the names of functions hold that may read the environment for other modules."""


class Reading(NamedTuple):
    """One place where a setting is read."""

    kind: str
    name: str
    line: int
    end_line: int
    text: str
    owner: str
    """The qualified name of what it stands in."""

    def entry(self, file: str) -> Entry:
        """Returns the entry of the reading."""
        return Entry(self.name, self.kind, file, self.line, self.end_line, self.text, f"read in {self.owner}")


class Found(NamedTuple):
    """What a module reads, and its functions that read what they are told."""

    readings: list[Reading]
    readers: Readers
    by_constants: list[tuple[str, Reading]]
    """The constants of other modules that name what is read, each with the reading, which lacks the name."""


class Import(NamedTuple):
    """What an imported name stands for, and whether that is a module for sure."""

    path: str
    is_module: bool


class Imports:
    """What the names that a file imports stand for, each where it is imported.

    Args:
        statements: The qualified name of each import, and its statement for this name alone.

    Example:
        >>> imports = Imports([("m.f.config", "from lib import config"), ("m.lib", "import lib.config")])
        >>> imports.meaning("m.f.g", "config").path, imports.meaning("m", "config"), imports.meaning("m", "lib").path
        ('lib.config', None, 'lib')
    """

    def __init__(self, statements: Iterable[tuple[str, str]]) -> None:
        self._known: dict[str, Import] = {}
        for name, statement in statements:
            is_module = statement.startswith("import ")
            is_first_part = is_module and " as " not in statement.partition("  # ")[0]
            path = name.rpartition(".")[2] if is_first_part else target_of(statement)
            self._known[name] = Import(path, is_module)

    def meaning(self, owner: str, name: str) -> Import | None:
        """Returns what a name means in a definition, looking outward as Python does."""
        while owner:
            found = self._known.get(f"{owner}.{name}")
            if found is not None:
                return found
            owner = owner.rpartition(".")[0]
        return None

    def bound(self, ends: str) -> set[str]:
        """Returns the names that stand for a path with this end."""
        return {
            name.rpartition(".")[2]
            for name, one in self._known.items()
            if one.path == ends or one.path.endswith(f".{ends}")
        }


def may_read(text: str) -> bool:
    """Says whether a source can hold a reading at all: only then is its tree gone through.

    Example:
        >>> may_read("os.environ['A']"), may_read("x = 1")
        (True, False)
    """
    if f"{_CONFIG}." in text:
        return True
    return _ENV in text and any(word in text for word in ("environ", "getenv", "envvar", "env_var", "env_name"))


def read(tree: ast.Module, text: str, entries: Sequence[Entry], owners: Sequence[Entry]) -> Found:
    r"""Returns each setting that a module reads, once, in the order of the source.

    Only what stands around the words of such a reading is looked at: most of a tree is not. A key of a config module
    is all that is read of it, `config.triton.cudagraphs`; a function of the module that is called is none.

    Args:
        tree: The syntax tree of the module.
        text: Its source.
        entries: Its imports.
        owners: Its definitions, itself first: an outer one before an inner one.

    Example:
        >>> text = "import lib.config as cfg\na = os.environ.get('A', '0')\nb = cfg.cpu.size"
        >>> module = Entry("m", "module", "m.py", 1, 3, "", "")
        >>> cfg = Entry("m.cfg", "import", "m.py", 1, 1, "import lib.config as cfg", "")
        >>> [(r.kind, r.name, r.line) for r in read(ast.parse(text), text, [cfg], [module]).readings]
        [('environment variable', 'A', 2), ('config key', 'lib.config.cpu.size', 3)]
    """
    imports = Imports((entry.name, entry.signature) for entry in entries)
    environment = {*_ENVIRONMENT.values()} | imports.bound("os.environ") | imports.bound("os.getenv")
    lines = _lines_of(text, environment.union(_TOLD if _ENV in text else ()), imports.bound(_CONFIG))
    shadows = Shadows(by_statements=":=" not in text)
    named = Named(tree, shadows)
    readers = Readers(tree, shadows)
    found: list[Reading] = []
    others: list[tuple[str, Reading]] = []
    for node, around, owner in _owned(tree, lines, owners):
        asked, key, told = _asked(node, owner, imports), _config_key(node, owner, imports), [*_told(node)]
        if not (asked or key or told) or shadows.hide(_first(node), around):
            continue  # most are about no setting at all: what is bound around these need not be known
        readers.add(asked, around)
        if names := named.by(asked, around):
            found += (_reading(VARIABLE, name, node, owner) for name in names)
        elif path := _constant(asked, owner, imports):
            if not shadows.hide(_first(asked or node), around):
                others.append((path, _reading(VARIABLE, "", node, owner)))
        elif key:
            found.append(_reading("config key", key, node, owner))
        found += (_reading(VARIABLE, name, place, owner, shown) for name, place, shown in told)
    found += _by_readers(tree, text, readers, named, owners)
    return Found(_once(found), readers, others)


def _once(found: Iterable[Reading]) -> list[Reading]:
    """Returns the first reading of each setting, in the order of the source."""
    first: dict[tuple[str, str], Reading] = {}
    for reading in sorted(found, key=lambda reading: reading.line):
        first.setdefault((reading.kind, reading.name), reading)
    return sorted(first.values(), key=lambda reading: (reading.line, reading.kind, reading.name))


def may_ask(text: str, entries: Iterable[Entry]) -> bool:
    """Says whether a module may tell a function of another one what to read of the environment.

    Example:
        >>> flag = Entry("m.env_flag", "import", "m.py", 1, 1, "from lib import env_flag", "")
        >>> may_ask("a = env_flag('A')", [flag]), may_ask("a = env_flag(1)", [flag])
        (True, False)
    """
    return _ENV in text and any(_is_asked(text, entry) for entry in entries if _ENV in entry.signature)


def _is_asked(text: str, entry: Entry) -> bool:
    last = entry.name.rpartition(".")[2]
    if last == "*":
        return False
    may_be = _ENV in target_of(entry.signature).rpartition(".")[2] and entry.signature.startswith("from ")
    called = rf"{last}\((?<!\w{last}\()"  # it begins with letters alone, which are found soon
    return may_be and re.search(rf"{called}\s*(?:\w+\s*=\s*)?['\"]", text) is not None


def asked_of_others(
    tree: ast.Module, text: str, entries: Sequence[Entry], owners: Sequence[Entry]
) -> Iterator[tuple[str, str, Reading]]:
    """Yields what imported functions with `env` in their names are told: the function, the parameter, the reading."""
    imports = Imports((entry.name, entry.signature) for entry in entries)
    names = {entry.name.rpartition(".")[2] for entry in entries if _is_asked(text, entry)}
    shadows = Shadows(by_statements=":=" not in text)
    named = Named(tree, shadows)
    for node, around, owner in _owned(tree, _lines_of(text, names, ()), owners):
        callee = node.func if isinstance(node, ast.Call) else None
        if not isinstance(node, ast.Call) or not isinstance(callee, ast.Name) or callee.id not in names:
            continue
        known = imports.meaning(owner, callee.id)
        if known is None or shadows.hide(callee.id, around):
            continue
        told = [*enumerate(node.args), *((word.arg, word.value) for word in node.keywords)]
        for key, value in told:
            for name in filter(str.isupper, named.by(value, around)):
                yield f"{known.path}()", str(key), _reading(VARIABLE, name, node, owner)


def _reading(kind: str, name: str, node: ast.expr, owner: str, shown: str = "") -> Reading:
    return Reading(kind, name, node.lineno, node.end_lineno or node.lineno, shown or expression(node, 120), owner)


def _by_readers(tree: ast.Module, text: str, readers: Readers, named: Named, owners: Sequence[Entry]) -> list[Reading]:
    """Returns the readings by calls of functions that read what they are told, and of those that hand it on to them."""
    found: list[Reading] = []
    known = 0
    while known < len(readers):
        known = len(readers)
        found = []
        for node, around, owner in _owned(tree, _lines_of(text, readers.names, ()), owners):
            for value in readers.values(node, around) if isinstance(node, ast.Call) else ():
                readers.add(value, around)
                found += (_reading(VARIABLE, name, node, owner) for name in named.by(value, around))
    return found


def _owned(tree: ast.Module, lines: list[int], owners: Sequence[Entry]) -> Iterator[tuple[ast.expr, Around, str]]:
    """Yields the candidates on some lines, in order, with what binds names around them and what they stand in."""
    found = sorted(_candidates(tree, lines), key=lambda pair: pair[0].lineno)
    for (node, around), owner in zip(found, owners_of((node.lineno for node, _ in found), owners), strict=True):
        yield node, around, owner


def _candidates(tree: ast.Module, lines: list[int]) -> Iterator[tuple[ast.expr, Around]]:
    """Yields the expressions on some lines that may read a setting, each with what is around; of `a.b.c` the whole."""
    stack: list[tuple[ast.AST, Around]] = [(tree, ())]
    while stack:
        node, around = stack.pop()
        inner: Iterable[tuple[ast.AST, Around]] = children(node, around)
        if isinstance(node, _CANDIDATES):
            yield node, around
            if isinstance(node, ast.Call) and _chain(node.func):
                inner = ((child, around) for child in (*node.args, *node.keywords))
            elif isinstance(node, ast.Attribute) and _chain(node):
                inner = ()
        inside_string = isinstance(node, _STRINGS)  # whose parts do not know their lines
        stack += (child for child in inner if inside_string or holds(child[0], lines))


def _first(node: ast.expr) -> str:
    """Returns the name that begins what may read a setting, '' where it begins with another thing."""
    if isinstance(node, ast.Compare):
        node = node.comparators[0]
    while isinstance(node, _AFTER_FIRST):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _lines_of(text: str, environment: Iterable[str], configs: Iterable[str]) -> list[int]:
    """Returns the lines on which a word stands that a reading needs."""
    text = one_ended(text)
    words = {*environment, *configs}
    places = {place for name in words for place in _places(text, name) if _whole(text, place, len(name))}
    places.update(place + 1 for place in _places(text, f".{_CONFIG}."))
    lines: list[int] = []
    line, counted = 1, 0
    for place in sorted(places):
        line += text.count("\n", counted, place)
        counted = place
        lines.append(line)
    return lines


def _places(text: str, word: str) -> Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + len(word))


def _whole(text: str, place: int, length: int) -> bool:
    """Says whether letters at a place are a name, and not a part of one."""
    before, after = text[place - 1 : place], text[place + length : place + length + 1]
    return not (before and f"_{before}".isidentifier()) and not (after and f"_{after}".isidentifier())


def _asked(node: ast.expr, owner: str, imports: Imports) -> ast.expr | None:
    """Returns what names the environment variable that an expression reads, None for any other."""
    asked: ast.expr | None = None
    if isinstance(node, ast.Call):
        callee = node.func
        if _is(callee, "os.getenv", owner, imports) or (
            isinstance(callee, ast.Attribute)
            and callee.attr in _READS
            and _is(callee.value, "os.environ", owner, imports)
        ):
            asked = next(iter([*node.args, *(word.value for word in node.keywords if word.arg == "key")]), None)
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        asked = node.slice if _is(node.value, "os.environ", owner, imports) else None
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
        asked = node.left if _is(node.comparators[0], "os.environ", owner, imports) else None
    return asked


def _constant(asked: ast.expr | None, owner: str, imports: Imports) -> str:
    """Returns the constant of another module that names what is read, '' for any other expression."""
    chain = _chain(asked) if asked is not None else []
    known = imports.meaning(owner, chain[0]) if chain and chain[-1].isupper() else None
    return ".".join([known.path, *chain[1:]]) if known is not None else ""


def _told(node: ast.expr) -> Iterator[tuple[str, ast.expr, str]]:
    """Yields the environment variables that a call is told to read, where each stands, and the argument."""
    for word in node.keywords if isinstance(node, ast.Call) else ():
        if word.arg in _TOLD:
            for item in word.value.elts if isinstance(word.value, _DISPLAYS) else (word.value,):
                name = string_of(item)
                if name and may_be_variable(name):
                    yield name, item, f"{word.arg}={expression(word.value, 120)}"


def _is(node: ast.expr, path: str, owner: str, imports: Imports) -> bool:
    """Says whether an expression is `os.environ` or `os.getenv`, under whatever name."""
    word = _ENVIRONMENT[path]
    if isinstance(node, ast.Attribute):
        return node.attr == word
    if not isinstance(node, ast.Name):
        return False
    known = imports.meaning(owner, node.id)
    return known.path == path if known is not None else node.id == word


def _config_key(node: ast.expr, owner: str, imports: Imports) -> str:
    """Returns the key of a config module that an expression reads, '' for any other."""
    chain = _chain(node.func)[:-1] if isinstance(node, ast.Call) else _chain(node)
    if len(chain) < 2 or (isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)):
        return ""
    known = imports.meaning(owner, chain[0])
    if known is None:
        return ""
    path, rest = known.path.split("."), chain[1:]
    if path[-1] != _CONFIG:
        if not known.is_module or _CONFIG not in rest[:-1]:
            return ""
        place = rest.index(_CONFIG) + 1
        path, rest = path + rest[:place], rest[place:]
    of_config = path[-2:-1] == [_CONFIG] and not known.is_module
    if rest[0].startswith("__") or rest[0] == _CONFIG or of_config or _is_class(rest[-1]):
        return ""
    return ".".join([*path, *rest])


def _is_class(word: str) -> bool:
    return word[:1].isupper() and not word.isupper()


def _chain(node: ast.expr) -> list[str]:
    """Returns the parts of a dotted name, none for any other expression."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []
