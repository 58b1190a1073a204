"""The search in a browser: a palette over an index, its scorer equal to the one in Python."""

from pathlib import Path

from kwindex.web.payload import BY_NAME, IN_FILE, IN_FILE_AND_LINE, PAGE, Address, Payload, payload

SCRIPTS = ("scorer.js", "palette.js")
STYLE = "palette.css"


def asset(name: str) -> str:
    """Returns the text of one of the palette's own files.

    Example:
        >>> "kwindexScorer" in asset("scorer.js")
        True
    """
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


__all__ = [
    "BY_NAME",
    "IN_FILE",
    "IN_FILE_AND_LINE",
    "PAGE",
    "SCRIPTS",
    "STYLE",
    "Address",
    "Payload",
    "asset",
    "payload",
]
