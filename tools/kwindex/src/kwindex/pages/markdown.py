"""Markdown that says exactly what it is given: no text from a source can become markup, a link or a script."""

import html
import re
from collections.abc import Iterable, Sequence
from posixpath import dirname, relpath
from urllib.parse import quote

_MARKUP = re.compile(r"[\\`*{}\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^[#+\-:=>!.)]|^\d+(?=[.)])|  ")
_RUNS = re.compile(r"`+")


def plain(text: str) -> str:
    r"""Returns text as running words on one line; nothing in it is markup.

    Example:
        >>> print(plain("a <b> *c*\n[d](javascript:e)"), plain("# f_g"))
        a &lt;b&gt; &#42;c&#42; &#91;d&#93;(javascript:e) &#35; f_g
    """
    escaped = html.escape(" ".join(text.split()), quote=False)
    return _MARKUP.sub(lambda found: "".join(f"&#{ord(one)};" for one in found.group()), escaped)


def code(text: str, cell: bool = True) -> str:
    """Returns text as inline code on one line, by default so that it may stand in a table's cell.

    Example:
        >>> code("f(x) -> int"), code("a `b` | c")
        ('`f(x) -> int`', '<code>a &#96;b&#96; &#124; c</code>')
    """
    text = " ".join(text.split())
    if not text or not any(character in text for character in ("`|\\" if cell else "`")):
        return f"`{text}`" if text else ""
    escaped = html.escape(text, quote=False)
    for character in "`|*_[]{}\\~":
        escaped = escaped.replace(character, f"&#{ord(character)};")
    return f"<code>{escaped}</code>"


def block(text: str) -> list[str]:
    r"""Returns text as a block of its own, closed by a fence that is longer than any in it.

    Example:
        >>> block("a\n````\nb")[0], block("a\n````\nb")[-1]
        ('`````text', '`````')
    """
    longest = max((len(run.group()) for run in _RUNS.finditer(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *text.strip("\n").splitlines(), fence]


def link(shown: str, page: str, target: str, anchor: str = "") -> str:
    """Returns a link from one page to another, both given from the top; `shown` is Markdown already.

    Example:
        >>> link("x", "a/b.md", "a/c d.md", "n")
        '[x](c%20d.md#n)'
    """
    path = "" if page == target else quote(relpath(target, dirname(page) or "."))
    return f"[{shown}]({path}{'#' + anchor if anchor else ''})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns a table, or nothing where there is no row.

    Example:
        >>> table(["a", "b"], [("1", "2")])
        ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    body = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *body] if body else []


def section(title: str, lines: Sequence[str]) -> list[str]:
    """Returns lines under a heading, or nothing where there are none.

    Example:
        >>> section("Empty", []), section("A", ["b"])
        ([], ['## A', '', 'b', ''])
    """
    return [f"## {title}", "", *lines, ""] if lines else []
