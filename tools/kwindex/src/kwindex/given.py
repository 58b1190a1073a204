"""What files tell each other: the texts of constants, and which functions read what they are told.

Every file is read on its own. An entry in which another file has its say is a want; what that file says is given. Both
stand in the piece of their file, and are brought together when all files are read.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from kwindex.link import LONGEST_CHAIN
from kwindex.messages import replaced_by
from kwindex.model import Entry, Want, in_order
from kwindex.render import LONGEST_SUMMARY, cut
from kwindex.texts import filled

_READ, _BY_NAME = "*", "|"
Gives = Mapping[str, str]
"""By qualified name: the text of a constant; of a function `f()` its parameters, with `*` behind those it reads; of
one that registers operators, `f(::)`, what `maker` says; of one that raises what it is told, `f(!)`, `raiser`; of a
name that is an operator, `f(=)`, what `operator` says; of a constant that may name a variable, `A($)`, its text."""
MAKES, RAISES, IS_OP, IS_NAME = "(::)", "(!)", "(=)", "($)"
_VARIABLE = "environment variable"
UNPACKED = "*"
"""The key of what a call unpacks: it may tell anything."""
_OP = re.compile(r"[A-Za-z_]\w*::[A-Za-z_]\w*(?:\.\w+)?")


class Making(NamedTuple):
    """What a function registers: the kind of entry, what is registered, and the operator, parameters as holes in it."""

    kind: str
    detail: str
    op: str

    def entry(self, op: str, place: Entry, through: str) -> Entry:
        """Returns the entry for an operator, from that of the call, whose summary is what the call makes.

        Example:
            >>> place = Entry("", "", "m.py", 1, 1, "make('add')", "m.add")
            >>> Making("op", "operator", "mine::⟦1:name⟧").entry("mine::add", place, "m.make").summary
            'operator: m.add, through m.make'
        """
        made = f": {place.summary}" if place.summary and self.kind == "op" else ""
        summary = f"{self.detail}{made}{_through(through)}"
        return place._replace(name=op, kind=self.kind, summary=cut(summary, LONGEST_SUMMARY))


def op_name(text: str) -> str:
    """Returns the operator that a text names or has the schema of, '' for none.

    Example:
        >>> op_name("mine::add(Tensor x) -> Tensor"), op_name("mine::not a name")
        ('mine::add', '')
    """
    name = text.partition("(")[0].strip()
    return name if _OP.fullmatch(name) else ""


def maker(by_place: Sequence[str], defaults: Mapping[str, str], makings: Iterable[Making]) -> str:
    """Returns what is told of a function that registers what it is told.

    Example:
        >>> maker(["name"], {}, [Making("op", "operator", "mine::⟦1:name⟧")])
        '[["name"], {}, [["op", "operator", "mine::⟦1:name⟧"]]]'
    """
    return json.dumps([by_place, defaults, list(makings)], ensure_ascii=False)


def operator(op: str, target: str = "", told: str = "") -> str:
    """Returns what is told of a name: the operator that it is, or the function or name of another module it comes of.

    Example:
        >>> operator("mine::add")
        '["mine::add", "", ""]'
    """
    return json.dumps([op, target, told], ensure_ascii=False)


def changed_with(changed: set[str], gives: Gives) -> set[str]:
    """Returns what has changed, and the names of operators that are made by what has changed.

    Example:
        >>> sorted(changed_with({"lib.make(::)"}, {"m.add(=)": operator("", "lib.make(::)", "{}"), "n.f()": "a* |"}))
        ['lib.make(::)', 'm.add(=)']
    """
    made_by = {name: json.loads(gives[name])[1] for name in gives if name.endswith(IS_OP)} if changed else {}
    more = changed
    while more:  # the names that hand on a name which has changed
        more = {name for name, target in made_by.items() if target in more} - changed
        changed = changed | more
    return changed


def _op_of(given: str, gives: Gives) -> str:
    """Returns the operator that a name is, '' where that is not sure."""
    op, target, told = json.loads(given)
    for _ in range(LONGEST_CHAIN):
        if op or not target.endswith(IS_OP):
            break
        op, target, told = json.loads(gives[target]) if target in gives else ("", "", "")
    made = [*_makings(told, gives[target])] if told and target in gives else []
    found = {name for making, name in made if making.kind == "op"}
    return op or (found.pop() if len(found) == 1 else "")


def _made(want: Want, given: str) -> Iterator[Entry]:
    """Yields what a function of another module registers of what it is told."""
    for making, name in _makings(want.key, given):
        yield making.entry(name, want.entry, want.target.removesuffix(MAKES))


def _makings(key: str, given: str) -> Iterator[tuple[Making, str]]:
    """Yields what a function registers of what it is told, each with the operator."""
    by_place, defaults, makings = json.loads(given)
    told = json.loads(key)
    texts: dict[str, str | None] = {} if UNPACKED in told else dict(defaults)
    for key, text in told.items():
        place = int(key) if key.isdigit() else len(by_place)
        texts[by_place[place] if place < len(by_place) else key] = text
    known = {name: text for name, text in texts.items() if text is not None}
    for making in (Making(*row) for row in makings):
        if name := op_name(filled(making.op, known) or ""):
            yield making, name


def _through(function: str) -> str:
    return f", through {function}"


def raiser(by_place: Sequence[str], message: str, error: str) -> str:
    """Returns what is told of a function that raises an error with the message that it is told.

    Example:
        >>> raiser(["holds", "text"], "text", "AssertionError")
        '[["holds", "text"], "text", "AssertionError"]'
    """
    return json.dumps([by_place, message, error], ensure_ascii=False)


def _raised(want: Want, given: str) -> Iterator[Entry]:
    """Yields the error that a function of another module raises, if its message is what it is told."""
    by_place, message, error = json.loads(given)
    place = int(want.key) if want.key.isdigit() else len(by_place)
    if message == (by_place[place] if place < len(by_place) else want.key):
        yield want.entry._replace(signature=f"{error}: {want.entry.signature}", summary=_raised_by(want))


def _raised_by(want: Want) -> str:
    return cut(f"raised by {want.target.removesuffix(RAISES)}", LONGEST_SUMMARY)


def reader(positional: Sequence[str], by_name: Sequence[str], read: Iterable[str]) -> str:
    """Returns what is told of a function that reads what some parameters name.

    Example:
        >>> reader(["name", "default"], ["also"], {"name", "also"})
        'name* default | also*'
    """
    known = set(read)
    marked = [[f"{one}{_READ}" if one in known else one for one in part] for part in (positional, by_name)]
    return " ".join([*marked[0], _BY_NAME, *marked[1]])


def gives_data(gives: Gives) -> bytes:
    """Returns what is given, a line each."""
    return "".join(json.dumps(row) + "\n" for row in gives.items()).encode()


def gives_of(data: bytes) -> dict[str, str]:
    """Returns what `gives_data` wrote.

    Example:
        >>> gives_of(gives_data({"m.A": "text"}))
        {'m.A': 'text'}
    """
    return dict(map(json.loads, data.splitlines()))


def wants_data(wants: Iterable[Want]) -> bytes:
    """Returns wants, a line each."""
    return "".join(json.dumps([*want[:-1], *want.entry]) + "\n" for want in wants).encode()


def wants_of(data: bytes) -> list[Want]:
    """Returns what `wants_data` wrote.

    Example:
        >>> want = Want("m.f()", "0", Entry("A", "environment variable", "n.py", 1, 1, "f('A')", ""))
        >>> wants_of(wants_data([want])) == [want]
        True
    """
    return [Want(target, key, Entry(*entry)) for target, key, *entry in map(json.loads, data.splitlines())]


def settled(entries: Iterable[Entry], wants: Sequence[Want], gives: Gives) -> list[Entry]:
    """Returns the entries of a file with what others say of them, whatever was said before.

    Example:
        >>> want = Want("m.OLD", "", Entry("n.f", "deprecation", "n.py", 1, 1, "deprecated(OLD)", ""))
        >>> told = settled([want.entry], [want], {"m.OLD": "use `g`"})
        >>> told[0].signature, told[0].summary, settled(told, [want], {}) == [want.entry]
        ('use `g`', 'replaced by g', True)
    """
    found = _unsettled([*entries], wants)
    named = {entry[:2] for entry in found}
    places: dict[Entry, list[int]] = {}
    for place in reversed(range(len(found))):
        places.setdefault(found[place], []).append(place)
    for want, given in _given(wants, gives):
        if _asks_name(want):
            told = want.entry._replace(name=given if want.target.endswith(IS_NAME) else _op_of(given, gives))
            if told.name and (told.kind != _VARIABLE or told[:2] not in named):
                named.add(told[:2])
                found.append(told)
        elif not want.key:
            if where := places.get(want.entry):
                found[where.pop()] = want.entry._replace(signature=given, summary=replaced_by(given))
        elif _asks_maker(want):
            found += dict.fromkeys(_made(want, given))
        elif _asks_raiser(want):
            found += _raised(want, given)
        elif _reads(given, want.key) and want.entry[:2] not in named:
            named.add(want.entry[:2])
            found.append(want.entry)
    return in_order(found)


def _unsettled(entries: Sequence[Entry], wants: Sequence[Want]) -> list[Entry]:
    """Returns the entries of a file as it says them itself, without what others said of them before."""
    may_be = {want.entry for want in wants if want.key}
    named = {want.entry for want in wants if _asks_name(want)}
    through: dict[tuple[int, int, str], tuple[str, ...]] = {}
    for want in dict.fromkeys((_at(want.entry), want.target) for want in wants if _asks_maker(want)):
        through[want[0]] = (*through.get(want[0], ()), _through(want[1].removesuffix(MAKES)))
    raised = {(_place(want.entry), _raised_by(want)) for want in wants if _asks_raiser(want)}
    own, without = {want.entry for want in wants}, _without(entries, wants)
    return [
        others.pop() if (others := without.get(_place(entry))) and entry not in own else entry
        for entry in entries
        if entry not in may_be
        and entry._replace(name="") not in named
        and (_place(entry), entry.summary) not in raised
        and not entry.summary.endswith(through.get(_at(entry), ()))
    ]


def _without(entries: Iterable[Entry], wants: Iterable[Want]) -> dict[tuple[str, str, int, int], list[Entry]]:
    """Returns by place the entries that have taken the text of a constant, as they are without that."""
    left = {want.entry: None for want in wants if not want.key and not _asks_name(want)}
    for entry in entries:
        left.pop(entry, None)
    places: dict[tuple[str, str, int, int], list[Entry]] = {}
    for entry in left:
        places.setdefault(_place(entry), []).append(entry)
    return places


def _given(wants: Iterable[Want], gives: Gives) -> Iterator[tuple[Want, str]]:
    return ((want, gives[want.target]) for want in wants if want.target in gives)


def _place(entry: Entry) -> tuple[str, str, int, int]:
    return entry.name, entry.kind, entry.line, entry.end_line


def _at(entry: Entry) -> tuple[int, int, str]:
    return entry.line, entry.end_line, entry.signature


def _asks_maker(want: Want) -> bool:
    return want.target.endswith(MAKES)


def _asks_name(want: Want) -> bool:
    return want.target.endswith((IS_OP, IS_NAME))


def _asks_raiser(want: Want) -> bool:
    return want.target.endswith(RAISES)


def _reads(given: str, key: str) -> bool:
    """Says whether a function reads what is told it by a name, or at a place."""
    positional, _, by_name = given.partition(_BY_NAME)
    if key.isdigit():
        return int(key) < len(places := positional.split()) and places[int(key)].endswith(_READ)
    return f"{key}{_READ}" in (*positional.split(), *by_name.split())
