"""Compiled kernels stay in the home from run to run, and go when they are not used."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import pytest

from backpropagate.training.worker import kernel_cache
from backpropagate.training.worker.kernel_cache import DAY_S, UNUSED_S, remove_unneeded, use_kernel_cache


@pytest.fixture(autouse=True)
def no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in kernel_cache.PLACES:
        monkeypatch.setenv(name, "")  # so that it is taken back afterwards
        monkeypatch.delenv(name)


def of_age(folder: Path, days: float, size: int = 1) -> Path:
    (folder / "inductor").mkdir(parents=True)
    (folder / "inductor" / "kernel.py").write_bytes(b"#" * size)
    then = time.time() - days * DAY_S
    os.utime(folder, (then, then))
    return folder


def test_torch_keeps_its_kernels_in_a_private_folder_of_the_home(tmp_path: Path) -> None:
    use_kernel_cache(tmp_path)
    (folder,) = (tmp_path / "kernels").iterdir()
    from torch._inductor.runtime.cache_dir_utils import cache_dir, triton_cache_dir

    assert Path(cache_dir()) == folder / "inductor"
    assert Path(triton_cache_dir(0)) == folder / "triton"
    assert folder.name.startswith("torch-")
    if sys.platform != "win32":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", kernel_cache.PLACES)
def test_the_place_that_the_user_has_chosen_stays(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "/elsewhere")
    use_kernel_cache(tmp_path)
    assert {key for key in kernel_cache.PLACES if key in os.environ} == {name}
    assert not (tmp_path / "kernels").exists()


def test_a_run_keeps_the_folder_of_its_versions_and_removes_those_of_old_ones(tmp_path: Path) -> None:
    use_kernel_cache(tmp_path)
    (folder,) = (tmp_path / "kernels").iterdir()
    (folder / "kernel").write_bytes(b"#")
    of_age(tmp_path / "kernels" / "torch-1.0", 31)
    old = time.time() - 2 * DAY_S
    os.utime(folder, (old, old))
    for name in kernel_cache.PLACES:
        del os.environ[name]
    use_kernel_cache(tmp_path)
    assert (folder / "kernel").exists()
    assert list((tmp_path / "kernels").iterdir()) == [folder]
    assert time.time() - folder.stat().st_mtime < DAY_S


def test_too_many_kernels_go_by_the_time_of_their_last_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_cache, "MOST_BYTES", 250)
    today, two_days, ten_days, a_month = (
        of_age(tmp_path / f"torch-{days}", days, size=100) for days in (0, 2, 10, UNUSED_S / DAY_S + 1)
    )
    remove_unneeded(tmp_path)
    assert not a_month.exists()
    assert not ten_days.exists()
    assert two_days.exists()
    monkeypatch.setattr(kernel_cache, "MOST_BYTES", 50)
    remove_unneeded(tmp_path)
    assert list(tmp_path.iterdir()) == [today]  # a run may be using it


def test_a_cache_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    use_kernel_cache(tmp_path / "cache")
    assert not any(name in os.environ for name in kernel_cache.PLACES)
