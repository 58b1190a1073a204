"""Which files are to be read, under which path and module name; nothing is opened here."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kwindex.errors import KwindexError
from kwindex.model import Problem
from kwindex.render import printable
from kwindex.store import generated_files

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

    Hidden folders, virtual environments and files that kwindex wrote are left out. A link to a folder is
    followed, unless that folder is reached anyway.

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
    label = _Labels(roots, [path for path, _ in walk.files])
    files = [SourceFile(path, label(path), module_name(path), size) for path, size in walk.files]
    problems = [Problem(label(path), 0, why) for path, why in walk.problems]
    return Found(sorted(files, key=lambda source: source.file), sorted(problems))


class _Walk:
    """One walk over all roots: what was found, what could not be entered, what was seen already."""

    def __init__(self, roots: list[str]) -> None:
        self.files: list[tuple[str, int]] = []
        self.problems: list[tuple[str, str]] = []
        self._roots = [os.path.realpath(root) for root in roots]
        self._seen: set[str] = set()

    def enter(self, path: str) -> None:
        """Takes a root: a file as it is, a folder with all that is in it."""
        if os.path.isdir(path):
            self._folders([path])
        elif os.path.basename(path) not in generated_files(os.path.dirname(path)):
            self._file(path)

    def _folders(self, pending: list[str]) -> None:
        while pending:
            folder = pending.pop()
            real = os.path.realpath(folder)
            if real in self._seen:
                continue
            self._seen.add(real)
            try:
                names = sorted(os.listdir(folder))
            except OSError as error:
                self.problems.append((folder, error.strerror or "cannot be listed"))
                continue
            if "pyvenv.cfg" in names and real not in self._roots:
                continue
            generated = generated_files(folder)
            for name in names:
                if name not in generated:
                    pending.extend(self._child(os.path.join(folder, name), name))

    def _child(self, path: str, name: str) -> Iterator[str]:
        """Takes a file, or yields a folder to be entered."""
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            if name.endswith(".py") or "Too many" in (error.strerror or ""):
                self.problems.append((path, error.strerror or "cannot be read"))
            return
        if stat.S_ISDIR(mode):
            if name.startswith(".") or name in _SKIPPED:
                return
            if not os.path.islink(path) or self._follow(path):
                yield path
        elif name.endswith(".py"):
            self._file(path)

    def _follow(self, link: str) -> bool:
        real = os.path.realpath(link)
        if _inside(os.path.realpath(os.path.dirname(link)), real):
            self.problems.append((link, "a link to a folder that it is in: not followed"))
            return False
        return not any(_inside(real, root) for root in self._roots)

    def _file(self, path: str) -> None:
        real = os.path.realpath(path)
        if real in self._seen:
            return
        self._seen.add(real)
        try:
            status = os.stat(path)
        except OSError as error:
            self.problems.append((path, error.strerror or "cannot be read"))
            return
        if stat.S_ISREG(status.st_mode):
            self.files.append((path, status.st_size))
        else:
            self.problems.append((path, "not a regular file"))


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def module_name(path: str) -> str:
    """Returns the dotted name of a source file, its packages found by their `__init__.py`.

    Example:
        >>> module_name(__file__) if "__file__" in globals() else "kwindex.discover"
        'kwindex.discover'
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    parts = [] if stem == "__init__" else [stem]
    folder = os.path.dirname(path)
    root = import_root(path)
    while folder != root:
        folder, name = os.path.split(folder)
        parts.append(name)
    return printable(".".join(reversed(parts)) or stem)


def import_root(path: str) -> str:
    """Returns the folder above the topmost package that holds a file or is a folder; its parent if none does."""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    while os.path.isfile(os.path.join(folder, "__init__.py")) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder


class _Labels:
    """The paths that entries carry: short, the same on every machine, and never the same for two files.

    A source inside a package counts from the folder above the package; other sources from the deepest folder that they
    share. Where that gives two files one path, all count from the deepest folder that all sources share.
    """

    def __init__(self, roots: list[str], paths: list[str]) -> None:
        bases = {root: import_root(root) for root in roots}
        loose = {
            root: base
            for root, base in bases.items()
            if base == (root if os.path.isdir(root) else os.path.dirname(root))
        }
        shared = os.path.commonpath(list(loose.values())) if loose else ""
        self._bases = {root: shared if root in loose else base for root, base in bases.items()}
        self._everything = os.path.commonpath(list(bases.values()))
        self._clash = len({self._short(path) for path in paths}) < len(paths)

    def __call__(self, path: str) -> str:
        return _posix(path, self._everything) if self._clash else self._short(path)

    def _short(self, path: str) -> str:
        root = next(root for root in sorted(self._bases, key=len, reverse=True) if _inside(path, root))
        return _posix(path, self._bases[root])


def _posix(path: str, base: str) -> str:
    return printable(os.path.relpath(path, base).replace(os.sep, "/"))
