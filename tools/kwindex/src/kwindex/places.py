"""Places in files, as tracebacks, compilers and editors write them."""

import re
from typing import NamedTuple

FILE = 800
"""For the module that is a file: less than for a message that is raised, and than for what is named there."""
IN_FILE = 820
FILE_NAMED = r"([^ \"':]+\.py)(?![A-Za-z0-9_])"
FUNCTION_NAMED = r", in ([A-Za-z_][A-Za-z0-9_]*)"
"""How a text names a file and the function there; for JavaScript too."""


class Place(NamedTuple):
    """A file by the end of its path, or by more than an index knows of it, and the function there, '' for none."""

    path: str
    function: str

    @classmethod
    def of(cls, text: str) -> "Place | None":
        """Returns the place that a text names, None for one that names no file.

        Example:
            >>> Place.of('File "/lib/torch/hub.py", line 7, in load'), Place.of("hub.py:7"), Place.of("hub.pyi")
            (Place(path='/lib/torch/hub.py', function='load'), Place(path='hub.py', function=''), None)
        """
        named = re.search(FILE_NAMED, text)
        function = re.search(FUNCTION_NAMED, text[named.end() :]) if named else None
        return cls(named[1], function[1] if function else "") if named else None

    def is_in(self, file: str) -> bool:
        """Says whether a file of an index is the one.

        Example:
            >>> [Place("/lib/torch/hub.py", "").is_in(file) for file in ("torch/hub.py", "hub.py", "b.py", "ub.py")]
            [True, True, False, False]
        """
        return f"/{self.path}".endswith(f"/{file}") or f"/{file}".endswith(f"/{self.path}")
