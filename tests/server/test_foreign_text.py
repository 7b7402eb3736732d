"""What files, models and libraries wrote stays out of our own sentences."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_texts import CONTROL, HOSTILE, MARKER

from backpropagate.cli.wrapped import say
from backpropagate.training.data.readers.rows import Place
from backpropagate.training.models.tokenizer import load_error


def test_the_text_of_a_library_is_untrusted_details_and_no_part_of_the_message(tmp_path: Path) -> None:
    error = load_error(tmp_path / HOSTILE, "model", ValueError(HOSTILE))
    assert MARKER not in error.sentence()
    assert MARKER in (error.record().untrusted_details or "")
    assert not set("\n\x1b\x07\u202e") & set(error.record().model_dump_json() + error.sentence())


def test_a_place_cuts_the_name_of_its_file_to_one_line() -> None:
    assert MARKER not in str(Place(HOSTILE, 3))
    assert not set("\n\x1b\x07\u202e") & set(str(Place(HOSTILE, 3)))
    assert str(Place("train.jsonl", 3)) == "train.jsonl:3"


def test_the_terminal_gets_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a {CONTROL}b")
    assert capsys.readouterr().out == "a b\n"
