"""The index for other tools: tags for editors, an inventory for documentation sites, a list for language models."""

import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from kwindex.errors import KwindexError
from kwindex.model import Entry
from kwindex.render import printable
from kwindex.store import not_ours, replace

TAGS, INVENTORY, LIST = "tags", "objects.inv", "llms.txt"

_TAGS_HEAD = [
    "!_TAG_FILE_FORMAT\t2\t/extended format/",
    "!_TAG_FILE_SORTED\t1\t/by the bytes of the name/",
    "!_TAG_PROGRAM_NAME\tkwindex\t//",
]
_LETTERS = {
    "module": "n",
    "class": "c",
    "function": "f",
    "method": "m",
    "property": "p",
    "nested function": "F",
    "field": "a",
    "constant": "C",
    "variable": "v",
    "type alias": "t",
    "op": "o",
    "kernel": "k",
    "gradient": "g",
    "lowering": "l",
    "decomposition": "d",
    "import": "i",
}
_ROLES = {
    "module": "module",
    "class": "class",
    "function": "function",
    "nested function": "function",
    "method": "method",
    "property": "property",
    "field": "attribute",
    "constant": "data",
    "variable": "data",
    "type alias": "type",
}


def tags_text(entries: Iterable[Entry], paths: Mapping[str, str]) -> str:
    r"""Returns a tags file in the extended format of ctags, sorted, lines in place of patterns.

    Args:
        entries: The entries of an index.
        paths: For each file of an entry, the path that an editor opens.

    Example:
        >>> entry = Entry("m.C.f", "method", "m.py", 3, 4, "f(self)", "Does it.")
        >>> tags_text([entry], {"m.py": "../m.py"}).splitlines()[-1]
        'f\t../m.py\t3;"\tm\tline:3\tscope:m.C\tend:4'
    """
    lines = []
    for entry in entries:
        scope, _, name = ("", "", entry.name) if "::" in entry.name else entry.name.rpartition(".")
        if entry.kind in _LETTERS and entry.file in paths and name not in ("", "*"):
            within = f"\tscope:{scope}" if scope else ""
            ends = f"\tend:{entry.end_line}" if entry.end_line > entry.line else ""
            kind = _LETTERS[entry.kind]
            lines.append(f'{name}\t{paths[entry.file]}\t{entry.line};"\t{kind}\tline:{entry.line}{within}{ends}')
    return "\n".join([*_TAGS_HEAD, *sorted(lines, key=lambda line: line.encode("utf-8", "surrogateescape"))]) + "\n"


def inventory_data(entries: Iterable[Entry], project: str, pages: Mapping[Entry, str]) -> bytes:
    r"""Returns an inventory as Sphinx and mkdocstrings read it: each name with the page that shows it.

    Args:
        entries: The entries of an index.
        project: What the inventory is of.
        pages: For each entry that is shown, the address of its page, with the anchor.

    Example:
        >>> entry = Entry("m.f", "function", "m.py", 1, 1, "f()", "")
        >>> data = inventory_data([entry], "m", {entry: "m.py_docs.md#f"})
        >>> zlib.decompress(data.split(b"zlib.", 1)[1].split(b"\n", 1)[1])
        b'm.f py:function 1 m.py_docs.md#f -\n'
    """
    rows: dict[str, str] = {}
    for entry in entries:
        if entry.kind in _ROLES and entry in pages and " " not in entry.name:
            rows.setdefault(entry.name, f"{entry.name} py:{_ROLES[entry.kind]} 1 {pages[entry]} -\n")
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The rest is compressed with zlib.\n"
    body = "".join(rows[name] for name in sorted(rows))
    return head.encode() + zlib.compress(body.encode("utf-8", "backslashreplace"), 9)


def list_text(title: str, entries: Iterable[Entry], pages: Mapping[Entry, str]) -> str:
    """Returns what llmstxt.org describes: a heading, then every file's page with its first sentence.

    Example:
        >>> entry = Entry("m", "module", "m.py", 1, 9, "", "Does it.")
        >>> print(list_text("mine", [entry], {entry: "m.py_docs.md"}), end="")
        # mine
        <BLANKLINE>
        ## Modules
        <BLANKLINE>
        - [m](m.py_docs.md): Does it.
    """
    rows = [
        f"- [{_words(entry.name)}]({pages[entry]})" + (f": {_words(entry.summary)}" if entry.summary else "")
        for entry in sorted(entries)
        if entry.kind == "module" and entry in pages
    ]
    return "\n".join([f"# {_words(title)}", "", "## Modules", "", *rows]) + "\n"


def _words(text: str) -> str:
    """Returns text with which nothing begins in Markdown: no tag, no link, no picture."""
    return re.sub(r"([\\\[\]])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")


def check(tags: Path | None, lists: Path | None) -> None:
    """Refuses to replace tags or lists that another tool wrote.

    Args:
        tags: The folder that tags go to, if any.
        lists: That of the inventory and the list, if any; they are kwindex's where its pages stand beside them.

    Raises:
        KwindexError: A file of one of these names is there and is not kwindex's.

    Example:
        >>> check(Path("/no/such/folder"), None)
    """
    if tags is not None and not _may_replace_tags(tags / TAGS):
        raise not_ours(tags / TAGS)
    if lists is not None and not (lists / "keywords.md").exists():
        for name in (INVENTORY, LIST):
            if os.path.lexists(lists / name):
                raise not_ours(lists / name)


def _may_replace_tags(path: Path) -> bool:
    """Says whether there is no tags file yet, or one that begins as ours do."""
    try:
        with path.open("rb") as file:
            return [file.readline(200).decode("utf-8", "replace").rstrip() for _ in _TAGS_HEAD] == _TAGS_HEAD
    except FileNotFoundError:
        return True
    except OSError:
        return False


def write(path: Path, data: bytes) -> Path:
    """Writes an export whole or not at all.

    Raises:
        KwindexError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, [data])
    except OSError as error:
        raise KwindexError(f"cannot write {error.filename or path}: {error.strerror}") from None
    return path


def openable(paths: Mapping[str, str], out: Path) -> dict[str, str]:
    """Returns for each file the path that leads to it from the folder of the tags file.

    Example:
        >>> openable({"m.py": "/a/m.py"}, Path("/a/index"))
        {'m.py': '../m.py'}
    """
    return {file: printable(Path(os.path.relpath(path, out)).as_posix()) for file, path in paths.items()}
