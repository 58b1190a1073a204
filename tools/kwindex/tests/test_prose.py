"""What is found by other things than names: types, words of summaries, parts of messages."""

from collections.abc import Callable

import pytest

from kwindex import Entry, Searcher
from kwindex.link import bases_of
from kwindex.signatures import Asked, types_of

Index = Callable[[str], list[Entry]]
SOURCE = '''
def gather(x: torch.Tensor, group: str, dim: int = 0) -> torch.Tensor:
    """Collects the pieces of all ranks along one dim."""
def name_of(x: "Tensor", n: Optional[int] = None) -> str:
    """Says what a tensor is called."""
def ranks(mesh: DeviceMesh) -> List[int]:
    """Returns the flattened ranks of a DeviceMesh."""
def untyped(x, y): ...
def fails(n):
    raise ValueError(f"the group of {n} ranks is gone; make it anew on every rank")
class Mesh:
    def size(self, axis: int | str) -> int: ...
'''


def found(index: list[Entry], query: str) -> list[str]:
    return [hit.entry.name.removeprefix("m.") for hit in Searcher(index).search(query)]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("Tensor, str, int -> Tensor", "gather"),
        ("Tensor, str -> Tensor", "gather"),
        ("str, Tensor -> Tensor", "gather"),
        ("torch.Tensor -> str", "name_of"),
        ("DeviceMesh -> list[int]", "ranks"),
        ("-> list", "ranks"),
        ("(int) -> int", "Mesh.size"),
        ("Tensor, int | None -> str", "name_of"),
        ("kind:method -> int", "Mesh.size"),
    ],
)
def test_functions_that_take_and_return_these_types(entries_of: Index, query: str, first: str) -> None:
    assert found(entries_of(SOURCE), query)[0] == first


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("AssertionError: Expected CellVariable, got 3 in load_cell", "A.B.C.D.cell"),
        ("AssertionError: expected int, got 3", "anything"),
        ("RuntimeError: exactly one of size and scale", "_other"),
        ("lib.errors.RuntimeError: exactly one of size and scale", "_other"),
        ("AssertionError: exactly one of size and scale", "one"),
        ("exactly one of size and scale", "one"),
        ("RuntimeError: must be given exactly one of size and", "_longer"),
    ],
)
def test_of_messages_that_a_text_is_the_one_that_tells_most_is_first(entries_of: Index, query: str, first: str) -> None:
    index = entries_of(
        "def anything(x, y): raise AssertionError(f'expected {x}, got {y}')\n"
        "class A:\n class B:\n  class C:\n   class D:\n"
        "    def cell(z): raise AssertionError(f'Expected CellVariable, got {z} in load_cell')\n"
        "def one(): raise AssertionError('exactly one of size and scale')\n"
        "def _other(): raise RuntimeError('exactly one of size and scale')\n"
        "def longer(): raise AssertionError('must be given exactly one of size and scale, in this order')\n"
        "def _longer(): raise RuntimeError('must be given exactly one of size and scale, in this order')\n"
    )
    assert found(index, query)[0] == first


@pytest.mark.parametrize("query", ["bytes -> int", "Tensor, Tensor -> Tensor", "-> Tensors", "int -> ProcessGroup"])
def test_types_that_no_function_has(entries_of: Index, query: str) -> None:
    assert found(entries_of(SOURCE), query) == []


def test_the_same_types_come_before_those_with_others(entries_of: Index) -> None:
    index = entries_of(
        "def f(a: int, b: str) -> str: ...\ndef g(a: int) -> str: ...\ndef h(a: int | None) -> str: ...\n"
    )
    hits = Searcher(index).search("int -> str")
    assert [hit.entry.name for hit in hits] == ["m.g", "m.f", "m.h"]
    assert [hit.why for hit in hits] == ["these types", "these types, and others", "these types, and others"]


@pytest.mark.parametrize(
    ("signature", "types"),
    [
        ("f(x: 'a.b.Tensor') -> None", "none tensor"),
        ("f(x: Dict[str, List[int]], *args, **kw)", "? dict[str,list[int]] ? ?"),
        ("async f(a, /, b: int = f(1, 2), *, c: str = ', ') -> Callable[[int], str]", "callable[[int],str] ? int str"),
        ("f(x) -> Optional[Union[int, str]]", "int|str|none ?"),
        ("f(a, b)", ""),
        ("class A(B)", ""),
        ("f(x: int, y: st…", "? int st…"),
    ],
)
def test_types_of_signatures(signature: str, types: str) -> None:
    assert types_of(signature).split("\x1f") == types.split(" ")


def test_only_an_arrow_asks_for_types() -> None:
    assert Asked.of("Tensor, str") is None
    assert Asked.of("->") is None


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("collect pieces along a dim", "gather"),
        ("flatten device mesh ranks", "ranks"),
        ("what is the tensor called", "name_of"),
        ("the group of 3 ranks is gone", "fails"),
        ("ValueError: the group of 3 ranks is gone; make it anew", "fails"),
        ("E   ValueError: the group of 3 ranks is gone; make it anew on every rank", "fails"),
        ("[rank0]: ValueError: the group of 3 ranks is gone", "fails"),
    ],
)
def test_words_of_summaries_and_messages(entries_of: Index, query: str, first: str) -> None:
    assert found(entries_of(SOURCE), query)[0] == first


UNSUPPORTED = """
class Unsupported(RuntimeError): ...
class Scale(int): ...
def add(other):
    raise ValueError(f"unsupported: {type(other)}")
def jump(value):
    raise Unsupported(f"branching on data in {value}")
"""


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("Unsupported: branching on data in f", ["jump"]),
        ("m.Unsupported: branching on data in f", ["jump"]),
        ("E   m.Unsupported: branching on data in f", ["jump"]),
        ("[rank3]: m.Unsupported: branching on data in f", ["jump"]),
        ("ValueError: unsupported: <class 'str'>", ["add"]),
        ("unsupported: <class 'str'>", ["add"]),
        ("add: unsupported: <class 'str'>", ["add"]),
        ("m.Unsupported: branching on", ["jump"]),
    ],
)
def test_what_a_traceback_says_first_is_the_error_and_not_its_message(
    entries_of: Index, query: str, names: list[str]
) -> None:
    """The class that the index has under this name, or what every error is called."""
    assert found(entries_of(UNSUPPORTED), query) == names


WEAK = """
class Backend(RuntimeError): ...
class load: ...
def nothing(why):
    raise Backend(f"load: nothing that is {why}")
def check(x):
    raise TypeError(f"expected {x} but got {type(x)}")
def load(name):
    raise RuntimeError(f"Error(s) in loading state_dict for {name}: {name}")
"""


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("TypeError: expected int but got <class 'str'>", "raises this message"),
        (
            "RuntimeError: weight of size [64, 3, 7, 7], expected input[1, 1, 224, 224] to have 3, but got 1 channels",
            "",
        ),
        (
            "Error(s) in loading state_dict for Net: Missing key(s) in state_dict: " + "weight, " * 30,
            "raises this message",
        ),
        ("m.Backend: load: nothing that is told", "raises this message"),
        ("m.Backend: nothing that is written here", "the error's class: no message is like this"),
        ("m.Backend: ValueError: expected int but got <class 'str'>", "raises this message"),
        (
            "Traceback (most recent call last):\n  File \"x.py\", line 3, in f\n    raise TypeError(f'{x}: expected')\n"
            "TypeError: expected int but got <class 'str'>\n",
            "raises this message",
        ),
        (
            "Traceback (most recent call last): File x.py\nRuntimeError: a\n\nTraceback (most recent call last):\n"
            "[rank1]: m.Backend: ValueError: expected int but got <class 'str'>",
            "raises this message",
        ),
    ],
)
def test_a_text_is_a_message_where_it_shares_enough_with_it(entries_of: Index, query: str, why: str) -> None:
    assert [hit.why for hit in Searcher(entries_of(WEAK)).search(query)][:1] == [why] * bool(why)


def test_few_of_many_words_are_not_enough(entries_of: Index) -> None:
    assert found(entries_of(SOURCE), "pieces of chocolate melting quietly under southern sunlight") == []


def test_a_word_of_a_summary_is_found_whatever_stands_before_it(entries_of: Index) -> None:
    index = entries_of('def a():\n    """Meets the ranks (workgroup-scoped, `lazily`)."""\ndef b():\n    """Else."""\n')
    for query in ("scoped lazily ranks", "lazily scoped", "workgroup scoped"):
        assert found(index, query) == ["a"], query


def test_two_words_of_one_summary_come_before_names_that_are_nearly_so(entries_of: Index) -> None:
    index = entries_of('def missing():\n    """Tells which ranks have died."""\nclass RankHavoc: ...\n')
    assert found(index, "ranks have") == ["missing"]  # and not RankHavoc, from which two letters differ
    assert found(index, "rank havok") == ["RankHavoc"]


@pytest.mark.parametrize("named", ["f", "f[T]", "f[T: (int, str), **P]"])
def test_what_a_function_is_generic_in_is_no_parameter(named: str) -> None:
    assert types_of(f"{named}(x: T) -> list[T]") == types_of("f(x: T) -> list[T]")


@pytest.mark.parametrize("named", ["C", "C[T]", "C[T: (int, str), **P]"])
def test_what_a_class_is_generic_in_is_no_base(named: str) -> None:
    assert bases_of(f"class {named}(lib.B[T], D, metaclass=M)") == bases_of("class C(lib.B[T], D, metaclass=M)") != []
    assert bases_of(f"class {named}") == []
