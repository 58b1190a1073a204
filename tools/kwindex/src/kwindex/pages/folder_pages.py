"""The three pages of a folder (what is in it, how it stands among the others, its keywords) and those of the whole."""

from collections import Counter
from collections.abc import Iterable, Iterator
from posixpath import basename, dirname

from kwindex.kinds import TABLE, USED
from kwindex.model import Entry
from kwindex.pages.file_pages import MARK, Places, keyword_rows, last_name
from kwindex.pages.markdown import block, code, link, plain, section, table
from kwindex.pages.tree import SAID, SourcePage, Tree
from kwindex.render import first_sentence

INDEX, DOC, SUB = "index.md", "doc.md", "sub.md"
KEYWORDS = "keywords"
MOST_KEYWORDS = 5_000
"""Keywords that one page shows, about a megabyte; a folder of more leads to the folders in it."""
_MOST_NEIGHBOURS = 12


def path_in(folder: str, name: str) -> str:
    """Returns the path of a page of a folder; the folder of the whole is ''.

    Example:
        >>> path_in("", "index.md"), path_in("a/b", "sub.md")
        ('index.md', 'a/b/sub.md')
    """
    return f"{folder}/{name}" if folder else name


def index_page(folder: str, tree: Tree) -> str:
    """Returns the list of a folder's files and folders."""
    here = path_in(folder, INDEX)
    files = [
        (
            link(code(basename(page.file)), here, page.docs),
            link("keywords", here, page.keywords),
            page.kind[0],
            f"{page.outline.lines:,}",
            plain(first_sentence(page.outline.docstring)),
        )
        for page in tree.folders[folder]
    ]
    inside = [
        (
            link(code(basename(other)), here, path_in(other, INDEX)),
            f"{len(tree.below(other)):,}",
            plain(first_sentence(_docstring(other, tree))),
        )
        for other in tree.folders
        if other and dirname(other) == folder
    ]
    unread = [
        (code(basename(problem.file)), str(problem.line or ""), plain(problem.why))
        for problem in tree.unread
        if dirname(problem.file) == folder
    ]
    links = " · ".join(_around(folder, here))
    lines = [MARK, "", f"# {code(folder) if folder else 'All files'}", "", links, ""]
    lines += section("Files", table(["file", "keywords", "sort", "lines", "what it is"], files))
    lines += section("Folders", table(["folder", "files", "what it is"], inside))
    lines += section("Not read", table(["file", "line", "why"], unread))
    return "\n".join(lines).rstrip() + "\n"


def doc_page(folder: str, tree: Tree) -> str:
    """Returns how a folder stands among the others: its own words, what it holds, whom it needs and who needs it."""
    below = tree.below(folder)
    counted = Counter(entry.kind for page in below for entry in page.entries)
    counts = [(one.plural, f"{counted[one.word]:,}") for one in TABLE if counted[one.word]]
    kinds = Counter(page.kind[0] for page in below)
    text = _docstring(folder, tree)
    here = path_in(folder, DOC)
    lines = [MARK, "", f"# About {code(folder) if folder else 'all files'}", "", " · ".join(_around(folder, here)), ""]
    lines += section("In its own words", block(text) if text else [])
    lines += section(
        "Files by what they are", table(["kind", "files"], [(k, str(n)) for k, n in sorted(kinds.items())])
    )
    lines += section("What they hold", table(["kind", "entries"], counts))
    lines += section("Needs", _neighbours(folder, tree, tree.imports, here))
    lines += section("Is needed by", _neighbours(folder, tree, tree.importers, here))
    return "\n".join(lines).rstrip() + "\n"


def sub_page(folder: str, tree: Tree, places: Places) -> str:
    """Returns the keywords of a folder and of all folders in it; without imports, which are not defined there.

    A folder that holds nothing but one folder leads to that one's page, which would be the same; one that holds too
    many for a page shows those of its own files and leads to the pages of the folders in it.
    """
    here = path_in(folder, SUB)
    title = f"# Keywords {f'below {code(folder)}' if folder else 'of all files'}"
    lines = [MARK, "", title, "", " · ".join(_around(folder, here)), ""]
    inside = [other for other in tree.folders if other and dirname(other) == folder]
    if len(inside) == 1 and not tree.folders[folder]:
        lead = link(code(path_in(inside[0], SUB)), here, path_in(inside[0], SUB))
        return "\n".join([*lines, f"All of them are in one folder: {lead}."]) + "\n"
    found = _keywords(tree.below(folder))
    if len(found) > MOST_KEYWORDS and inside:
        rows = [
            (link(code(basename(other)), here, path_in(other, SUB)), f"{len(_keywords(tree.below(other))):,}")
            for other in inside
        ]
        lines += [f"These are {len(found):,}. Those in folders:", "", *table(["folder", "keywords"], rows), ""]
        found = _keywords(tree.folders[folder])
        lines += ["Those of the files here:", ""] if found else []
    shown = keyword_rows(here, found, places)
    return "\n".join([*lines, *(places.said() if shown else []), *shown]).rstrip() + "\n"


def _keywords(pages: Iterable[SourcePage]) -> list[tuple[SourcePage, Entry]]:
    return [(page, entry) for page in pages for entry in page.entries if _is_keyword(entry)]


def keyword_pages(tree: Tree, places: Places) -> Iterator[tuple[str, str]]:
    """Yields the keywords of the whole, a page for each first letter, and the page that leads to them."""
    by_letter: dict[str, list[tuple[SourcePage, Entry]]] = {}
    for page in tree.files.values():
        for entry in page.entries:
            if _is_keyword(entry):
                by_letter.setdefault(letter(entry), []).append((page, entry))
    rows = []
    for first, found in sorted(by_letter.items()):
        path = f"{KEYWORDS}/{first}.md"
        rows.append((link(first, f"{KEYWORDS}.md", path), f"{len(found):,}"))
        lines = [MARK, "", f"# Keywords: {first}", "", link("all letters", path, f"{KEYWORDS}.md"), ""]
        yield path, "\n".join([*lines, *places.said(), *keyword_rows(path, found, places)]) + "\n"
    lines = [
        MARK,
        "",
        "# Keywords",
        "",
        link("all files", f"{KEYWORDS}.md", INDEX),
        "",
        *table(["letter", "keywords"], rows),
    ]
    yield f"{KEYWORDS}.md", "\n".join(lines) + "\n"


def letter(entry: Entry) -> str:
    """Returns the letter under which a keyword stands, without regard to case and leading underscores.

    Example:
        >>> [letter(Entry(name, "class", "m.py", 1, 1, "", "")) for name in ("m.Abc", "m.__b", "m.éa", "m._")]
        ['a', 'b', 'other', 'other']
    """
    first = last_name(entry).lstrip("_")[:1].lower()
    return first if first.isascii() and first.isalpha() else "other"


def _is_keyword(entry: Entry) -> bool:
    return entry.kind not in ("import", *SAID, *USED)


def _docstring(folder: str, tree: Tree) -> str:
    door = tree.files.get(path_in(folder, "__init__.py"))
    return door.outline.docstring if door is not None else ""


def _around(folder: str, here: str) -> Iterator[str]:
    """Yields links to the other pages of a folder, to the folder above and to the keywords of the whole."""
    for name, shown in ((INDEX, "files"), (DOC, "about"), (SUB, "keywords below")):
        if path_in(folder, name) != here:
            yield link(shown, here, path_in(folder, name))
    if folder:
        yield link("folder above", here, path_in(dirname(folder), INDEX))
    yield link("all keywords", here, f"{KEYWORDS}.md")


def _neighbours(folder: str, tree: Tree, edges: dict[str, list[str]], here: str) -> list[str]:
    """Returns the folders on the other end of imports, the most connected first, with the number of files."""
    inside = {page.file for page in tree.below(folder)}
    counted = Counter(dirname(other) for file in sorted(inside) for other in edges[file] if other not in inside)
    best = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [
        (link(code(other or "all files"), here, path_in(other, INDEX)), str(count))
        for other, count in best[:_MOST_NEIGHBOURS]
    ]
    return table(["folder", "imports"], rows)
