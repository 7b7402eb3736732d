"""Text files in other encodings than UTF-8: what is recognised, what the setting `encoding` reads."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from backpropagate.training.config import DataGroup
from backpropagate.training.config.text_encodings import ENCODINGS, known_encoding
from backpropagate.training.data.check import check
from backpropagate.training.data.formats.messages import texts_of
from backpropagate.training.data.formats.reading import ReadProgress, open_data, read_rows
from backpropagate.training.data.readers import text_encoding
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.errors import DatasetParseError, InputError
from backpropagate.training.requests.train import train_spec

QUESTION, ANSWER = "Wie grüßt man?", "„Grüß Gott“ für 5 €"
ROW = json.dumps({"prompt": QUESTION, "completion": ANSWER}, ensure_ascii=False)
FILES = {
    "rows.csv": f'prompt;completion\nok;ok\n{QUESTION};{ANSWER}\n"Zwei\nZeilen, größer";ja\n',
    "rows.tsv": f"prompt\tcompletion\n{QUESTION}\t{ANSWER}\n",
    "rows.jsonl": f"{ROW}\n{ROW}\n",
    "array.json": f"[{ROW},\n{ROW}]",
    "object.json": f'{{"data":\n[{ROW}]}}',
    "text.txt": f"{QUESTION}\n{ANSWER}\n",
    "text.md": f"# {QUESTION}\n",
}


def data(path: Path, **settings: Any) -> DataGroup:
    return DataGroup(source=str(path), **settings)


def texts(group: DataGroup) -> list[list[str]]:
    rows = [read.row for read in read_rows(open_data(group), None, ReadProgress("", ""))]
    return [[text for _, text in texts_of(row)] for row in rows if row is not None]


@pytest.mark.parametrize("name", FILES)
def test_a_windows_1252_file_says_its_repair_and_the_repair_reads_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name].encode("cp1252"))
    with pytest.raises(DatasetParseError) as refused:
        check(data(path)).raise_if_unusable()
    assert 'et encoding="cp1252"' in (refused.value.hint or "")
    assert "not UTF-8" in refused.value.message
    found = texts(data(path, encoding="cp1252"))
    path.write_text(FILES[name], encoding="utf-8")
    assert found == texts(data(path)) != []


def test_an_inspection_counts_the_rows_and_shows_how_they_would_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(FILES["rows.csv"].encode("cp1252"))
    inspected = inspect(data(path))
    (found,) = inspected.as_dict()["findings"]
    assert (found["kind"], found["count"], inspected.usable) == ("windows_1252", 2, 1)
    assert found["first"] == ["rows.csv:3", "rows.csv:5"]
    assert found["repair"] == 'encoding="cp1252"'
    assert list(found["untrusted_details"]) == [f"{QUESTION};{ANSWER}", 'Zeilen, größer";ja']
    assert inspected.remedy == 'Set encoding="cp1252"'


def test_the_encoding_comes_before_the_other_repairs(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("Frage;Antwort\nWer?;Ich\nWie grüßt man?;Grüezi\n".encode("cp1252"))
    assert inspect(data(path)).remedy == 'Set encoding="cp1252"'
    (found,) = inspect(data(path, encoding="cp1252")).as_dict()["findings"]
    assert found["repair"] == 'columns={"prompt": "Frage", "completion": "Antwort"}'


def test_an_encoding_without_a_text_file_is_named(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"prompt": ["a"], "completion": ["b"]}), tmp_path / "rows.parquet")
    found = check(data(tmp_path / "rows.parquet", encoding="cp1252"))
    assert found.notes == ["encoding is not used: the dataset has no text files."]
    assert not check(data(tmp_path / "rows.parquet")).notes


def test_a_header_in_another_encoding_is_an_error_with_the_repair(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("Größe,Antwort\na,b\n".encode("cp1252"))
    with pytest.raises(
        DatasetParseError, match=r"rows\.csv:1, the header, cannot be read: byte 0xf6"
    ) as error:
        check(data(path))
    assert (error.value.hint or "").startswith('Set encoding="cp1252"')
    columns = {"prompt": "Größe", "completion": "Antwort"}
    assert check(data(path, encoding="cp1252", columns=columns)).usable == 1


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"prompt,completion\na,\xc3\xa9\nb,\xe9\n", id="some lines are UTF-8"),
        pytest.param(b"prompt,completion\na,b\nb,\x81\n", id="a byte that Windows-1252 lacks"),
        pytest.param(b"\xef\xbb\xbfprompt,completion\nb,\xe9\n", id="a byte order mark of UTF-8"),
    ],
)
def test_no_encoding_is_proposed_for_a_file_that_is_not_windows_1252(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    finding = check(data(path)).findings.errors()[0]
    assert (finding.kind, finding.count) == ("encoding", 1)


def test_a_large_file_is_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoding, "LOOKED_AT", 100)
    monkeypatch.setattr(text_encoding, "BLOCK", 50)
    path, plain = tmp_path / "rows.jsonl", b'{"prompt": "a", "completion": "b"}\n' * 5
    path.write_bytes(plain + b'{"text": "caf\xe9"}\n{"text": "\x81"}\n')
    found = check(data(path)).findings
    assert (found.count("windows_1252"), found.count("encoding")) == (1, 1)
    assert check(data(path, encoding="cp1252")).usable == 6
    path.write_bytes('{"text": "café"}\n'.encode() + plain + b'{"text": "caf\xe9"}\n')
    assert check(data(path, encoding="cp1252")).findings.count("encoding") == 1, "most of it is UTF-8"


def test_the_encoding_is_of_the_files_that_are_not_utf_8_or_utf_16(tmp_path: Path) -> None:
    for name, encoding in (("a", "cp1252"), ("b", "utf-8"), ("c", "utf-16"), ("d", "utf-8-sig")):
        (tmp_path / f"{name}.jsonl").write_bytes(ROW.encode(encoding))
    assert texts(data(tmp_path, encoding="windows-1252")) == [[QUESTION, ANSWER]] * 4


def test_a_compressed_file_is_read_in_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(ROW.encode("cp1252")))
    assert check(data(path)).findings.count("windows_1252") == 1
    assert texts(data(path, encoding="cp1252")) == [[QUESTION, ANSWER]]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_known_encoding_can_be_read_line_by_line(tmp_path: Path, encoding: str) -> None:
    letters = [chr(code) for code in range(0x80, 0x10000) if not 0xD800 <= code < 0xE000]
    # Some codecs write a character as a similar one, e.g. the yen sign as a backslash.
    known = "".join(
        one for one in letters if one.encode(encoding, "ignore").decode(encoding, "ignore") == one
    )
    assert b"\n" not in known.encode(encoding), "a line end is no part of another character"
    answer = known[:200].replace("\x85", "").strip() or "plain"
    line = json.dumps({"prompt": "a", "completion": answer}, ensure_ascii=False) + "\n"
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line.encode(encoding) * 2)
    assert texts(data(path, encoding=encoding)) == [["a", answer]] * 2


@pytest.mark.parametrize(
    "given, meant",
    [
        ("cp-1252", "did you mean cp1252?"),
        ("windws-1252", "did you mean windows-1252?"),
        ("utf-16", "known:"),
    ],
)
def test_an_unknown_encoding_is_refused_with_the_one_that_is_meant(given: str, meant: str) -> None:
    with pytest.raises(InputError, match=r"encoding: should be a known text encoding") as error:
        train_spec(arguments={"dataset": "x.csv", "encoding": given})
    assert meant in error.value.message


@pytest.mark.parametrize(
    "name", ["utf-16", "utf-32", "utf-7", "utf-8-sig", "hz", "cp037", "rot13", "hex", "\0", ""]
)
def test_an_encoding_that_is_no_plain_text_or_has_a_state_is_unknown(name: str) -> None:
    with pytest.raises(ValidationError):
        DataGroup(source="x.csv", encoding=name)


@pytest.mark.parametrize("name", ["Windows-1252", "CP1252", "windows_1252"])
def test_the_names_of_an_encoding_are_one(name: str) -> None:
    assert known_encoding(name) == codecs.lookup("cp1252").name
    assert DataGroup(source="x.csv", encoding=name) == DataGroup(source="x.csv", encoding="cp1252")
