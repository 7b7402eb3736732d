"""Processes of several hosts: each host's ranks gather from each other, all of them sum."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RANK = """
import sys
import torch
from torch.distributed import FileStore
from backpropagate.training.engine.parallel.group import Group
from types import SimpleNamespace

rank, file = int(sys.argv[1]), sys.argv[2]
none = SimpleNamespace()
group = Group(FileStore(file, 4), rank, 4, here=2, on_gpu=False, heartbeat=none, lost=lambda: None)
whole = torch.zeros(6, dtype=torch.uint8)
for _ in range(3):
    total = torch.ones(1)
    shard = whole[rank % 2 * 3 :][:3]  # its place: nothing is copied
    shard.fill_(10 + rank)
    group.gather(whole, shard)
    group.reduce(total)
print(whole.tolist(), total.item() if rank == 0 else "")
group.leave()
"""


@pytest.mark.slow
def test_shards_are_gathered_from_the_ranks_of_the_same_host(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(4)
    ]
    said = [rank.communicate(timeout=120)[0].strip() for rank in ranks]
    first, second = "[10, 10, 10, 11, 11, 11]", "[12, 12, 12, 13, 13, 13]"
    assert said == [f"{first} 4.0", first, second, second]
