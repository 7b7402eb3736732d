"""The records by which equal requests find their runs."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from backpropagate.training.config.specs import InspectSpec
from backpropagate.training.runs.folder import Status
from backpropagate.training.runs.request_index import RequestIndex
from backpropagate.training.runs.store import RunStore
from backpropagate.training.service import TrainingService


def test_the_records_of_requests_are_removed_after_their_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(home)
    index = RequestIndex(store)
    for key in ("kept", "removed"):
        asked = index.run_for(InspectSpec(), key, fingerprint=key, find_equal=False)
        store.finish(asked.run, asked.run.state().model_copy(update={"status": Status.COMPLETED}))
    store.delete(asked.run)
    damaged = home / "requests" / "key-damaged.json"
    damaged.write_text("{ torn")
    names = {path.name for path in (home / "requests").glob("*.json")}
    index.sweep()
    assert {path.name for path in (home / "requests").glob("*.json")} == names, "they are new"
    monkeypatch.setattr("backpropagate.training.runs.request_index.ABANDONED_S", -1.0)
    anyio.run(TrainingService().recover)  # as a server does when it starts
    left = {path.name for path in (home / "requests").glob("*.json")}
    assert len(names) == 5 and len(left) == 3 and damaged.name in left
    assert index.run_for(InspectSpec(), "kept", fingerprint="kept", find_equal=False).by_key
