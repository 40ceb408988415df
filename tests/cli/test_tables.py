"""Tables of any width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio.cli.tables import GAP, NARROWEST, table

CELLS = st.lists(st.text("abc /:", max_size=60), min_size=1, max_size=3)
TITLES = ("ONE", "TWO", "THREE")


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5), st.integers(3 * NARROWEST + 2 * len(GAP), 200))
def test_no_line_is_longer_than_the_terminal(rows, width):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        assert max(map(len, table(TITLES, rows))) <= width


@pytest.mark.parametrize("width", ["10", None])
def test_a_table_says_all_whatever_the_width(width, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if width:
        monkeypatch.setenv("COLUMNS", width)
    rows = [(["name"], ["one place", "another"], ["words and more words"])]
    said = " ".join(" ".join(table(TITLES, rows)).split())
    for word in ["name", "one", "place", "another", "words", "and", "more"]:
        assert word in said


def test_where_nobody_looks_a_row_is_one_aligned_line(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert list(table(TITLES, [(["a"], ["b", "c"], ["d"]), (["e"], ["f"], ["g " * 100])])) == [
        "ONE  TWO   THREE",
        "a    b, c  d",
        f"e    f     {'g ' * 100}".rstrip(),
    ]
