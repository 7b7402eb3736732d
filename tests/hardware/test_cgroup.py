"""A container's limits, read from files as the kernel lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpropagate.training.hardware.cgroup import cpu_quota, memory_limit


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path, own: Path) -> None:
    own.write_text("0::/box/inner\n")
    _write(tmp_path / "box", cpu__max="150000 100000", memory__max="1000", memory__current="900")
    _write(tmp_path / "box" / "inner", cpu__max="max 100000", memory__max="5000", memory__current="700")
    (tmp_path / "box" / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    assert cpu_quota(tmp_path, own) == 1.5
    assert memory_limit(tmp_path, own) == (1000, 600)


def test_version_1_has_a_folder_for_each_controller(tmp_path: Path, own: Path) -> None:
    own.write_text("4:memory:/box\n1:cpu,cpuacct:/box\n0::/\n")
    _write(tmp_path / "cpu" / "box", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    _write(tmp_path / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    _write(tmp_path / "memory" / "box", memory__limit_in_bytes="4096", memory__usage_in_bytes="1024")
    assert cpu_quota(tmp_path, own) == 2.0
    assert memory_limit(tmp_path, own) == (4096, 1024)


def test_no_groups_are_no_limits(tmp_path: Path, own: Path) -> None:
    assert cpu_quota(tmp_path, own) is None
    own.write_text("0::/\n")
    _write(tmp_path, cpu__max="max 100000", memory__max="max", memory__current="1")
    assert cpu_quota(tmp_path, own) is None
    assert memory_limit(tmp_path, own) is None
