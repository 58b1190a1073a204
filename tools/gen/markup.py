"""Text of docstrings on pages of Markdown, and a look for what became a tag there by mistake."""

from __future__ import annotations

import re
from pathlib import Path

_CODE = re.compile(r"(`+).+?\1")
_OPENING = re.compile(r"<([a-zA-Z][^\s/>]*)")
_APART = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1>", re.DOTALL)
_KNOWN = frozenset(
    [
        "a",
        "abbr",
        "article",
        "aside",
        "b",
        "blockquote",
        "body",
        "br",
        "button",
        "caption",
        "code",
        "col",
        "colgroup",
        "dd",
        "del",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "em",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "head",
        "header",
        "hr",
        "html",
        "i",
        "iframe",
        "img",
        "input",
        "ins",
        "kbd",
        "label",
        "li",
        "link",
        "main",
        "mark",
        "meta",
        "nav",
        "noscript",
        "object",
        "ol",
        "p",
        "pre",
        "s",
        "small",
        "span",
        "section",
        "strong",
        "sub",
        "summary",
        "sup",
        "table",
        "tbody",
        "td",
        "template",
        "tfoot",
        "th",
        "thead",
        "time",
        "title",
        "tr",
        "u",
        "ul",
        "circle",
        "clippath",
        "defs",
        "desc",
        "ellipse",
        "g",
        "line",
        "lineargradient",
        "marker",
        "path",
        "polygon",
        "polyline",
        "rect",
        "stop",
        "svg",
        "symbol",
        "text",
        "tspan",
        "use",
    ]
)


def prose(text: str) -> str:
    """A docstring's words that may stand in a table cell: code stays, and nothing else is markup of HTML."""
    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [text[end : code.start()].replace("<", "&lt;"), code.group()]
        end = code.end()
    return "".join([*parts, text[end:].replace("<", "&lt;")]).replace("|", "\\|")


def unknown_tags(site: Path) -> list[str]:
    """The tags of a built site that no browser knows, each once a page: words of ours that nobody sees."""
    return [
        f"{path.relative_to(site)}: <{tag}> is no tag of HTML: a word in angle brackets that has to be code"
        for path in sorted(site.rglob("*.html"))
        for tag in sorted(set(_tags(path.read_text(encoding="utf-8"))) - _KNOWN)
    ]


def _tags(page: str) -> list[str]:
    return [tag.lower() for tag in _OPENING.findall(_APART.sub("", page))]
