"""Each kind of run stands once: what a row of the table promises is there."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from backpropagate.training.config.results import AnyResult
from backpropagate.training.config.specs import AnySpec, InspectSpec, KindName, TrainSpec
from backpropagate.training.errors import RunFolderError, StateError
from backpropagate.training.runs.folder import Status
from backpropagate.training.runs.kinds import EXTRAS, KINDS, kind_of
from backpropagate.training.runs.store import RunStore


def test_the_table_holds_every_kind_with_its_spec_and_its_result() -> None:
    assert set(KINDS) == set(get_args(KindName))
    for union, field in ((AnySpec, "spec"), (AnyResult, "result")):
        kinds = {model.model_fields["kind"].default: model for model in get_args(union)}
        assert kinds == {name: getattr(kind, field) for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_a_worker_module_carries_each_kind_out_and_every_library_has_an_extra(name: str) -> None:
    assert callable(import_module(f"backpropagate.training.worker.{name}").run)
    assert set(KINDS[name].libraries) <= EXTRAS.keys()


def test_an_unknown_kind_is_an_error_and_is_never_trained() -> None:
    with pytest.raises(StateError, match="'dream' is not a kind of run"):
        kind_of("dream")


def test_a_folder_of_an_unknown_kind_is_listed_as_unreadable(home: Path) -> None:
    store = RunStore(home)
    run = store.create(TrainSpec())
    state = run.path / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"kind": "dream"}))
    (found,) = [state for _, state in store.newest()]
    assert isinstance(found, RunFolderError) and "kind" in found.message


def test_old_runs_of_a_lasting_kind_are_removed_and_others_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(home)
    kept, removed = store.create(TrainSpec()), store.create(InspectSpec())
    for run in (kept, removed):
        store.finish(run, run.state().model_copy(update={"status": Status.COMPLETED}))
    monkeypatch.setattr("backpropagate.training.runs.store.OLD_S", -1.0)
    store.sweep()
    assert kept.path.is_dir() and not removed.path.is_dir()
