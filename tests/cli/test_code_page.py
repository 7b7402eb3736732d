"""What the commands print into a pipe whose encoding lacks characters, as a code page of Windows does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from backpropagate.cli.code_page import never_fail_to_print
from backpropagate.cli.wrapped import say, say_json
from backpropagate.tools.loss_plot import sparkline

QUESTION = "Wie heißt 山 auf Deutsch? 🙂"


def test_arrows_are_spelled_where_a_code_page_has_none(home: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "cp1252:strict", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "backpropagate", "info"]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert b"Field -> dataset column" in b" ".join(done.stdout.split())


def printed(show: Callable[[], None]) -> str:
    """What is printed into such a pipe."""
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", write_through=True)
    with redirect_stdout(pipe):
        never_fail_to_print()
        show()
    assert isinstance(pipe.buffer, io.BytesIO)
    return pipe.buffer.getvalue().decode("cp1252").strip()


def test_json_stays_exact() -> None:
    assert json.loads(printed(lambda: say_json(json.dumps([QUESTION], ensure_ascii=False)))) == [QUESTION]


def test_letters_that_a_code_page_lacks_are_shown_by_their_escapes() -> None:
    assert printed(lambda: say(QUESTION)) == r"Wie heißt \u5c71 auf Deutsch? \ud83d\ude42"


def test_a_curve_of_losses_becomes_digits() -> None:
    assert printed(lambda: say(sparkline([3.0, 2.0, 1.5, 1.0]))) == "8531"
