"""The examples of docs/data-formats.md are run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import backpropagate
from backpropagate.training import data
from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.findings import KINDS
from backpropagate.training.data.formats.recognise import FIELDS, recognise

PAGE = Path(backpropagate.__file__).parent / "docs" / "data-formats.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the installed package has no docs")
TEXT = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
ROWS = re.findall(r"```jsonl (\w+)\n(.*?)```", TEXT, re.DOTALL)
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("name, rows", ROWS, ids=[name for name, _ in ROWS])
def test_the_rows_of_the_page_are_of_the_format_they_stand_under(name: str, rows: str) -> None:
    for line in rows.splitlines():
        assert recognise(json.loads(line)).format == name


def test_the_page_shows_every_format() -> None:
    shown = {name for name, _ in ROWS}
    assert shown == {"preference", "openai_preference", "kto", "openai", "sharegpt", "alpaca", "prompt_completion", "question_answer", "chatml", "text"}  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("code", CODE)
def test_the_code_of_the_page_runs(code: str, tmp_path: Path, tokenizer_of: Any) -> None:
    exec(
        code,
        {"path": tmp_path / "data.jsonl", "folder": tmp_path / "cache", "tokenizer": tokenizer_of("chatml")},
    )


def test_the_page_names_every_field_and_every_repair() -> None:
    assert all(f"`{field}`" in TEXT for field in FIELDS)
    names = {(kind.repair or "").split("=")[0] for kind in KINDS.values()} - {""}
    assert all(f"`{name}`" in TEXT or name in ("columns", "max_seq_length") for name in names)


def test_the_defaults_of_the_page_are_those_of_the_settings() -> None:
    defaults = DataGroup().model_dump(mode="json")
    for name, values in re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXT, re.MULTILINE):
        bold = re.search(r"\*\*(.*?)\*\*", values)
        if bold:
            assert str(defaults[name]).lower() == bold[1]


def test_the_map_of_the_package_names_what_there_is() -> None:
    folder = Path(data.__file__).parent
    named = set(re.findall(r"^    ([a-z_]+(?:/|\.py)) ", data.__doc__ or "", re.MULTILINE))
    there = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    there |= {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert named == there


def test_the_public_names_of_the_package_are_what_its_modules_hold() -> None:
    assert all(getattr(data, name) is not None for name in data.__all__)
