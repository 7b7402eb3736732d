"""A home with a cluster, and a Slurm that is nothing but programs on the path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from backpropagate.training.clusters import job_table
from backpropagate.training.clusters.slurm import cluster_name


@pytest.fixture
def lab(home: Path) -> Path:
    """clusters.toml with a cluster `lab`."""
    home.mkdir(parents=True, exist_ok=True)
    file = home / "clusters.toml"
    file.write_text('[lab]\npartition = "gpu"\ntime = "08:00:00"\n', encoding="utf-8")
    return file


@pytest.fixture
def slurm(tmp_path: Path, lab: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(job_table, "FRESH_S", 0.0)
    cluster_name.cache_clear()
    yield fake
    cluster_name.cache_clear()
    for job in fake.jobs():
        if job["state"] == "RUNNING":
            fake.end("CANCELLED")
