"""The spellings of a name: folded, in sub-tokens, in initials, in segments."""

import re
from functools import lru_cache

_TOKEN = re.compile(r"[A-Z]+(?=[A-Z][^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+\d*|[A-Z]+\d*|\d+")
_TOKEN_OR_END = re.compile(rf"{_TOKEN.pattern}|\n")
_SEPARATORS = re.compile(r"[\W_]+")


def fold(text: str) -> str:
    """Returns the letters and digits alone, in lower case: what people remember of a name.

    Example:
        >>> fold("all_reduce") == fold("AllReduce") == fold("allreduce")
        True
    """
    if text.isascii() and text.isidentifier():  # as most are; this is the sooner way
        return text.replace("_", "").lower()
    return _SEPARATORS.sub("", text).lower()


def subtokens(name: str) -> list[str]:
    """Returns the words that a name is made of, in lower case.

    Example:
        >>> subtokens("_AsyncCollectiveTensor"), subtokens("HTTPServer_v2")
        (['async', 'collective', 'tensor'], ['http', 'server', 'v2'])
    """
    return [token.lower() for token in _TOKEN.findall(name)]


def spaced(lines: str) -> str:
    r"""Returns lines of names with a space before each word, as `subtokens` finds them: sooner for many names.

    Example:
        >>> spaced("_all_reduce\nHTTPServer\n")
        ' all reduce\n http server\n'
    """
    return " ".join(["", *_TOKEN_OR_END.findall(lines)]).lower().replace(" \n", "\n")


def words_of(name: str) -> list[str]:
    """Returns the words of a qualified name, as `subtokens` does: sooner for many names in few owners.

    Example:
        >>> words_of("torch._C.AsyncWait") == subtokens("torch._C.AsyncWait")
        True
    """
    words: list[str] = []
    for part in name.split("."):
        words += _known_tokens(part)
    return words


known_fold = lru_cache(maxsize=10_000)(fold)
"""`fold`, sooner for the same parts of many names."""


@lru_cache(maxsize=10_000)
def _known_tokens(part: str) -> tuple[str, ...]:
    return tuple(subtokens(part))


def segments(name: str) -> list[str]:
    """Returns the parts of a qualified name, of Python's or of an operator's.

    Example:
        >>> segments("torch.Tensor.wait"), segments("c10d::all_reduce_")
        (['torch', 'Tensor', 'wait'], ['c10d', 'all_reduce_'])
    """
    return [part for part in name.replace("::", ".").split(".") if part]


def short(name: str) -> str:
    """Returns the last part of a qualified name; an operator keeps its overload.

    Example:
        >>> short("torch.Tensor.wait"), short("aten::add.Tensor")
        ('wait', 'add.Tensor')
    """
    _, colons, operator = name.rpartition("::")
    return operator if colons else name.rpartition(".")[2]


def edits(left: str, right: str, most: int) -> int:
    """Returns how many letters differ (put in, left out, changed, or two swapped), `most + 1` if more.

    Example:
        >>> edits("allrecude", "allreduce", 2), edits("gather", "scatter", 2)
        (2, 3)
    """
    if abs(len(left) - len(right)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        first, last = max(1, i - most), min(len(right), i + most)
        earlier, before, row = before, row, [most + 1] * (len(right) + 1)
        if i <= most:
            row[0] = i
        for j in range(first, last + 1):
            b = right[j - 1]
            cost = before[j - 1] if a == b else 1 + min(before[j - 1], before[j], row[j - 1])
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, earlier[j - 2] + 1)
            row[j] = cost
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)
