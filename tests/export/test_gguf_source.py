"""Which GGUF is meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_runs import finished_run
from tiny_gguf import write_gguf

from backpropagate.training.config.specs import ExportSpec, InspectSpec
from backpropagate.training.errors import InputError, PathForbiddenError, RunNotFoundError
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.next_step import then
from backpropagate.training.requests.sources import GgufSource, gguf_source
from backpropagate.training.requests.train import train_spec
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.store import RunStore


@pytest.fixture
def store(home: Path) -> RunStore:
    return RunStore(home)


@pytest.fixture
def training(store: RunStore, dataset: Path) -> RunFolder:
    spec = train_spec(arguments={"dataset": str(dataset), "model": "smollm2-135m"})
    return finished_run(store, spec, {"answers": []})


def an_export(store: RunStore, path: Path, run: str | None, status: Status = Status.COMPLETED) -> RunFolder:
    return finished_run(store, ExportSpec(run=run), {"path": str(path)}, status)


def found(source: str, store: RunStore) -> GgufSource:
    return gguf_source(source, store, PathPolicy.for_person(store.home))


def test_a_path_is_itself_and_remembers_the_training_that_it_was_exported_from(
    store: RunStore, training: RunFolder, gguf: Path, tmp_path: Path
) -> None:
    assert found(str(gguf), store) == GgufSource(gguf, None)
    an_export(store, gguf, training.run_id)
    assert found(str(gguf), store) == GgufSource(gguf, training.run_id)
    with pytest.raises(InputError, match="does not exist"):
        found(str(tmp_path / "none.gguf"), store)


def test_an_export_stands_for_the_file_that_it_wrote(
    store: RunStore, training: RunFolder, gguf: Path
) -> None:
    export = an_export(store, gguf, training.run_id)
    assert found(export.run_id[-4:], store) == GgufSource(gguf, training.run_id)
    failed = an_export(store, gguf, training.run_id, Status.FAILED)
    with pytest.raises(InputError, match="no GGUF file") as refused:
        found(failed.run_id, store)
    assert refused.value.next == then("export", source=...)


def test_a_training_stands_for_its_newest_export_that_is_still_there(
    store: RunStore, training: RunFolder, gguf: Path, tmp_path: Path
) -> None:
    an_export(store, gguf, training.run_id)
    newer = write_gguf(tmp_path / "newer.gguf")
    an_export(store, newer, training.run_id)
    an_export(store, tmp_path / "merged", training.run_id)
    an_export(store, write_gguf(tmp_path / "others.gguf"), None)
    an_export(store, write_gguf(tmp_path / "failed.gguf"), training.run_id, Status.FAILED)
    assert found(training.run_id, store) == GgufSource(newer, training.run_id)
    newer.unlink()
    assert found(training.run_id, store) == GgufSource(gguf, training.run_id)


def test_a_training_without_an_export_says_to_export_first(store: RunStore, training: RunFolder) -> None:
    with pytest.raises(InputError, match="not been exported") as refused:
        found(training.run_id, store)
    assert refused.value.next == then("export", source=training.run_id)


def test_other_runs_and_no_runs_are_refused(store: RunStore) -> None:
    inspection = finished_run(store, InspectSpec(), {})
    with pytest.raises(InputError, match="neither a training nor an export"):
        found(inspection.run_id, store)
    with pytest.raises(RunNotFoundError):
        found("nonsense", store)


def test_a_path_outside_of_the_roots_is_refused(store: RunStore) -> None:
    paths = PathPolicy.for_assistant([], store.home)
    with pytest.raises(PathForbiddenError):
        gguf_source("/etc/model.gguf", store, paths)
