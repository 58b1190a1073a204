"""One file's record, from its bytes alone: what each of those that look at its syntax tree finds.

Nothing is imported or run.
"""

import ast
from collections.abc import Iterator

from kwindex import all_names, concepts, settings
from kwindex.exported import ALL
from kwindex.given import IS_NAME
from kwindex.messages import templates
from kwindex.model import Entry, FileRecord, Want, in_order
from kwindex.named import may_name, variables_named
from kwindex.parsing import decode, parse
from kwindex.render import docstring_of, first_sentence
from kwindex.scope import Scope
from kwindex.spans import last_line
from kwindex.statements import Statements

_OWNERS = {"module", "class", "function", "method", "property", "nested function"}
_DEPRECATED = "deprecat"


def extract(data: bytes, file: str, module: str) -> list[Entry]:
    r"""Returns the entries of one Python source file, in the order of its lines.

    Args:
        data: The bytes of the file.
        file: The path that its entries carry.
        module: Its dotted name, the prefix of every qualified name in it.

    Raises:
        SourceError: The bytes are not text, or the text is not Python; says at which line.

    Example:
        >>> entries = extract(b"def outer():\n    def inner(x): ...\n", "m.py", "m")
        >>> [(entry.name, entry.line) for entry in entries]
        [('m', 1), ('m.outer', 1), ('m.outer.inner', 2)]
    """
    return record_of(data, file, module).entries


def record_of(data: bytes, file: str, module: str) -> FileRecord:
    r"""Returns all that one Python source file says: its entries as `extract` does, what it gives and what it wants.

    Example:
        >>> record_of(b"import os\ndef read(name): return os.environ[name]\n", "m.py", "m").gives
        {'m.read()': 'name* |'}
    """
    text = decode(data)
    tree = parse(text)
    record = FileRecord.of(file, module)
    visitor = Statements(record, file.endswith(("/__init__.py", "/__init__.pyi")), tree)
    visitor.add("module", module, (1, last_line(text)), "", first_sentence(docstring_of(tree.body)))
    visitor.run()
    if ALL in text:
        all_names.complete(record.entries, tree.body, module)
    definitions = [entry for entry in record.entries if entry.kind in _OWNERS]
    _add_settings(record, tree, text, definitions)
    if may_name(text):
        record.gives.update((f"{module}.{name}{IS_NAME}", told) for name, told in variables_named(tree))
    if _DEPRECATED in text:
        record.gives.update(_texts(visitor.module))
    if concepts.may_hold(text):
        record.entries.extend(concepts.entries(tree, text, definitions))
    return record._replace(entries=in_order(record.entries))


def _add_settings(record: FileRecord, tree: ast.Module, text: str, definitions: list[Entry]) -> None:
    """Adds the environment variables and config keys that a module reads, and what it asks others to read."""
    imports = [record.entries[place] for place, _ in record.targets]
    if settings.may_read(text):
        found = settings.read(tree, text, imports, definitions)
        record.entries.extend(one.entry(record.file) for one in found.readings)
        record.gives.update(found.readers.given(record.module))
        record.wants.extend(Want(f"{path}{IS_NAME}", "", one.entry(record.file)) for path, one in found.by_constants)
    if settings.may_ask(text, imports):
        known = {entry.name for entry in record.entries if entry.kind == settings.VARIABLE}
        for target, key, one in settings.asked_of_others(tree, text, imports, definitions):
            if one.name not in known:
                record.wants.append(Want(target, key, one.entry(record.file)))


def _texts(module: Scope) -> Iterator[tuple[str, str]]:
    """Yields the constants of a module that say that something is deprecated, each with its text."""
    for name in filter(str.isupper, module.noted()):
        texts = templates([ast.Name(name)], module)
        if len(texts) == 1 and _DEPRECATED in texts[0]:
            yield module.qualify(name), texts[0]
