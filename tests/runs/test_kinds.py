"""Each kind of run stands once: what a row of the table promises is there."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from backpropagate.cli.wording import words as command_words
from backpropagate.tools import TOOLS
from backpropagate.tools.wording import TOOLS_OF_ACTIONS
from backpropagate.tools.wording import words as tool_words
from backpropagate.training.config.results import AnyResult
from backpropagate.training.config.specs import AnySpec, InspectSpec, KindName, TrainSpec
from backpropagate.training.errors import InputError, RunFolderError, RuntimeFailure, StateError
from backpropagate.training.next_step import Action, then
from backpropagate.training.runs.folder import Status
from backpropagate.training.runs.kinds import EXTRAS, KINDS, kind_of
from backpropagate.training.runs.store import RunStore
from backpropagate.training.worker.in_process import run_in_process


def test_the_table_holds_every_kind_with_its_spec_and_its_result() -> None:
    assert set(KINDS) == set(get_args(KindName))
    for union, field in ((AnySpec, "spec"), (AnyResult, "result")):
        kinds = {model.model_fields["kind"].default: model for model in get_args(union)}
        assert kinds == {name: getattr(kind, field) for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_a_worker_module_carries_each_kind_out_and_every_library_has_an_extra(name: str) -> None:
    assert callable(import_module(f"backpropagate.training.worker.{name}").run)
    assert set(KINDS[name].libraries) <= EXTRAS.keys()


def test_each_kind_can_be_started_by_a_next_step_of_every_surface() -> None:
    assert set(KINDS) <= set(get_args(Action)) and set(KINDS) <= TOOLS_OF_ACTIONS.keys()
    for kind in KINDS:
        assert tool_words(then(kind)).startswith(f"{TOOLS_OF_ACTIONS[kind]}(")  # type: ignore[arg-type]
        assert command_words(then(kind)).startswith("backprop ")  # type: ignore[arg-type]
    assert set(TOOLS_OF_ACTIONS.values()) <= {tool.name for tool in TOOLS}


def test_work_that_records_no_end_is_a_failed_run(home: Path, tmp_path: Path) -> None:
    store = RunStore(home)
    run = store.create(TrainSpec())
    with pytest.raises(RuntimeFailure, match="returned without a result"):
        run_in_process(lambda context, wait: None, run, store, tmp_path / "slots")
    assert run.state().status is Status.FAILED


@pytest.mark.slow
def test_a_run_that_another_process_executes_is_refused(home: Path, tmp_path: Path) -> None:
    store = RunStore(home)
    run = store.create(TrainSpec())
    with run.lock(), pytest.raises(InputError, match="another process"):
        run_in_process(lambda context, wait: None, run, store, tmp_path / "slots")
    assert run.state().status is Status.QUEUED


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
