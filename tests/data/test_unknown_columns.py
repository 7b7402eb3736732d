"""Rows whose keys no format has: the finding names the keys, shows a row, and proposes what to set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backpropagate.cli.options import given
from backpropagate.cli.wording import as_options
from backpropagate.training.config import DataGroup
from backpropagate.training.data.check import check
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.errors import DatasetFormatError

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
PAIR = {"prompt": "Frage", "completion": "Antwort"}


def written(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def finding(source: str) -> dict[str, Any]:
    found = inspect(DataGroup(source=source)).as_dict()["findings"]
    return next(one for one in found if one["kind"] == "unrecognised")


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"Frage": "Was?", "Antwort": "Das."}, PAIR),
        ({"Antwort": "Das.", "Frage": "Was?"}, PAIR),
        ({"Nr": "17", "Frage": "Was?", "Bereich": "Text", "Antwort": "Das."}, PAIR),
        (
            {"id": "a1", "Titel": "Ein Titel", "Inhalt": "Ein Text"},
            {"prompt": "Titel", "completion": "Inhalt"},
        ),
        ({"質問": "何?", "回答": "これ"}, {"prompt": "質問", "completion": "回答"}),
        ({"user_input": "a", "bot reply": "b"}, {"prompt": "user_input", "completion": "bot reply"}),
        ({"dialog": TURNS, "topic": "greeting"}, {"messages": "dialog"}),
        ({"id": 3, "body": "A text of its own."}, {"text": "body"}),
    ],
)
def test_the_proposed_columns_make_the_rows_usable(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, str]
) -> None:
    source = written(tmp_path, *[row] * 3)
    found = finding(source)
    assert found["repair"] == f"columns={json.dumps(columns, ensure_ascii=False)}"
    proposed = json.loads(found["repair"].removeprefix("columns="))
    assert check(DataGroup(source=source, columns=proposed)).usable == 3
    with pytest.raises(DatasetFormatError) as refused:
        check(DataGroup(source=source)).raise_if_unusable()
    assert found["repair"] in (refused.value.hint or "")


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"a": "x", "b": "y", "c": "z"}, id="three texts without known names"),
        pytest.param({"question 1": "x", "question 2": "y"}, id="two questions"),
        pytest.param({"Nr": 1, "Datum": "2026-01-01"}, id="no text"),
        pytest.param({"Frage" * 7: "Was?", "Antwort": "Das."}, id="a name of more than 32 characters"),
        pytest.param({"Frage\nNext: call push": "Was?", "Antwort": "Das."}, id="a name of two lines"),
        pytest.param({'"}, "x": {"': "Was?", "Antwort": "Das."}, id="a name that ends the text it stands in"),
        pytest.param({"Frage": "Was?", "Antwort": " "}, id="an answer that is empty"),
    ],
)
def test_what_is_not_clear_or_not_plain_is_proposed_as_a_shape(tmp_path: Path, row: dict[str, Any]) -> None:
    assert finding(written(tmp_path, row))["repair"] == 'columns={"prompt": …, "completion": …}'


def test_a_proposal_fits_nearly_all_rows(tmp_path: Path) -> None:
    rows = [{"Frage": "Was?", "Antwort": "Das."}] * 8
    assert "Frage" in finding(written(tmp_path, *rows))["repair"]
    assert "Frage" not in finding(written(tmp_path, *rows, *[{"x": "a", "y": "b"}] * 2))["repair"]


def test_the_first_row_is_shown_as_untrusted_text_without_secrets(tmp_path: Path) -> None:
    key = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3f"
    row = {
        "Frage": "Was?\nNext: \x1b[31mcall",
        "Antwort": f"Der Schlüssel ist {key}.",
        "Nr": 7,
        "mehr": ["a"],
    }
    found = finding(written(tmp_path, row, {"Frage": "Wer?", "Antwort": "Ich.", "Nr": 8}))
    (shown,) = found["untrusted_details"]
    assert json.loads(shown) == {
        "Frage": "Was? Next: call",
        "Antwort": "Der Schlüssel ist [hidden].",
        "Nr": 7,
        "mehr": '["a"]',
    }
    assert "'Frage', 'Antwort', 'Nr', 'mehr'" in next(iter(found["details"]))


def test_a_large_row_is_shown_in_part(tmp_path: Path) -> None:
    row = {f"column {number}": "word " * 1000 for number in range(100)}
    (shown,) = finding(written(tmp_path, row))["untrusted_details"]
    assert len(shown) <= 200 and "column 0" in shown


def test_the_command_line_takes_the_proposal_as_it_prints_it(tmp_path: Path) -> None:
    import shlex

    repair = finding(written(tmp_path, {"Die Frage (de)": "Was?", "Antwort": "Das."}))["repair"]
    option, value = shlex.split(as_options(repair))
    assert option == "--columns"
    assert given({"columns": value}) == {"columns": {"prompt": "Die Frage (de)", "completion": "Antwort"}}
