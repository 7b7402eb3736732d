"""Checkpoints are whole, checked, and never all gone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from backpropagate.training.engine.loop.checkpoints import Checkpoints, damage
from backpropagate.training.errors import DiskFullError
from backpropagate.training.files.atomic_folder import part_of

FILES = {"a.safetensors": b"weights" * 100, "progress.json": b"{}"}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[50] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: truncate(folder / "a.safetensors"), "has 699 bytes, not 700"),
        (lambda folder: flip_a_bit(folder / "a.safetensors"), "content of 'a.safetensors' has changed"),
        (lambda folder: (folder / "progress.json").unlink(), "'progress.json' is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "'manifest.json' is missing"),
        (lambda folder: truncate(folder / "manifest.json"), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_used(
    harm: object, reason: str, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(20, FILES)
    checkpoints.save(40, FILES)
    assert checkpoints.newest_good() == (40, [])
    assert callable(harm)
    harm(checkpoints.path(40))
    step, damaged = checkpoints.newest_good()
    assert step == 20
    assert len(damaged) == 1 and "step 40" in damaged[0] and reason in damaged[0]


def test_the_newest_two_and_the_best_one_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20, 30, 40, 50):
        checkpoints.save(step, FILES, best_step=20)
    assert checkpoints.steps() == [20, 40, 50]


def test_the_only_good_one_stays_however_many_newer_ones_are_damaged(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.keep = 10
    for step in (10, 20, 30):
        checkpoints.save(step, FILES)
    checkpoints.keep = 2
    truncate(checkpoints.path(20) / "a.safetensors")
    truncate(checkpoints.path(30) / "a.safetensors")
    checkpoints.save(40, FILES)
    assert 10 in checkpoints.steps() and 40 in checkpoints.steps()


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, FILES)
    checkpoints.save(10, {**FILES, "progress.json": b"[1]"})
    assert checkpoints.read(10, "progress.json") == b"[1]"
    assert damage(checkpoints.path(10)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]


def test_what_was_being_written_when_the_power_went_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, FILES)
    aside = part_of(checkpoints.path(20))
    aside.mkdir()
    (aside / "a.safetensors").write_bytes(b"half")
    assert checkpoints.newest_good() == (10, [])
    checkpoints.save(20, FILES)
    assert checkpoints.newest_good() == (20, [])
    assert not aside.exists()


def test_a_full_disk_leaves_the_earlier_checkpoints_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, FILES)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="step-000020"):
        checkpoints.save(20, FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]
    assert checkpoints.newest_good() == (10, [])
