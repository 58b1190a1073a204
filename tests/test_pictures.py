"""Words and lines of every picture can be read on a light page and on a dark one.

A picture that a page links to knows nothing of the page's colours, so it brings its own ground; what stands in a box
stands on that box. The least contrasts are those of WCAG 2: 4.5 for words, 3 for lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from tools.gen import picture
from tools.gen.sources import ROOT

PICTURES = sorted((ROOT / "docs/assets").rglob("*.svg"))
WORDS, LINES = 4.5, 3.0


class Box(NamedTuple):
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    fill: str

    def holds(self, x: float, y: float) -> bool:
        return self.x <= x <= self.x + self.width and self.y <= y <= self.y + self.height


def luminance(colour: str) -> float:
    """The relative luminance of #rgb or #rrggbb."""
    digits = colour.removeprefix("#")
    assert re.fullmatch(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}", digits), f"{colour} is no opaque colour"
    parts = [int(digit * 2, 16) for digit in digits] if len(digits) == 3 else [*bytes.fromhex(digits)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (p / 255 for p in parts))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def painted(
    node: ElementTree.Element, known: Mapping[str, str]
) -> Iterator[tuple[str, ElementTree.Element, dict[str, str]]]:
    """Every element in the order in which it is painted, with the fill and stroke that hold for it."""
    mine = {**known, **{name: node.attrib[name] for name in ("fill", "stroke") if name in node.attrib}}
    yield node.tag.rpartition("}")[2], node, mine
    for child in node:
        yield from painted(child, mine)


def faults(path: Path) -> list[str]:
    """What cannot be read in a picture."""
    root = ElementTree.parse(path).getroot()
    _, _, wide, high = map(float, root.attrib["viewBox"].split())
    boxes: list[Box] = []
    found = []
    for tag, node, style in painted(root, {"fill": "#000", "stroke": "none"}):
        at = {name: float(node.get(name, 0)) for name in ("x", "y", "width", "height")}
        if tag == "rect":
            boxes.append(Box(**at, fill=style["fill"]))
        elif tag in ("text", "polyline"):
            if not boxes or boxes[0][:4] != (0, 0, wide, high):
                return ["it has no ground of its own"]
            words = tag == "text"
            on = next(
                box.fill for box in reversed(boxes) if not words or box.holds(at["x"], at["y"]) or box is boxes[0]
            )
            got = contrast(style["fill" if words else "stroke"], on if words else boxes[0].fill)
            if got < (WORDS if words else LINES):
                found.append(f"{node.text if words else 'a line'}: {got:.1f} on {on}")
    return found


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_can_be_read_on_every_page(path: Path) -> None:
    assert faults(path) == []


def test_a_pale_word_and_a_missing_ground_are_found(tmp_path: Path) -> None:
    page = tmp_path / "a.svg"
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'
    page.write_text(f'{head}<text x="1" y="1" fill="#888">a</text></svg>')
    assert faults(page) == ["it has no ground of its own"]
    page.write_text(
        f'{head}<rect width="9" height="9" fill="#fff"/><g fill="#888"><text x="1" y="1">a</text></g></svg>'
    )
    assert faults(page) == ["a: 3.5 on #fff"]
    box = '<rect x="4" y="4" width="4" height="4" fill="#000"/>'
    page.write_text(f'{head}<rect width="9" height="9" fill="#fff"/>{box}<text x="5" y="5" fill="#fff">a</text></svg>')
    assert faults(page) == []


def test_the_words_in_the_boxes_of_generated_pictures_can_be_read() -> None:
    assert {colour: contrast(colour, "#fff") >= WORDS for colour in (*picture.COLOURS, picture.EMPTY)} == dict.fromkeys(
        (*picture.COLOURS, picture.EMPTY), True
    )
