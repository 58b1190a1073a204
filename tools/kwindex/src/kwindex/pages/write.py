"""Writing the pages: all that the sources ask for, and none that an earlier build left."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from kwindex import exports
from kwindex.discover import SourceFile, discover
from kwindex.errors import KwindexError, SourceError
from kwindex.model import Entry, Problem
from kwindex.pages import folder_pages
from kwindex.pages.file_pages import MARK, Places, docs_page, keywords_page
from kwindex.pages.outline import outline
from kwindex.pages.tree import SourcePage, Tree, has_anchor
from kwindex.store import not_ours

FOLDER = "pages"
NOWHERE = Places()
_LONGEST_COMMIT = 200
_COMMIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z_+-]*(?:[./][0-9A-Za-z_+-]+)*")
"""A revision: nothing in it can end an address or a piece of Markdown, or lead out of where the sources are."""


def write_pages(
    sources: Iterable[str | Path],
    entries: Iterable[Entry],
    out: Path,
    *,
    places: Places = NOWHERE,
    title: str = "index",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Writes the pages of an index below `out/pages` and removes those that nothing asks for any more.

    Args:
        sources: The files and folders that were indexed.
        entries: The entries of the index.
        out: The folder of the index.
        places: Where lines of sources are published, and at which commit, as `places_at` gives it.
        title: What the inventory and the list call the whole.
        progress: Called with pages written so far and pages in all.

    Returns:
        How many pages there are.

    Raises:
        KwindexError: A page cannot be written, or a file there is not kwindex's.

    Example:
        >>> import tempfile
        >>> from kwindex import build, read_index
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "m.py").write_text("def f(): ...")
        ...     out = Path(folder, "..", Path(folder).name + "-index")
        ...     _ = build([folder], out)
        ...     write_pages([folder], read_index(out), out)
        8
    """
    tree = tree_of(sources, entries)
    total = 2 * len(tree.files) + 3 * len(tree.folders)
    written: set[Path] = set()
    for path, text in page_texts(tree, places):
        written.add(_write(out / FOLDER / path, text))
        if progress is not None:
            progress(min(len(written), total), total)
    _remove_others(out / FOLDER, written)
    _write_lists(tree, out / FOLDER, title)
    return len(written)


def tree_of(sources: Iterable[str | Path], entries: Iterable[Entry]) -> Tree:
    """Returns the tree that pages describe: the files of an index that can still be read.

    Example:
        >>> tree_of([__file__], []).files
        {}
    """
    found, by_file = discover(list(sources)), _by_file(entries)
    unread = list(found.problems)
    return Tree([page for source in found.files for page in _read(source, by_file, unread)], unread)


def places_at(address: str, commit: str = "") -> Places:
    """Returns how pages show lines: as links to where sources are published, or as text.

    Args:
        address: Such as `https://host/{file}#L{line}`; `{commit}` in it stands for the commit.
        commit: What the sources are, as the caller knows it: a hash, a tag or a branch. Nothing here can tell whether
            that is so.

    Raises:
        KwindexError: The address does not say where the file's path goes, or names a commit and none is given, or
            the commit has other characters than revisions of published sources have.

    Example:
        >>> places_at("https://host/{commit}/{file}#L{line}", "v2").line("m.py", 3)
        '[line 3](https://host/v2/m.py#L3)'
    """
    if address and "{file}" not in address:
        raise KwindexError(f"the address {address!r} has no {{file}}; write https://host/{{file}}#L{{line}}")
    if "{commit}" in address and not commit:
        raise KwindexError(f"the address {address!r} has {{commit}}; say what the sources are with --commit REV")
    if commit and (len(commit) > _LONGEST_COMMIT or not _COMMIT.fullmatch(commit)):
        raise KwindexError(
            f"the commit {commit!r} is no revision; give a hash, a tag or a branch: ASCII letters, digits and . _ + - /"
        )
    return Places(address.replace("{commit}", commit), commit)


def _write_lists(tree: Tree, folder: Path, title: str) -> None:
    """Writes the inventory for other sites and the list for language models."""
    shown = [(page, entry) for page in tree.files.values() for entry in page.entries]
    places = {
        entry: quote(page.docs) + (f"#{page.anchor(entry)}" if has_anchor(entry) else "")
        for page, entry in shown
        if entry.kind == "module" or has_anchor(entry)
    }
    entries = [entry for _, entry in shown]
    exports.write(folder / exports.INVENTORY, exports.inventory_data(entries, title, places))
    exports.write(folder / exports.LIST, exports.list_text(title, entries, places).encode("utf-8", "backslashreplace"))


def _by_file(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    return {file: list(found) for file, found in groupby(entries, key=lambda entry: entry.file)}


def _read(source: SourceFile, by_file: Mapping[str, list[Entry]], unread: list[Problem]) -> Iterator[SourcePage]:
    """Yields the page of a file of the index, if it can be read; else it is one more of the unread."""
    try:
        data = Path(source.path).read_bytes()
        made = outline(data, source.module, source.file.endswith("__init__.py"))
    except OSError as error:
        unread.append(Problem(source.file, 0, error.strerror or "cannot be read"))
    except SourceError as error:
        unread.append(Problem(source.file, error.line, error.why))
    else:
        if source.file in by_file:  # else it came after the index was made; the next build says so
            yield SourcePage(source.file, source.module, by_file[source.file], made)


def page_texts(tree: Tree, places: Places) -> Iterator[tuple[str, str]]:
    """Yields the path and the text of every page.

    Example:
        >>> [path for path, _ in page_texts(Tree([]), Places())]
        ['keywords.md']
    """
    for page in tree.files.values():
        yield page.docs, docs_page(page, tree, places)
        yield page.keywords, keywords_page(page, places)
    for folder in tree.folders:
        yield folder_pages.path_in(folder, folder_pages.INDEX), folder_pages.index_page(folder, tree)
        yield folder_pages.path_in(folder, folder_pages.DOC), folder_pages.doc_page(folder, tree)
        yield folder_pages.path_in(folder, folder_pages.SUB), folder_pages.sub_page(folder, tree, places)
    yield from folder_pages.keyword_pages(tree, places)


def _write(path: Path, text: str) -> Path:
    """Writes a page where it is new or changed."""
    data = text.encode("utf-8", errors="backslashreplace")
    try:
        if path.exists():
            old = path.read_bytes()
            if not _is_ours(old):
                raise not_ours(path)
            if old == data:
                return path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise KwindexError(f"cannot write {error.filename or path}: {error.strerror}") from None
    return path


def _is_ours(data: bytes) -> bool:
    return data.startswith(MARK.encode())


def _remove_others(folder: Path, kept: set[Path]) -> None:
    """Removes pages of earlier builds, and folders that are empty then."""
    for path in folder.rglob("*.md"):
        if path not in kept and _is_ours(path.read_bytes()):
            path.unlink()
    for path in sorted((one for one in folder.rglob("*") if one.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
