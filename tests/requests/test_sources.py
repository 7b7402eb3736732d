"""A name means the same to every request: preset, path, Hub id, run."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.errors import InputError, PathForbiddenError, RunNotFoundError
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.models.presets import classify_model
from backpropagate.training.requests.dataset_source import named_source, resolved_source
from backpropagate.training.requests.sources import Model, export_source, gguf_source, meaning_of, push_source
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.store import RunStore


def meant(name: str, store: RunStore, paths: PathPolicy | None = None) -> object:
    return meaning_of(name, store, paths or PathPolicy.for_person(store.home), "source")


def test_each_form_of_name_means_one_thing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore(home)
    run = store.create(TrainSpec())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "there").mkdir(parents=True)
    (tmp_path / "qwen2.5-3b").mkdir()
    assert meant("qwen2.5-3b", store) == Model("qwen2.5-3b")  # although a folder has this name
    assert meant("Qwen/Qwen2.5-7B", store) == Model("Qwen/Qwen2.5-7B")
    assert meant("owner/there", store) == tmp_path / "owner" / "there"
    assert meant(str(tmp_path / "missing"), store) == tmp_path / "missing"
    assert meant("./missing", store) == tmp_path / "missing"
    assert meant("model.gguf", store) == tmp_path / "model.gguf"
    found = meant(run.run_id[-4:], store)
    assert isinstance(found, RunFolder) and found.run_id == run.run_id
    with pytest.raises(RunNotFoundError):
        meant("nonsense", store)


def test_a_path_is_permitted_before_anything_is_read(home: Path, tmp_path: Path) -> None:
    paths = PathPolicy.for_assistant([], home)
    for name in ("/etc", "/etc/model.gguf", "../up", str(tmp_path)):
        for request in (export_source, gguf_source, push_source):
            with pytest.raises(PathForbiddenError):
                request(name, RunStore(home), paths)


def test_a_hub_id_is_no_file_and_nothing_to_push(home: Path) -> None:
    store, paths = RunStore(home), PathPolicy.for_person(home)
    assert export_source("Qwen/Qwen2.5-7B", store, paths).model.name == "Qwen/Qwen2.5-7B"
    with pytest.raises(InputError, match="does not exist"):
        gguf_source("Qwen/Qwen2.5-7B", store, paths)
    with pytest.raises(InputError, match="no folder of that name exists"):
        push_source("Qwen/Qwen2.5-7B", store, paths)


def test_a_file_uri_means_the_same_in_every_request(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    store, paths = RunStore(home), PathPolicy.for_person(home)
    uri = tiny_model.as_uri()
    assert classify_model(uri) == classify_model(str(tiny_model))
    assert meant(uri, store) == tiny_model
    data = tmp_path / "some data"
    data.mkdir()
    assert resolved_source(f"{data.as_uri()}/*.jsonl", paths) == str(data / "*.jsonl")
    assert resolved_source([(data / "a.jsonl").as_uri()], paths) == [str(data / "a.jsonl")]
    assert named_source(data.as_uri()) == str(data)
