"""Rows and files that would fill the memory or never end are findings with their place and the limit."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.formats.reading import Read, ReadProgress, read_rows
from backpropagate.training.data.readers import decoding, hub_rows, table_rows
from backpropagate.training.data.readers.sources import open_source
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.errors import DatasetNotFoundError

LONG_WORD = "a word, or white space, of more than 1,048,576 characters"


def read(path: Path) -> list[Read]:
    return list(read_rows(open_source(path), None, ReadProgress("preparing", "reading")))


def chat(turns: int, text: str = "a") -> str:
    roles = ("user", "assistant") * turns
    return json.dumps({"messages": [{"role": role, "content": text} for role in roles]})


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        (chat(5000), "too_long", "10,000 turns; the limit is 2,000"),
        (chat(1, "x y " * 2**22), "too_long", "33,554,432 characters; the limit is 16,777,216"),
        (chat(1, "x" * 2**21), "too_long", LONG_WORD),
        (chat(1, "a" + " " * 2**21 + "x"), "too_long", LONG_WORD),
        (json.dumps({"text": "x" * 2**21}), "too_long", LONG_WORD),
        ('{"text": "a", "more": ' + '{"a": ' * 300 + "1" + "}" * 301, "parse", "nested more than 64 deep"),
        ('{"text": "a", "more": ' + "[" * 300 + "]" * 300 + "}", "parse", "nested more than 64 deep"),
    ],
    ids=["turns", "characters", "one word", "spaces", "text", "objects", "arrays"],
)
def test_a_row_beyond_a_limit_is_a_finding_with_its_line(
    tmp_path: Path, row: str, kind: str, reason: str
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(f"{chat(1)}\n{row}\n{chat(1)}\n")
    first, bad, last = read(path)
    assert (first.row is not None, last.row is not None) == (True, True)
    assert (bad.place.number, bad.kind, bad.reason) == (2, kind, reason)


def test_lines_of_utf_16_are_found_in_any_block_and_a_long_one_is_a_bad_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_ROW_BYTES", 2**18)
    path = tmp_path / "data.jsonl"
    # U+0A05 and U+050A have the bytes of a newline at odd and even positions, but are none
    texts = ["a" * length for length in (32_700, 32_710, 40_000)] + ["\u0a05\u050a" * 40_000, "b"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    lines.insert(3, "x" * 2**20)
    for encoding in ("utf-16-le", "utf-16-be"):
        path.write_bytes(("\ufeff" + "\n".join(lines)).encode(encoding))
        rows = read(path)
        assert [(row.place.number, row.kind) for row in rows if row.row is None] == [(4, "too_long")]
        assert [row.row.text for row in rows if row.row is not None] == texts  # pyright: ignore


def test_a_parquet_text_that_stands_once_in_the_file_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(table_rows, "MAX_ROW_BYTES", 1000)
    texts = ["y" * 2000, "short", "z" * 900]
    column = arrow.DictionaryArray.from_arrays(arrow.array([0, 1, 2, 0, 1, None]), arrow.array(texts))
    parquet.write_table(arrow.table({"text": column, "n": [1, 2, 3, 4, 5, 6]}), tmp_path / "data.parquet")
    rows = read(tmp_path / "data.parquet")
    assert [row.kind for row in rows] == ["too_long", None, None, "too_long", None, "unrecognised"]
    assert [row.row.text for row in rows if row.row is not None] == ["short", "z" * 900, "short"]  # pyright: ignore


def test_a_parquet_text_that_is_not_utf_8_is_a_bad_row(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    offsets, values = arrow.array([0, 1, 3], arrow.int32()).buffers()[1], arrow.py_buffer(b"a\xff\xfe")
    column = arrow.Array.from_buffers(arrow.string(), 2, [None, offsets, values])
    parquet.write_table(arrow.table({"text": column}), tmp_path / "data.parquet")
    good, bad = read(tmp_path / "data.parquet")
    assert good.row is not None
    assert (bad.place.number, bad.kind, bad.reason) == (2, "encoding", "a text is not UTF-8")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_whose_name_is_not_utf_8_is_inspected(tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"text": "a"}\n')
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl")).write_text('{"text": "b"}\n')
    result = inspect(DataGroup(source=str(tmp_path)), cache=tmp_path / "cache")
    assert result.rows == 2
    json.dumps(result.as_dict(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [
        (["train", "train_sft", "test"], "train"),
        (["train_sft", "test_sft"], "train_sft"),
        (["train_sft", "train_gen", "test"], ["'train_sft'", "'train_gen'", "'test'", 'split="train_sft"']),
        (["default"], ["'default'", 'split="default"']),
    ],
)
def test_a_hub_dataset_without_train_takes_the_only_one_like_it_or_names_them(
    monkeypatch: pytest.MonkeyPatch, splits: list[str], chosen: str | list[str]
) -> None:
    datasets: Any = pytest.importorskip("datasets")
    monkeypatch.setattr(hub_rows, "_commit", lambda *_: "a" * 40)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_, **__: splits)
    if isinstance(chosen, str):
        assert hub_rows.hub_dataset("owner/name", None, None).split == chosen
        return
    with pytest.raises(DatasetNotFoundError) as error:
        hub_rows.hub_dataset("owner/name", None, None)
    assert all(text in f"{error.value} {error.value.hint}" for text in chosen)
