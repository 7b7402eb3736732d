"""A user's regular expression on answers: in a process of its own, since a search may never end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..untrusted import quoted
from .text_scores import normalised

SECONDS = 20.0
"""Limit of one search through all answers of a model."""
SEARCH = Path(__file__).with_name("pattern_search.py")
SIMPLER = "Give a simpler pattern: without a repetition inside a repetition, e.g. (a+)+."


def require_pattern(pattern: str) -> None:
    """Raises InputError unless it is a regular expression."""
    _search(pattern, [])


def pattern_scores(pattern: str, answers: Sequence[str], right: Sequence[str]) -> list[float]:
    """1 for each answer in which the pattern is found, else 0.

    A pattern with a group has to capture the same, normalised, in the last match of answer and right answer;
    where the right answer has no match, all of it is compared.

    Raises:
        InputError: the search takes too long.
    """
    found = _search(pattern, answers)
    if not found["groups"]:
        return [float(one is not None) for one in found["found"]]
    wanted = _search(pattern, right)["found"]
    return [
        float(one is not None and normalised(one) == normalised(whole if captured is None else captured))
        for one, captured, whole in zip(found["found"], wanted, right, strict=True)
    ]


def _search(pattern: str, texts: Sequence[str]) -> dict[str, Any]:
    given = json.dumps([pattern, list(texts)]).encode()
    try:
        command = [sys.executable, "-I", str(SEARCH)]
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"pattern: {quoted(pattern)} takes more than {SECONDS:.0f} s for {len(texts)} answers.",
            hint=SIMPLER,
        ) from error
    if done.returncode:
        raise InputError(
            f"pattern: the search for {quoted(pattern)} failed (exit code {done.returncode}).", hint=SIMPLER
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise InputError(
            f"pattern: {quoted(pattern)} is no regular expression of Python.", untrusted=answer["error"]
        )
    return answer
