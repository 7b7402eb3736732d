"""Another user can read, lock and plant nothing; errors of the system have a code and a place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from finished_runs import finished_run
from small_disk import needs_small_disk, small_disk

from backpropagate.training.config.settings import load_settings
from backpropagate.training.config.specs import DataGroup, ModelGroup, TrainSpec
from backpropagate.training.errors import (
    DiskFullError,
    ForeignOwnerError,
    NotWritableError,
    OutputTakenError,
    TooManyFilesError,
)
from backpropagate.training.files.new_name import place_file, place_folder
from backpropagate.training.runs.store import RunStore
from backpropagate.training.service import TrainingService

SPEC = TrainSpec(model=ModelGroup(name="smollm2-135m"), data=DataGroup(source="/nowhere/a.jsonl"))
posix = pytest.mark.skipif(os.name == "nt", reason="rights are inherited there")
as_root = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="giving files away takes root")


@posix
@pytest.mark.parametrize("mode", [0o755, 0o777, 0o750])
def test_a_home_that_others_may_enter_is_closed(mode: int, home: Path) -> None:
    (home / "runs").mkdir(parents=True)
    for folder in (home, home / "runs"):
        folder.chmod(mode)
    finished_run(TrainingService(load_settings()).store, SPEC, {})
    assert {folder.stat().st_mode & 0o777 for folder in (home, home / "runs", home / "active")} == {0o700}


@as_root
@pytest.mark.parametrize("name", ["", "runs", ".env", "cache"])
def test_a_home_with_something_of_another_user_is_refused(name: str, home: Path) -> None:
    (home / "runs").mkdir(parents=True)
    (home / "cache").mkdir()
    (home / ".env").write_text("")
    os.chown(home / name, 65534, 65534)
    with pytest.raises(ForeignOwnerError, match="belongs to another user") as caught:
        load_settings()
    assert str(home) in caught.value.message and "BACKPROPAGATE_HOME" in str(caught.value.hint)


@posix
def test_a_home_for_all_users_is_refused(home: Path) -> None:
    home.mkdir()
    home.chmod(0o1777)
    with pytest.raises(ForeignOwnerError, match="for all users"):
        load_settings()


@as_root
def test_a_lock_of_another_user_is_refused(home: Path) -> None:
    run = finished_run(RunStore(home), SPEC, {})
    run.lock_path.touch()
    os.chown(run.lock_path, 65534, 65534)
    with pytest.raises(ForeignOwnerError, match=r"worker\.lock"):
        run.lock().try_acquire()


@needs_small_disk
def test_a_read_only_home_is_listed_and_says_that_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", "1m"):
        monkeypatch.setenv("BACKPROPAGATE_HOME", str(tmp_path / "disk" / "home"))
        run = finished_run(RunStore(tmp_path / "disk" / "home"), SPEC, {})
        left = RunStore(tmp_path / "disk" / "home").create(SPEC)
        left.write_state(left.state().model_copy(update={"pid": 1}))
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        service = TrainingService(load_settings())
        anyio.run(service.recover)
        views, unreadable = anyio.run(service.list)
        assert {view.run_id for view in views} == {run.run_id, left.run_id} and not unreadable
        for door, run_id in ((service.cancel, left.run_id), (service.delete, run.run_id)):
            with pytest.raises(NotWritableError) as caught:
                anyio.run(door, run_id)
            assert str(tmp_path / "disk") in caught.value.message


@needs_small_disk
def test_a_disk_without_inodes_is_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m"):
        subprocess.run(["mount", "-o", "remount,nr_inodes=8", str(tmp_path / "disk")], check=True)
        with pytest.raises(DiskFullError, match="disk"):
            for _ in range(8):
                RunStore(tmp_path / "disk" / "home").create(SPEC)
        assert not list((tmp_path / "disk" / "home" / "runs").glob(".new-*"))


FEW_FILES = """
import resource, sys, anyio
from backpropagate.training.config.settings import load_settings
from backpropagate.training.service import TrainingService
service = TrainingService(load_settings())
async def main():
    await service.list()
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    try:
        while True: held.append(open("/dev/null"))
    except OSError: pass
    try:
        await service.list()
    except Exception as error:
        print(type(error).__name__, error)
anyio.run(main)
"""


@posix
def test_too_few_file_descriptors_are_an_error_with_code_and_place(home: Path) -> None:
    finished_run(RunStore(home), SPEC, {})
    ran = subprocess.run([sys.executable, "-c", FEW_FILES], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(f"{TooManyFilesError.__name__} {home}"), ran.stdout + ran.stderr


def test_a_name_that_somebody_took_is_not_taken_from_them(tmp_path: Path) -> None:
    part, target = tmp_path / ".model.gguf.run.part", tmp_path / "model.gguf"
    for text in ("mine", "mine"):
        target.write_text(text)
        part.write_text("result")
        with pytest.raises(OutputTakenError, match=r"model-[23]\.gguf"):
            place_file(part, target)
    assert target.read_text() == "mine"
    assert [(tmp_path / f"model-{n}.gguf").read_text() for n in (2, 3)] == ["result", "result"]
    target.unlink()
    part.write_text("result")
    place_file(part, target)
    assert target.read_text() == "result" and not part.exists()


@pytest.mark.parametrize("taken", ["a folder", "a file", "a link"])
def test_a_folder_that_somebody_made_is_not_replaced(taken: str, tmp_path: Path) -> None:
    part, target = tmp_path / ".merged.run.part", tmp_path / "merged"
    part.mkdir()
    (part / "config.json").write_text("{}")
    if taken == "a folder":
        target.mkdir()
        (target / "thesis.txt").write_text("mine")
    elif taken == "a file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputTakenError, match="merged-2"):
        place_folder(part, target)
    assert os.path.lexists(target) and (tmp_path / "merged-2" / "config.json").is_file()


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    part, target = tmp_path / ".merged.run.part", tmp_path / "merged"
    part.mkdir()
    (part / "config.json").write_text("{}")
    target.mkdir()
    place_folder(part, target)
    assert (target / "config.json").is_file()
