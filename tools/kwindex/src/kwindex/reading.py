"""Reading a source file: what its contents are known by, and its piece of the index."""

import hashlib
import sys
from typing import NamedTuple

from kwindex.discover import SourceFile
from kwindex.errors import SourceError
from kwindex.extract import record_of
from kwindex.given import gives_data, wants_data
from kwindex.model import Problem
from kwindex.pieces import make
from kwindex.tables import Piece

_VERSION = f"kwindex 26, Python {sys.version_info[0]}.{sys.version_info[1]}"
"""What a piece depends on besides its source; change the number with every change of what is extracted."""


class Reading(NamedTuple):
    """What reading a file gave: what its contents are known by, and its piece."""

    digest: bytes
    piece: Piece


def read(source: SourceFile) -> Reading:
    """Returns what one file gives; depends on nothing but that file."""
    try:
        with open(source.path, "rb", buffering=0) as file:
            data = file.read()
    except OSError as error:
        why = error.strerror or "cannot be read"
        return Reading(digest(source, why.encode()), make([], Problem(source.file, 0, why)))
    try:
        record = record_of(data, source.file, source.module)
        piece = make(record.entries, gives=gives_data(record.gives), wants=wants_data(record.wants))
        return Reading(digest(source, data), piece)
    except SourceError as error:
        return Reading(digest(source, data), make([], Problem(source.file, error.line, error.why)))


def digest(source: SourceFile, data: bytes) -> bytes:
    """Returns what a file with these bytes is known by: all that its piece depends on."""
    made = hashlib.blake2b(f"{_VERSION}\0{source.file}\0{source.module}\0".encode(), digest_size=16)
    made.update(data)
    return made.digest()


def digest_of(source: SourceFile) -> bytes:
    """Returns what a file is known by, b"" for one that cannot be read."""
    try:
        with open(source.path, "rb", buffering=0) as file:
            return digest(source, file.read())
    except OSError:
        return b""
