"""Messages as they are searched: the fixed pieces of templates, and what pasted text they answer."""

import re
from typing import NamedTuple

from kwindex.signatures import GAP

_HOLES = re.compile(r"\{[^{}]*\}|…$")
_TELLING = 40
"""Letters from which on a template is known by them, however long the text is."""
_LEAST_LETTERS = 12
"""Letters outside holes that a template needs: with fewer, it would answer nearly everything."""


class Message(NamedTuple):
    """A template as it is searched: its fixed pieces, in order, in lower case, and how many letters they hold."""

    pieces: tuple[str, ...]
    letters: int

    @classmethod
    def of(cls, template: str) -> "Message":
        """Returns the pieces of a template between its holes.

        Example:
            >>> Message.of("ValueError: Got {x} ranks, need {y}").pieces
            ('got', 'ranks, need')
        """
        text = template.partition(": ")[2]
        pieces = tuple(piece for raw in _HOLES.split(plain(text)) if (piece := raw.strip()))
        return cls(pieces, sum(map(len, pieces)))

    @classmethod
    def parse(cls, line: str) -> "Message":
        """Returns a message from its pieces with `GAP` between them."""
        pieces = tuple(line.split(GAP))
        return cls(pieces, sum(map(len, pieces)))

    def answers(self, pasted: str) -> bool:
        """Says whether text, as `plain` gives it, holds every piece in order, the holes filled with anything.

        Example:
            >>> Message.of("ValueError: got {x} ranks, need {y}").answers(plain("Got  3 ranks, need 4"))
            True
        """
        if not self._is_enough(self.letters, pasted):
            return False
        place = 0
        for piece in self.pieces:
            place = pasted.find(piece, place)
            if place < 0:
                return False
            place += len(piece)
        return True

    def begun(self, pasted: str) -> int:
        """Returns how many fixed letters text holds, in order, from the first on; 0 where too few to be sure.

        So the first line of a message of many is enough, or one that was cut.

        Example:
            >>> message = Message.of("E: need {n} ranks for this, got {m}; call it on each of them")
            >>> message.begun(plain("need 3 ranks for this, got 4")), message.begun(plain("need 3"))
            (23, 0)
        """
        place = got = 0
        for piece in self.pieces:
            found = pasted.find(piece, place)
            if found < 0:
                cut_off = pasted.find(piece[:_LEAST_LETTERS], place)
                if cut_off >= 0 and piece.startswith(pasted[cut_off:]):
                    return got + len(pasted) - cut_off
                break
            place = found + len(piece)
            got += len(piece)
        return got if self._is_enough(got, pasted) and 5 * got >= 2 * min(self.letters, 80) else 0

    def _is_enough(self, letters: int, pasted: str) -> bool:
        """Says whether so many letters in common make a text a message: a quarter of it, or many, or its beginning.

        "expected {x} but got {y}" would answer much that says something else between these words.
        """
        if letters < _LEAST_LETTERS:
            return False
        first = self.pieces[0]
        begins = len(first) >= _LEAST_LETTERS and pasted.startswith(first)
        return begins or letters >= _TELLING or 4 * letters >= len(pasted)


def plain(text: str) -> str:
    r"""Returns a text as templates and pasted text are compared: in lower case, every gap one space.

    Example:
        >>> plain("Got\n  THREE ")
        'got three'
    """
    return " ".join(text.lower().split())
