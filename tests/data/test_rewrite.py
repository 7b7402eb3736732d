"""New files from a dataset: the model sees the same in a converted one, and a split gives nothing away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backpropagate.cli import main
from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.cleaning.exact_duplicates import row_hash
from backpropagate.training.data.formats.reading import ReadProgress, open_data, read_rows

Captured = pytest.CaptureFixture[str]

ROWS: list[dict[str, Any]] = [
    {"instruction": "Translate", "input": "Haus", "output": "house"},
    {
        "conversations": [
            {"from": "system", "value": "s"},
            {"from": "human", "value": "q"},
            {"from": "gpt", "value": "a"},
        ]
    },
    {"prompt": "p", "completion": "c"},
    {"text": "plain text"},
    {"text": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n"},
    {
        "messages": [
            {"role": "user", "content": "w"},
            {"role": "assistant", "content": "bad", "weight": 0},
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": "z"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    },
    {"question": "ünï?", "answer": "😀", "source": "web"},
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def hashes(path: Path) -> list[int]:
    data = DataGroup(source=str(path))
    reads = read_rows(open_data(data), None, ReadProgress("x", "x"))
    return [row_hash(read.row) if read.row else 0 for read in reads]


def test_a_converted_file_of_every_format_is_the_same_to_a_model(
    home: Path, tmp_path: Path, capsys: Captured
) -> None:
    source, target = written(tmp_path / "in.jsonl", ROWS), tmp_path / "new" / "out.jsonl"
    assert main.run(["convert", str(source), "-o", str(target)]) == 0
    shown = capsys.readouterr()
    assert "7 of 7 rows" in shown.out and "1 of them are plain text" in shown.err and "'source'" in shown.err
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [next(iter(row)) for row in rows].count("messages") == 6
    assert hashes(target) == hashes(source) and all(hashes(target))
    assert main.run(["convert", str(source), "-o", str(target)]) == 1
    assert "already exists" in capsys.readouterr().err


def test_a_bad_row_is_refused_with_its_line_or_skipped(home: Path, tmp_path: Path, capsys: Captured) -> None:
    source, target = written(tmp_path / "in.jsonl", [*ROWS, {"odd": 1}]), tmp_path / "out.jsonl"
    assert main.run(["convert", str(source), "-o", str(target)]) == 1
    assert "in.jsonl:8" in capsys.readouterr().err and [*tmp_path.glob("*out*")] == []
    assert main.run(["convert", str(source), "-o", str(target), "--on-bad-rows", "skip"]) == 0
    assert "Left out: 1 row" in capsys.readouterr().err


def test_unknown_columns_are_refused_with_those_that_are_probably_meant(
    home: Path, tmp_path: Path, capsys: Captured
) -> None:
    source = written(tmp_path / "in.jsonl", [{"Frage": "Hauptstadt?", "Antwort": "Paris."}] * 3)
    assert main.run(["convert", str(source), "-o", str(tmp_path / "out.jsonl")]) == 1
    assert '{"prompt": "Frage", "completion": "Antwort"}' in capsys.readouterr().err


LONG = " ".join(f"word{number}" for number in range(60)) + " "


def facts(count: int) -> list[dict[str, str]]:
    return [
        {"prompt": f"What is thing {number}?", "completion": f"It is {number * 7}."}
        for number in range(count)
    ]


def test_a_split_is_seeded_keeps_the_rows_and_duplicates_on_one_side(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    similar = [{"prompt": LONG + "one", "completion": LONG + word} for word in ("two", "three", "two")]
    rows = [*facts(60), *similar, *facts(5)]
    written(tmp_path / "all.jsonl", rows)
    assert main.run(["data", "split", "all.jsonl", "--heldout-ratio", "0.3", "--seed", "5"]) == 0
    train, held_out = (
        [json.loads(line) for line in Path(f"all.{side}.jsonl").read_text().splitlines()]
        for side in ("train", "heldout")
    )
    assert sorted(map(str, train + held_out)) == sorted(map(str, rows)) and 15 <= len(held_out) <= 25
    assert not [row for row in held_out if row in train]
    assert len({(row in train) for row in similar}) == 1
    again = ["--out-train", "t.jsonl", "--out-heldout", "h.jsonl"]
    assert main.run(["data", "split", "all.jsonl", "--held-out", "0.3", "--seed", "5", *again]) == 0
    assert Path("h.jsonl").read_bytes() == Path("all.heldout.jsonl").read_bytes()
    capsys.readouterr()
    assert main.run(["data", "report", "t.jsonl", "--against", "h.jsonl", "--fail-on-contamination"]) == 0
    assert "0 (0.0%) are given away" in capsys.readouterr().out


def test_a_report_finds_what_training_data_give_away(home: Path, tmp_path: Path, capsys: Captured) -> None:
    train = [*facts(30), {"prompt": LONG + "one", "completion": LONG + "two"}, *facts(2)]
    evaluation = [
        facts(1)[0],
        {"prompt": LONG + "one!", "completion": LONG + "two"},
        {"prompt": "What is thing 9?", "completion": "Nothing."},
        {"prompt": "Unseen?", "completion": "Yes."},
    ]
    files = [
        str(written(tmp_path / name, rows)) for name, rows in (("t.jsonl", train), ("e.jsonl", evaluation))
    ]
    command = ["data", "report", files[0], "--against", files[1], "--json"]
    assert main.run(command) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["rows"], shown["equal"], shown["similar"]) == (33, 2, 2)
    against = shown["against"]
    assert (against["equal"], against["similar"], against["same_question"]) == (1, 2, 2)
    assert against["contaminated"] == 3 and against["share"] == 0.75
    assert against["pairs"][0] == ["equal", "e.jsonl:1", "t.jsonl:1"]
    for gate, help in (
        ("--fail-on-contamination", "from one of the two datasets"),
        ("--fail-on-dups", "--dedupe near"),
    ):
        assert main.run([*command, gate]) == 1
        refused = capsys.readouterr().err
        assert "INPUT_DATASET_VALIDATION_FAILED" in refused and help in refused
    assert main.run([*command, "--fail-on-dups", "--allow", "0.1"]) == 0
    assert main.run([*command, "--fail-on-bad-rows"]) == 0


def test_a_report_that_could_compare_nothing_passes_no_gate(
    home: Path, tmp_path: Path, capsys: Captured
) -> None:
    good = str(written(tmp_path / "good.jsonl", facts(3)))
    (tmp_path / "empty.jsonl").write_text("")
    bad = str(written(tmp_path / "bad.jsonl", [{"prompt": "", "completion": ""}] * 2))
    for other in (str(tmp_path / "empty.jsonl"), bad):
        for files in (["--against", other], ["--against", other, "--fail-on-contamination"]):
            assert main.run(["data", "report", good, *files]) == 1
            assert "The evaluation dataset has no usable row" in capsys.readouterr().err
        assert main.run(["data", "report", other, "--fail-on-bad-rows"]) == 1
        assert "The dataset has no usable row" in capsys.readouterr().err
    half = str(written(tmp_path / "half.jsonl", [{"prompt": "", "completion": ""}, *facts(1)]))
    assert main.run(["data", "report", good, "--against", half]) == 0
    assert "1 more of its rows cannot be used" in capsys.readouterr().out


def test_files_are_written_only_where_a_person_may(home: Path, tmp_path: Path, capsys: Captured) -> None:
    source = written(tmp_path / "in.jsonl", ROWS)
    assert main.run(["convert", str(source), "-o", "/etc/out.jsonl"]) == 1
    assert "INPUT_PATH_FORBIDDEN" in capsys.readouterr().err
