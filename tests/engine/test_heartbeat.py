"""Processes that train together notice who is silent."""

from __future__ import annotations

from queue import Queue

import pytest
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from backpropagate.training.engine.parallel import heartbeat
from backpropagate.training.engine.parallel.heartbeat import LOADING, STEPPING, Heartbeat, beat_of

LOOPBACK = "127.0.0.1"


@pytest.mark.parametrize("patience", [STEPPING, LOADING])
def test_a_process_without_a_beat_is_noticed_after_so_many_looks_also_while_it_loads(
    patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.001)
    store = TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)
    store.set(beat_of(2), "1")  # rank 1 has not begun, so nobody expects it
    silent: Queue[int] = Queue()
    own = Heartbeat(LOOPBACK, store.port, 0, [1, 2], silent.put)
    own.patience = patience
    assert silent.get(timeout=60) == 2
    own.end()
    assert patience < int(store.get(beat_of(0))) <= LOADING + 1 <= 121 and silent.empty()
