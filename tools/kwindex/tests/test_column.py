"""Texts of lines: by going through them and by their words the same, and the same as a plain look at each line."""

from hypothesis import given
from hypothesis import strategies as st

from kwindex.column import Column

words = st.text("abé", min_size=1, max_size=3)
lines = st.lists(st.lists(words, max_size=3).map(lambda some: "".join(f" {word}" for word in some)), max_size=8)


def column(rows: list[str], warm: bool) -> Column:
    made = Column("".join(["\n", *(f"{row}\n" for row in rows)]).encode())
    for _ in range(9 if warm else 0):
        made.ask()
    return made


@given(lines, st.lists(words, min_size=1, max_size=3))
def test_lines_that_hold_words_that_begin_so(rows: list[str], beginnings: list[str]) -> None:
    expected = [
        number
        for number, row in enumerate(rows)
        if all(any(word.startswith(beginning) for word in row.split()) for beginning in beginnings)
    ]
    for warm in (False, True):
        assert sorted(column(rows, warm).having(tuple(beginnings))) == expected


@given(lines, words)
def test_lines_that_hold_letters(rows: list[str], letters: str) -> None:
    made = column(rows, False)
    assert list(made.holding(letters)) == [number for number, row in enumerate(rows) if letters in row]
    assert list(made.holding(f"\n {letters}")) == [n for n, row in enumerate(rows) if row.startswith(f" {letters}")]
    assert list(made.holding(f"{letters}\n")) == [n for n, row in enumerate(rows) if row.endswith(letters)]
    for either in (made, column(rows, True)):
        assert sorted(either.starting(f" {letters}")) == [
            n for n, row in enumerate(rows) if row.startswith(f" {letters}")
        ]
        assert list(either.exactly(f" {letters}")) == [n for n, row in enumerate(rows) if row == f" {letters}"]
    assert [made.line(number) for number in range(len(rows))] == rows


@given(lines, words)
def test_a_count_is_no_less_than_the_lines_that_hold_the_word(rows: list[str], word: str) -> None:
    for warm in (False, True):
        made = column(rows, warm)
        assert made.count(word) >= len(list(made.having((word,))))
