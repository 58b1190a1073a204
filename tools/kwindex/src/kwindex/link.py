"""What only all files together tell: the summaries of what imports bring."""

import re
from collections.abc import Sequence

from kwindex.kinds import ELSEWHERE, UNNAMED
from kwindex.model import Entry

LONGEST_CHAIN = 8
"""Modules that may hand a name on from one to the next."""


def link(entries: Sequence[Entry]) -> list[Entry]:
    """Returns the entries in the same order, imports with the summaries of what they bring.

    Example:
        >>> one = Entry("a.f", "function", "a.py", 1, 1, "f()", "Adds.")
        >>> link([one, Entry("b.g", "import", "b.py", 1, 1, "from a import f as g", "")])[1].summary
        'Adds.'
    """
    summaries: dict[str, str] = {}
    targets: dict[str, str] = {}
    for entry in entries:
        if entry.kind == "import":
            targets.setdefault(entry.name, target_of(entry.signature))
        elif is_definition(entry):
            summaries.setdefault(entry.name, entry.summary)
    return [
        entry._replace(summary=_summary(target_of(entry.signature), summaries, targets))
        if entry.kind == "import" and not entry.summary
        else entry
        for entry in entries
    ]


def is_definition(entry: Entry) -> bool:
    """Says whether an import of an entry's name can bring it.

    Example:
        >>> kinds = ("class", "error", "config key", "import")
        >>> [is_definition(Entry("m.C", kind, "m.py", 1, 1, "", "")) for kind in kinds]
        [True, False, False, False]
    """
    return entry.kind != "import" and entry.kind not in ELSEWHERE and entry.kind not in UNNAMED


def _summary(target: str, summaries: dict[str, str], targets: dict[str, str]) -> str:
    """Returns the summary of a definition, followed through the modules that hand it on."""
    for _ in range(LONGEST_CHAIN):
        if target in summaries:
            return summaries[target]
        if target not in targets:
            return ""
        target = targets[target]
    return ""


def target_of(statement: str) -> str:
    """Returns what an import brings, from its statement for one name, as `bindings` writes it.

    Example:
        >>> target_of("from a.b import c as d  # may be missing"), target_of("import a.b as c")
        ('a.b.c', 'a.b')
    """
    words = statement.split()
    if words[:1] == ["import"] and len(words) > 1:
        return words[1]
    if words[:1] == ["from"] and len(words) > 3:
        return words[1] if words[3] == "*" else f"{words[1]}.{words[3]}"
    return ""


def bound_to(entry: Entry) -> str:
    """Returns what the name that an import binds stands for: of `import a.b` that is `a`, which alone it binds.

    Example:
        >>> bound_to(Entry("m.a", "import", "m.py", 1, 1, "import a.b", ""))
        'a'
        >>> bound_to(Entry("m.d", "import", "m.py", 1, 1, "from a.b import c as d", ""))
        'a.b.c'
    """
    words = entry.signature.split()
    binds_first = words[:1] == ["import"] and words[2:3] != ["as"]
    return target_of(entry.signature).partition(".")[0] if binds_first else target_of(entry.signature)


_BASES = re.compile(r"^class \w+(?:\[.*?\](?=\())?\((.*?)\)?$")


def bases_of(signature: str) -> list[str]:
    """Returns the dotted names of a class's bases from its head line, and last of its metaclass; none is computed.

    Example:
        >>> bases_of("class A(Generic[T, U], nn.Module, made(1), metaclass=Meta)")
        ['Generic', 'nn.Module', 'Meta']
        >>> bases_of("class A")
        []
    """
    from kwindex.signatures import parted  # most queries are no paths

    inside = _BASES.match(signature)
    bases = [base.strip() for base in parted(inside[1])] if inside else []
    metaclass = [base.removeprefix("metaclass=") for base in bases if base.startswith("metaclass=")]
    named = [base.partition("[")[0] for base in bases if "=" not in base] + metaclass
    return [name for name in named if all(part.isidentifier() for part in name.split("."))]
