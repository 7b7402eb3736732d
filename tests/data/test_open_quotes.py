"""A quote of a CSV file that is never closed costs its own row; the work for many of them has a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpropagate.training.data.readers import table_rows
from backpropagate.training.data.readers.rows import BadRow, RawRow
from backpropagate.training.data.readers.sources import open_source
from backpropagate.training.errors import DatasetParseError


def read(folder: Path, *lines: str) -> tuple[list[str], list[tuple[int, str]]]:
    """The completions of the good rows, and line and reason of the bad ones."""
    path = folder / "data.csv"
    path.write_text("\n".join(["prompt,completion", *lines]) + "\n")
    rows = list(open_source(path))
    good = [row.value["completion"] for row in rows if isinstance(row, RawRow)]
    return good, [(row.place.number, row.reason) for row in rows if isinstance(row, BadRow)]


ANSWERS = [f"q{number},a{number}" for number in range(50)]


@pytest.mark.parametrize("line", ['q,"open', '"open,a', '"', 'q,"', 'q,"two ""words', 'q,a,"open'])
def test_an_open_quote_costs_one_row_wherever_it_stands(tmp_path: Path, line: str) -> None:
    good, bad = read(tmp_path, *ANSWERS[:20], line, *ANSWERS[20:])
    assert good == [f"a{number}" for number in range(50)]
    assert bad == [(22, "a quote is not closed")]


def test_a_later_row_in_quotes_does_not_close_an_open_quote(tmp_path: Path) -> None:
    good, bad = read(tmp_path, "q,a", 'q,"open', "q,b", "q,c", 'q,"d"', 'q,"e\nf"', "q,g")
    assert good == ["a", "b", "c", "d", "e\nf", "g"]
    assert bad == [(3, "a quote is not closed")]


def test_several_open_quotes_cost_a_row_each(tmp_path: Path) -> None:
    good, bad = read(tmp_path, 'q,"open', "q,a", 'q,"open', "q,b", "q,c")
    assert good == ["a", "b", "c"]
    assert [number for number, _ in bad] == [2, 4]


def test_lines_of_a_cell_with_a_wrong_quote_do_not_become_rows(tmp_path: Path) -> None:
    good, bad = read(tmp_path, "q,a", '"a letter\nto you\nand me" oops,b', "q,c")
    assert good == ["a", "c"]
    assert bad == [(3, "',' expected after '\"' (lines 3 to 5)")]


def test_a_cell_of_many_lines_is_kept(tmp_path: Path) -> None:
    text = "a line, with a comma\n" * 5000
    assert read(tmp_path, f'q,"{text}"', "q,b") == ([text, "b"], [])


def test_a_record_longer_than_the_limit_is_an_open_quote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_rows, "MAX_RECORD_LINES", 10)
    good, bad = read(tmp_path, *ANSWERS[:5], 'q,"open', *ANSWERS[5:])
    assert (len(good), bad) == (50, [(7, "a quote is not closed")])


def test_reading_again_after_open_quotes_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_rows, "MAX_READ_AGAIN_BYTES", 100)
    with pytest.raises(DatasetParseError, match=r"too many quotes that are not closed, the last at line 2\."):
        read(tmp_path, 'q,"open', *ANSWERS)


def test_a_file_whose_rows_cannot_be_read_is_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_rows, "MAX_UNREADABLE", 20)
    with pytest.raises(DatasetParseError, match=r"is not a table: .*data\.csv:22: 1 cells, but the header"):
        read(tmp_path, *["one cell"] * 50)
