"""Any nesting of definitions and statements is found whole, with its names, kinds and lines."""

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from kwindex.extract import extract

HEADS = {
    "if": "if x:",
    "for": "for i in x:",
    "while": "while x:",
    "with": "with x as y:",
    "class": "class {}(Base):",
    "def": "def {}(self, a=1):",
    "async def": "async def {}():",
}
DEFINES = {"class", "def", "async def"}


class Block(NamedTuple):
    head: str
    name: str
    decorated: bool
    inner: list["Block"]


names = st.sampled_from(["f", "g", "_h", "__i__", "J", "été", "match"])
blocks = st.recursive(
    st.builds(Block, st.sampled_from(sorted(HEADS)), names, st.booleans(), st.just([])),
    lambda inner: st.builds(Block, st.sampled_from(sorted(HEADS)), names, st.booleans(), st.lists(inner, max_size=4)),
    max_leaves=25,
)


def write(
    block: Block, depth: int, prefix: str, owner: str, lines: list[str], expected: list[tuple[object, ...]]
) -> None:
    """Appends the block's source lines, and what is to be found in them, to the two lists."""
    pad = "    " * depth
    defines = block.head in DEFINES
    if defines and block.decorated:
        lines.append(f"{pad}@decorate(1)")
    lines.append(pad + HEADS[block.head].format(block.name))
    start, place = len(lines), len(expected)
    inner_prefix, inner_owner = prefix, owner
    if defines:
        inner_prefix, inner_owner = f"{prefix}.{block.name}", "class" if block.head == "class" else "function"
        expected.append(())
    for inner in block.inner:
        write(inner, depth + 1, inner_prefix, inner_owner, lines, expected)
    lines.append(f"{pad}    pass")
    if defines:
        function = {"module": "function", "class": "method", "function": "nested function"}[owner]
        expected[place] = (inner_prefix, "class" if block.head == "class" else function, start, len(lines))


@settings(max_examples=150, deadline=None)
@given(st.lists(blocks, max_size=4))
def test_any_nesting_is_found_whole(program: list[Block]) -> None:
    lines: list[str] = []
    expected: list[tuple[object, ...]] = []
    for block in program:
        write(block, 0, "pkg.m", "module", lines, expected)
    entries = extract("\n".join(lines).encode(), "m.py", "pkg.m")
    found = [(e.name, e.kind, e.line, e.end_line) for e in entries if e.kind not in ("module", "decorator")]
    assert found == expected
