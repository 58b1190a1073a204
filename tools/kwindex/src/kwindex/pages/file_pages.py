"""The two pages of a source file: what is in it, and its keywords. A section without content is not there."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote

from kwindex.kinds import CONCEPT, KINDS, MENTION, TABLE, UNNAMED, heading
from kwindex.model import Entry
from kwindex.pages.markdown import block, code, link, plain, section, table
from kwindex.pages.tree import REGISTERED, SAID, SETTINGS, SourcePage, Tree, has_anchor, title_of
from kwindex.render import LONGEST_SIGNATURE, cut, first_sentence

MARK = "<!-- written by kwindex; do not edit -->"
_MOST_TESTS = 40


class Places(NamedTuple):
    """How lines of sources are shown: as text, or as links to where the sources are published."""

    address: str = ""
    """Such as `https://host/{file}#L{line}`; nothing for text."""
    commit: str = ""
    """What the caller says that the sources are, '' where nobody says."""

    def line(self, file: str, line: int) -> str:
        """Returns a line, on a page that says which file is meant.

        Example:
            >>> Places().line("a.py", 3), Places("https://host/{file}#L{line}").line("a.py", 3)
            ('line 3', '[line 3](https://host/a.py#L3)')
        """
        return self._linked(f"line {line}", file, line)

    def full(self, file: str, line: int) -> str:
        """Returns a line with its file.

        Example:
            >>> Places().full("a.py", 3)
            '`a.py:3`'
        """
        return self._linked(code(f"{file}:{line}"), file, line)

    def said(self) -> list[str]:
        """Returns the words about the commit on a page whose lines are of several files.

        Example:
            >>> Places(commit="1f2e3d4").said(), Places().said()
            (['Lines are those of commit `1f2e3d4`.', ''], [])
        """
        return [f"Lines are those of commit {code(self.commit)}.", ""] if self.commit else []

    def _linked(self, shown: str, file: str, line: int) -> str:
        if not self.address:
            return shown
        return f"[{shown}]({self.address.replace('{file}', quote(file)).replace('{line}', str(line))})"


def docs_page(page: SourcePage, tree: Tree, places: Places) -> str:
    """Returns the documentation page of a file."""
    sections = [
        _opening(page, places),
        section("Facts", _facts(page, places)),
        section("Overview", _overview(page.outline.docstring)),
        section("What is in it", _structure(page, places)),
        section("Imports", _imports(page, tree, places)),
        section("Imported by", [_docs_link(page, tree.files[file]) for file in tree.importers[page.file]]),
        section("Concepts", _concepts(page, tree, places)),
        *(section(title, _rows(page, kinds, places)) for title, kinds in _GROUPS),
        section("Refers to", _mentions(page, tree, places)),
        section("Tests that call it", _tests(page, tree)),
        section("What the tests call", _called(page, tree, places)),
        section("Related files", _related(page, tree)),
        [f"[Keywords]({_name(page.keywords)}) · [folder](index.md)"],
    ]
    return "\n".join(line for part in sections for line in part).rstrip() + "\n"


_GROUPS = (
    ("Registered with torch", REGISTERED),
    ("Settings that it reads", SETTINGS),
    ("Messages", SAID),
)


def keywords_page(page: SourcePage, places: Places) -> str:
    """Returns the keyword page of a file: every identifier with its kind, its line and its first sentence."""
    lines = [
        MARK,
        "",
        f"# Keywords: {code(page.file)}",
        "",
        f"[Documentation]({_name(page.docs)}) · [folder](index.md)",
        "",
        f"Names stand in {code(page.module)}.",
        *[f"Lines are those of commit {code(places.commit)}."] * bool(places.commit),
    ]
    for kind in TABLE:
        found = [entry for entry in page.entries if entry.kind == kind.word]
        rows = keyword_rows(page.keywords, [(page, entry) for entry in found], places)
        if rows:
            lines += ["", f"## {heading(kind.word)}", "", *rows]
    return "\n".join(lines) + "\n"


def keyword_rows(on: str, found: Iterable[tuple[SourcePage, Entry]], places: Places) -> list[str]:
    """Returns a table of entries, each linked to where the documentation pages show it; alphabetical."""
    ordered = sorted(found, key=lambda pair: (last_name(pair[1]).lower(), pair[1]))
    rows, alone = [], False
    for page, entry in ordered:
        target = link(code(last_name(entry)), on, page.docs, page.anchor(entry)) if has_anchor(entry) else _bare(entry)
        alone = on == page.keywords
        place = places.line if alone else places.full
        name = entry.name.removeprefix(f"{page.module}.") if alone else entry.name
        rows.append((target, entry.kind, code(name), place(entry.file, entry.line), plain(entry.summary)))
    return table(["keyword", "kind", "in the module" if alone else "in full", "line", "what it is"], rows)


def last_name(entry: Entry) -> str:
    """Returns what one would look an entry up by: the last part of its name, or the words of its message."""
    return entry.signature if entry.kind in UNNAMED else entry.name.rpartition(".")[2]


def _bare(entry: Entry) -> str:
    return code(last_name(entry))


def _name(path: str) -> str:
    return link("", "x", path.rpartition("/")[2])[3:-1]


def _opening(page: SourcePage, places: Places) -> list[str]:
    purpose = first_sentence(page.outline.docstring)
    said = [plain(purpose), ""] if purpose else []
    commit = f" at commit {code(places.commit)}" if places.commit else ""
    return [MARK, "", f"# {code(page.file)}", "", *said, f"Source: {places.full(page.file, 1)}{commit}", ""]


def _overview(docstring: str) -> list[str]:
    """Returns the docstring where it says more than its first sentence, which the page begins with."""
    return block(docstring) if first_sentence(docstring) != " ".join(docstring.split()) else []


def _facts(page: SourcePage, places: Places) -> list[str]:
    kind, rule = page.kind
    counted = Counter(entry.kind for entry in page.entries if entry.kind != "module")
    counts = [_counted(counted[one.word], one.word, one.plural) for one in TABLE if counted[one.word]]
    size = _counted(page.outline.lines, "line", "lines"), _counted(page.outline.size, "byte", "bytes")
    rows = [
        ("module", code(page.module)),
        ("what it is", f"{kind}: {rule}"),
        ("size", ", ".join(size)),
        ("content", code(f"blake2b {page.outline.digest}")),
        ("commit", code(places.commit) if places.commit else ""),
        ("holds", ", ".join(counts)),
    ]
    return table(["fact", "value"], [row for row in rows if row[1]])


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _structure(page: SourcePage, places: Places) -> list[str]:
    """Returns a nested list of definitions, in the order of lines, each where links can lead."""
    lines: list[str] = []
    open_until: list[Entry] = []
    for entry in page.entries:
        if not has_anchor(entry):
            continue
        while open_until and not _holds(open_until[-1], entry):
            open_until.pop()
        lines += _definition(page, entry, "    " * len(open_until), places)
        if entry.end_line > entry.line:
            open_until.append(entry)
    return lines


def _holds(outer: Entry, inner: Entry) -> bool:
    return outer.line <= inner.line and inner.end_line <= outer.end_line and inner.name.startswith(f"{outer.name}.")


def _definition(page: SourcePage, entry: Entry, indent: str, places: Places) -> list[str]:
    decorators = page.outline.decorators.get(entry.line, ())
    marks = "".join(f" {code('@' + one, cell=False)}" for one in decorators)
    said = f": {plain(entry.summary)}" if entry.summary else ""
    shown = code(cut(entry.signature, LONGEST_SIGNATURE) or entry.name.rpartition(".")[2], cell=False)
    anchor, line = page.anchor(entry), places.line(entry.file, entry.line)
    return [f'{indent}- <a id="{anchor}"></a>{shown} {entry.kind}, {line}{marks}{said}']


def _imports(page: SourcePage, tree: Tree, places: Places) -> list[str]:
    rows = []
    for one in page.outline.imports:
        found = tree.module_of(one.target, page.file)
        target = code(one.target)
        shown = link(target, page.docs, found.docs) if found is not None and found.file != page.file else target
        rows.append((shown, code(one.bound), plain(one.when), places.line(page.file, one.line)))
    return table(["what", "as", "when", "line"], rows)


def _docs_link(page: SourcePage, other: SourcePage) -> str:
    return f"- {link(code(other.file), page.docs, other.docs)}"


def _rows(page: SourcePage, kinds: tuple[str, ...], places: Places) -> list[str]:
    found = [entry for entry in page.entries if entry.kind in kinds]
    rows = [(_said(entry), KINDS[entry.kind].word, places.line(entry.file, entry.line)) for entry in found]
    return table(["what", "kind", "line"], rows)


def _said(entry: Entry) -> str:
    return code(entry.signature or entry.name)


def _concepts(page: SourcePage, tree: Tree, places: Places) -> list[str]:
    rows = [
        (code(title), plain(entry.summary), places.line(page.file, entry.line), _files(page, tree, MENTION, entry))
        for title, entry in _notes(page, CONCEPT)
    ]
    return table(["note", "what it says", "line", "referred to in"], rows)


def _mentions(page: SourcePage, tree: Tree, places: Places) -> list[str]:
    rows = [
        (code(title), _files(page, tree, CONCEPT, entry), places.line(page.file, entry.line))
        for title, entry in _notes(page, MENTION)
    ]
    return table(["note", "which is in", "line"], rows)


def _notes(page: SourcePage, kind: str) -> Iterator[tuple[str, Entry]]:
    return ((entry.signature[len("Note [") : -1], entry) for entry in page.entries if entry.kind == kind)


def _files(page: SourcePage, tree: Tree, kind: str, note: Entry) -> str:
    """Returns links to the files that have an entry of a kind for a note."""
    found = tree.notes[kind].get(title_of(note), [])
    return ", ".join("this file" if one is page else link(code(one.file), page.docs, one.docs) for one in found)


def _tests(page: SourcePage, tree: Tree) -> list[str]:
    found = sorted(tree.tests.get(page.file, ()), key=lambda one: one[1])
    lines = [
        f"- {link(code(entry.name), page.docs, at.docs, at.anchor(entry))}: {', '.join(map(code, names))}"
        for at, entry, names in found[:_MOST_TESTS]
    ]
    return lines + ([f"- and {len(found) - _MOST_TESTS} more"] if len(found) > _MOST_TESTS else [])


def _called(page: SourcePage, tree: Tree, places: Places) -> list[str]:
    by_line = {entry.line: entry for entry in page.entries if entry.kind in ("function", "method")}
    rows = []
    for line, names in sorted(page.outline.calls.items()):
        known = [name for name in names if tree.module_of(name, page.file) is not None] or names
        if line in by_line and known:
            rows.append(
                (code(by_line[line].name.rpartition(".")[2]), ", ".join(map(code, known)), places.line(page.file, line))
            )
    return table(["test", "calls", "line"], rows)


def _related(page: SourcePage, tree: Tree) -> list[str]:
    return [f"- {link(code(other.file), page.docs, other.docs)}: {plain(why)}" for other, why in tree.related(page)]
