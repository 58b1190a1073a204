"""The tree that the pages describe: its files with entries and outlines, its folders, and who imports whom."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from posixpath import basename, dirname

from kwindex.kinds import CONCEPT, NOTES, USED
from kwindex.model import Entry, Problem
from kwindex.pages.outline import Outline
from kwindex.spelling import fold, short

REGISTERED = ("op", "kernel", "gradient", "lowering", "decomposition", "side effect", "remap")
SETTINGS = ("config key", "environment variable")
SAID = ("error", "deprecation")
NOT_SHOWN = frozenset(("module", "import", CONCEPT, *REGISTERED, *SETTINGS, *SAID, *USED))
"""Kinds of entries that stand in tables of their own, or are the page itself; links cannot lead to them."""


def has_anchor(entry: Entry) -> bool:
    """Says whether the documentation page shows an entry as a definition, where links can lead.

    Example:
        >>> has_anchor(Entry("m.C", "class", "m.py", 1, 1, "class C", ""))
        True
    """
    return entry.kind not in NOT_SHOWN


def title_of(entry: Entry) -> str:
    """Returns the title of a note as titles are compared.

    Example:
        >>> title_of(Entry("m.It is so", "mention", "m.py", 1, 1, "Note [It is so]", ""))
        'itisso'
    """
    return fold(short(entry.name))


@dataclass(frozen=True, eq=False)
class SourcePage:
    """One file: its path, its dotted module, its entries in the order of lines, and its outline."""

    file: str
    module: str
    entries: list[Entry]
    outline: Outline

    @property
    def docs(self) -> str:
        """The path of its documentation page."""
        return f"{self.file}_docs.md"

    @property
    def keywords(self) -> str:
        """The path of its keyword page."""
        return f"{self.file}_kw.md"

    @property
    def kind(self) -> tuple[str, str]:
        """What sort of file it is, and the rule that says so."""
        name = basename(self.file)
        if name.startswith("test_") or name.endswith("_test.py"):
            return "tests", "its name begins with `test_` or ends with `_test.py`"
        if name in ("conftest.py", "__init__.py", "__main__.py"):
            return {"conftest.py": "fixtures", "__init__.py": "package", "__main__.py": "program"}[name], "its name"
        if self.outline.is_script:
            return "script", "it runs when it is the main module"
        return "module", "no other rule fits"

    def anchor(self, entry: Entry) -> str:
        """Where an entry stands on the documentation page: its name in the file, by line where that is not enough."""
        inside = entry.name.removeprefix(f"{self.module}.") if entry.name != self.module else "top"
        return f"{inside}-{entry.line}" if self._names[entry.name] > 1 else inside

    @cached_property
    def _names(self) -> Mapping[str, int]:
        counted: dict[str, int] = defaultdict(int)
        for entry in self.entries:
            counted[entry.name] += has_anchor(entry)
        return counted


class Tree:
    """All files of an index.

    Example:
        >>> Tree([]).folders
        {}
    """

    def __init__(self, pages: Iterable[SourcePage], unread: Iterable[Problem] = ()) -> None:
        self.files = {page.file: page for page in sorted(pages, key=lambda page: page.file)}
        self.unread = sorted(unread)
        """The files that could not be read, and why."""
        self._by_module: dict[str, list[SourcePage]] = {}
        for page in self.files.values():
            self._by_module.setdefault(page.module, []).append(page)

    @cached_property
    def folders(self) -> dict[str, list[SourcePage]]:
        """Every folder with the files right in it; folders that hold only folders, or what could not be read, too."""
        found: dict[str, list[SourcePage]] = {}
        for page in self.files.values():
            found.setdefault(dirname(page.file), []).append(page)
        for folder in [*found, *(dirname(problem.file) for problem in self.unread)]:
            found.setdefault(folder, [])
            while folder:
                folder = dirname(folder)
                found.setdefault(folder, [])
        return dict(sorted(found.items()))

    def below(self, folder: str) -> list[SourcePage]:
        """Returns all files of a folder and of the folders in it."""
        prefix = f"{folder}/" if folder else ""
        return [page for file, page in self.files.items() if file.startswith(prefix)]

    def module_of(self, target: str, near: str) -> SourcePage | None:
        """Returns the file that a dotted name leads to: the module of that name, or the one that holds it.

        Of several modules of one name it is the one that shares most folders with the file that uses the name; none
        where several share as many, as nothing then says which is meant.
        """
        while target:
            if target in self._by_module:
                shared = [(_shared(page.file, near), page) for page in self._by_module[target]]
                most = max(folders for folders, _ in shared)
                nearest = [page for folders, page in shared if folders == most]
                return nearest[0] if len(nearest) == 1 else None
            target = target.rpartition(".")[0]
        return None

    @cached_property
    def imports(self) -> dict[str, list[str]]:
        """For each file the files that it imports, each once, in the order of their paths."""
        found = {}
        for file, page in self.files.items():
            targets = {self.module_of(one.target, file) for one in page.outline.imports}
            found[file] = sorted({target.file for target in targets if target is not None} - {file})
        return found

    @cached_property
    def importers(self) -> dict[str, list[str]]:
        """For each file the files that import it."""
        found: dict[str, list[str]] = {file: [] for file in self.files}
        for file, targets in self.imports.items():
            for target in targets:
                found[target].append(file)
        return found

    @cached_property
    def tests(self) -> dict[str, list[tuple[SourcePage, Entry, list[str]]]]:
        """For each file the tests that call something of it: the test's file, its entry, and what it calls there."""
        found: dict[str, list[tuple[SourcePage, Entry, list[str]]]] = defaultdict(list)
        for page in self.files.values():
            by_line = {entry.line: entry for entry in page.entries if entry.kind in ("function", "method")}
            for line, calls in page.outline.calls.items():
                if line in by_line:
                    for file, names in self._by_file(calls, page.file).items():
                        found[file].append((page, by_line[line], names))
        return found

    @cached_property
    def notes(self) -> dict[str, dict[str, list[SourcePage]]]:
        """For concepts and for mentions: by the folded title of each note the files that have it or refer to it."""
        found: dict[str, dict[str, list[SourcePage]]] = {kind: defaultdict(list) for kind in NOTES}
        for page in self.files.values():
            for kind, title in dict.fromkeys((entry.kind, title_of(entry)) for entry in page.entries):
                if kind in found:
                    found[kind][title].append(page)
        return found

    def _by_file(self, calls: list[str], near: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in calls:
            target = self.module_of(name, near)
            if target is not None:
                found[target.file].append(name)
        return found

    def related(self, page: SourcePage, most: int = 8) -> list[tuple[SourcePage, str]]:
        """Returns the files that share most with one, with the reason: imports count, and names in common."""
        reasons: dict[str, list[str]] = defaultdict(list)
        weight: dict[str, int] = defaultdict(int)
        for file in self.imports[page.file]:
            reasons[file].append("imported here")
            weight[file] += 3
        for file in self.importers[page.file]:
            reasons[file].append("imports this")
            weight[file] += 3
        for file, shared in self._sharing(page).items():
            reasons[file].append(f"defines {', '.join(sorted(shared)[:3])} too")
            weight[file] += len(shared)
        best = sorted(weight, key=lambda file: (-weight[file], file))[:most]
        return [(self.files[file], "; ".join(reasons[file])) for file in best]

    def _sharing(self, page: SourcePage) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for name in public_names(page):
            holders = self._holders[name]
            if len(holders) <= _COMMON:
                for file in holders:
                    if file != page.file:
                        found[file].add(name)
        return found

    @cached_property
    def _holders(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for page in self.files.values():
            for name in sorted(public_names(page)):
                found[name].append(page.file)
        return found


def _shared(one: str, other: str) -> int:
    """Returns how many folders two files have in common, from the top."""
    folders = zip(one.split("/")[:-1], other.split("/")[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], folders))


_COMMON = 6
"""A name in more files than this says nothing about what belongs together."""


def public_names(page: SourcePage) -> set[str]:
    """Returns the public classes and functions right in a file."""
    return {
        entry.name.rpartition(".")[2]
        for entry in page.entries
        if entry.kind in ("class", "function") and not entry.name.rpartition(".")[2].startswith(("_", "test", "main"))
    }
