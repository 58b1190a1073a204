"""Which files are to be read, under which path and module name; nothing is opened here."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kwindex.errors import KwindexError
from kwindex.model import Problem
from kwindex.render import printable
from kwindex.store import MARKER, generated_files

_SKIPPED = {"__pycache__", "node_modules"}


class SourceFile(NamedTuple):
    """A file to be read: where it is, the path its entries carry, and its dotted module name."""

    path: str
    file: str
    module: str
    size: int


class Found(NamedTuple):
    """What discovery saw: the files, in the order of their paths, and what it could not enter."""

    files: list[SourceFile]
    problems: list[Problem]


def discover(sources: Sequence[str | Path]) -> Found:
    """Returns every Python file at or under the sources, each once, whatever the order of the sources.

    Hidden folders, virtual environments and files that kwindex wrote are left out. A link to a folder or a file
    is followed, unless that is reached anyway.

    Raises:
        KwindexError: A source does not exist.
    """
    roots = sorted({os.path.abspath(source) for source in sources})
    for root in roots:
        if not os.path.lexists(root):
            raise KwindexError(f"no such file or folder: {root}")
    walk = _Walk(roots)
    for root in roots:
        walk.enter(root)
    walk.take_links()
    packages = _Packages(roots)
    label = _Labels(roots, [path for path, _ in walk.files], packages)
    files = [SourceFile(path, label(path), packages.module(path), size) for path, size in walk.files]
    problems = [Problem(label(path), 0, why) for path, why in walk.problems]
    return Found(sorted(files, key=lambda source: source.file), sorted(problems))


class _Walk:
    """One walk over all roots: what was found, what could not be entered, what was seen already."""

    def __init__(self, roots: list[str]) -> None:
        self.files: list[tuple[str, int]] = []
        self.problems: list[tuple[str, str]] = []
        self._roots = [os.path.realpath(root) for root in roots]
        self._seen: set[str] = set()
        self._links: list[tuple[str, str, os.stat_result]] = []

    def take_links(self) -> None:
        """Takes the files that links alone lead to, each under the first of them: any other has a name of its own."""
        for link in sorted(self._links, key=lambda link: link[0]):
            self._file(*link)

    def enter(self, path: str) -> None:
        """Takes a root: a file as it is, a folder with all that is in it."""
        if os.path.isdir(path):
            self._folders(path)
        elif os.path.basename(path) not in generated_files(os.path.dirname(path)):
            try:
                self._file_or_link(os.path.islink(path), path, os.path.realpath(path), os.stat(path))
            except OSError as error:
                self.problems.append((path, error.strerror or "cannot be read"))

    def _folders(self, root: str) -> None:
        pending = [(root, os.path.realpath(root))]
        while pending:
            folder, real = pending.pop()
            if real in self._seen:
                continue
            self._seen.add(real)
            try:
                with os.scandir(folder) as listing:
                    found = sorted(listing, key=lambda child: child.name)
            except OSError as error:
                self.problems.append((folder, error.strerror or "cannot be listed"))
                continue
            names = {child.name for child in found}
            if "pyvenv.cfg" in names and real not in self._roots:
                continue
            generated = generated_files(folder) if MARKER in names else frozenset[str]()
            for child in found:
                if child.name not in generated:
                    pending.extend(self._child(child, real))

    def _child(self, child: "os.DirEntry[str]", folder: str) -> Iterator[tuple[str, str]]:
        """Takes a file, or yields a folder to be entered, with where it really is."""
        path, name = child.path, child.name
        is_source = name.endswith(".py")
        try:
            is_link, is_folder = child.is_symlink(), child.is_dir()
            status = child.stat() if is_source or is_link else None
        except OSError as error:
            is_lock = name.startswith(".#")  # of an editor: a link to nowhere, as long as a file is being changed
            if (is_source and not is_lock) or "Too many" in (error.strerror or ""):
                self.problems.append((path, error.strerror or "cannot be read"))
            return
        real = os.path.realpath(path) if is_link else os.path.join(folder, name)
        if is_folder:
            if name.startswith(".") or name in _SKIPPED:
                return
            if not is_link or self._follow(path, real):
                yield path, real
        elif is_source and status is not None:
            self._file_or_link(is_link, path, real, status)

    def _file_or_link(self, is_link: bool, path: str, real: str, status: os.stat_result) -> None:
        if is_link:
            self._links.append((path, real, status))
        else:
            self._file(path, real, status)

    def _follow(self, link: str, real: str) -> bool:
        if _inside(os.path.realpath(os.path.dirname(link)), real):
            self.problems.append((link, "a link to a folder that it is in: not followed"))
            return False
        return not any(_inside(real, root) for root in self._roots)

    def _file(self, path: str, real: str, status: os.stat_result) -> None:
        if real in self._seen:
            return
        self._seen.add(real)
        if stat.S_ISREG(status.st_mode):
            self.files.append((path, status.st_size))
        else:
            self.problems.append((path, "not a regular file"))


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


class _Packages:
    """The packages that folders are, found by their `__init__.py`; each folder is looked at once.

    A folder without it in a package of the sources is in that package, as Python takes it.
    """

    def __init__(self, roots: list[str]) -> None:
        self._roots = roots
        self._known: dict[str, tuple[str, str]] = {}
        self._loose: dict[str, str] = {}

    def of(self, folder: str) -> tuple[str, str]:
        """Returns the folder above the topmost package that a folder is in, itself if in none; and its dotted name."""
        known = self._known.get(folder)
        if known is None:
            above = os.path.dirname(folder)
            if above != folder and os.path.isfile(os.path.join(folder, "__init__.py")):
                root, package = self.of(above)
                name = os.path.basename(folder)
                known = root, f"{package}.{name}" if package else name
            else:
                known = folder, ""
            self._known[folder] = known
        return known

    def root(self, path: str) -> str:
        """Returns the folder that the dotted names of a file or folder count from."""
        return self.of(path if os.path.isdir(path) else os.path.dirname(path))[0]

    def module(self, path: str) -> str:
        """Returns the dotted name of a source file."""
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]
        package = self.of(folder)[1] or self._around(folder)
        if stem == "__init__":
            return printable(package or stem)
        return printable(f"{package}.{stem}" if package else stem)

    def _around(self, folder: str) -> str:
        """Returns the dotted name of a folder without `__init__.py` that is in a package of the sources, else ''."""
        known = self._loose.get(folder)
        if known is None:
            above, name = os.path.split(folder)
            known = ""
            if name.isidentifier() and any(_inside(above, root) for root in self._roots):
                package = self.of(above)[1] or self._around(above)
                known = f"{package}.{name}" if package else ""
            self._loose[folder] = known
        return known


class _Labels:
    """The paths that entries carry: short, the same on every machine, and never the same for two files.

    A source inside a package counts from the folder above the package; other sources from the deepest folder that they
    share. Where that gives two files one path, all count from the deepest folder that all sources share.
    """

    def __init__(self, roots: list[str], paths: list[str], packages: _Packages) -> None:
        bases = {root: packages.root(root) for root in roots}
        loose = {
            root: base
            for root, base in bases.items()
            if base == (root if os.path.isdir(root) else os.path.dirname(root))
        }
        shared = os.path.commonpath(list(loose.values())) if loose else ""
        based = {root: shared if root in loose else base for root, base in bases.items()}
        self._bases = [(root, based[root]) for root in sorted(based, key=len, reverse=True)]
        self._everything = os.path.commonpath(list(bases.values()))
        self._short = {path: self._from_base(path) for path in paths}
        self._clash = len(set(self._short.values())) < len(paths)

    def __call__(self, path: str) -> str:
        """Returns the path that entries of a file carry."""
        return _posix(path, self._everything) if self._clash else self._short.get(path) or self._from_base(path)

    def _from_base(self, path: str) -> str:
        return _posix(path, next(base for root, base in self._bases if _inside(path, root)))


def _posix(path: str, base: str) -> str:
    return printable(path[len(base) :].lstrip(os.sep).replace(os.sep, "/"))
