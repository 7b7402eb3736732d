"""Renames on Windows, which fail while a scanner or a reader has the file open."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from backpropagate.training.files import atomic_json
from backpropagate.training.files.atomic_json import patiently


class Busy:
    """A rename that another process prevents some times."""

    def __init__(self, part: Path, times: int) -> None:
        self.part, self.times = part, times

    def __call__(self) -> Path:
        self.times -= 1
        if self.times >= 0:
            raise PermissionError(13, "it is being used by another process")
        return self.part.rename(self.part.with_suffix(".json"))


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each wait, with the rules of Windows."""
    seconds: list[float] = []
    monkeypatch.setattr(atomic_json, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(atomic_json, "time", SimpleNamespace(sleep=seconds.append))
    return seconds


def test_a_rename_is_tried_again_until_the_other_process_has_gone(
    tmp_path: Path, waited: list[float]
) -> None:
    part = tmp_path / "state.part"
    part.write_text("{}")
    assert patiently(Busy(part, 3)).read_text() == "{}" and len(waited) == 3


def test_after_a_second_it_fails_and_nothing_is_lost(tmp_path: Path, waited: list[float]) -> None:
    part = tmp_path / "state.part"
    part.write_text("{}")
    with pytest.raises(PermissionError):
        patiently(Busy(part, 1000))
    assert part.read_text() == "{}" and sum(waited) == pytest.approx(1.0)
