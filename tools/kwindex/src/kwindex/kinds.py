"""The kinds of entries, in one table: adding a kind is adding a row."""

from typing import NamedTuple


class Kind(NamedTuple):
    """What an entry can be: its word, the heading over many of them, and what search makes of it."""

    word: str
    plural: str
    weight: int
    """Added to the score of a search hit, so that a class comes before a field of the same name."""
    meaning: str
    named: bool = True
    """Whether the name is the entry's own; else it says where the entry stands, and is not searched by default."""


TABLE = (
    Kind("module", "modules", 6, "a source file"),
    Kind("class", "classes", 10, "a class"),
    Kind("function", "functions", 9, "a function of a module"),
    Kind("method", "methods", 7, "a function of a class"),
    Kind("property", "properties", 7, "a method that is read like a field"),
    Kind("nested function", "nested functions", 5, "a function inside a function"),
    Kind("field", "fields", 4, "an attribute declared in a class, or set on self where instances are made"),
    Kind("constant", "constants", 5, "a module's name in capitals, or one that is Final"),
    Kind("variable", "variables", 3, "any other name that a module binds to a value"),
    Kind("type alias", "type aliases", 6, "a name for a type"),
    Kind("op", "ops", 3, "an operator defined with its schema"),
    Kind("kernel", "kernels", 0, "an implementation registered for an operator"),
    Kind("gradient", "gradients", 0, "a backward formula registered for an operator"),
    Kind("lowering", "lowerings", 2, "what a compiler turns an operator into"),
    Kind("decomposition", "decompositions", 0, "an operator written in terms of others"),
    Kind("side effect", "side effects", -4, "an operator marked as never to be removed as dead"),
    Kind("remap", "remaps", -60, "a function that a table replaces by another"),
    Kind("config key", "config keys", -200, "an attribute of a config module that a file reads"),
    Kind("environment variable", "environment variables", 3, "a variable of the environment that a file reads"),
    Kind("error", "errors", -20, "a message that is raised, its computed parts as holes", named=False),
    Kind("deprecation", "deprecations", -20, "a message that something is deprecated", named=False),
    Kind("concept", "concepts", 2, "a note with a title, in comments or docstrings"),
    Kind("decorator", "decorators", -500, "what a file decorates its definitions with, once a file"),
    Kind("test", "tests", -500, "what the tests of a file call, once a file"),
    Kind("mention", "mentions", -500, "the notes that a file refers to, once a file"),
    Kind("import", "imports", -250, "a name taken from another module"),
)

KINDS = {kind.word: kind for kind in TABLE}
UNNAMED = frozenset(kind.word for kind in TABLE if not kind.named)
"""The kinds of entries whose names say where they stand, not what they are called."""
NOTES = CONCEPT, MENTION = "concept", "mention"
"""The kinds of entries that are titled notes, and what refers to them."""
USED = ("decorator", "test", MENTION)
"""The kinds of entries that say what a file uses; pages show them beside definitions and in sections of their own."""
ELSEWHERE = frozenset(
    (
        *("op", "kernel", "gradient", "lowering", "decomposition", "side effect", "remap"),
        *("config key", "environment variable", CONCEPT, *USED),
    )
)
"""The kinds of entries that are named by what they are for, about or use, not by what a module binds."""


def heading(word: str) -> str:
    """Returns the heading over entries of a kind.

    Example:
        >>> heading("class"), heading("type alias")
        ('Classes', 'Type aliases')
    """
    return KINDS[word].plural.capitalize()
