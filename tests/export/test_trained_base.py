"""An adapter is exported with the base that it was trained on, or not without saying so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import write_dataset
from rarer import with_rarer
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_lora import build_adapter, build_base, change_json, merged_by_peft
from waiting import small_spec, wait_for_step

from backpropagate import Trainer
from backpropagate.cli.wording import words as command_words
from backpropagate.tools.wording import words as tool_words
from backpropagate.training.errors import InputError
from backpropagate.training.events import Warned
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.next_step import then
from backpropagate.training.requests.sources import export_source
from backpropagate.training.runs.store import RunStore
from backpropagate.training.runs.view import RunView
from backpropagate.training.service import TrainingService

MAIN, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def hub_cache(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache with me/tiny at two commits, main and v2."""
    repository = tmp_path / "hub" / "models--me--tiny"
    (repository / "refs").mkdir(parents=True)
    for commit, branch in ((MAIN, "main"), (OTHER, "v2")):
        write_base(repository / "snapshots" / commit, tiny_model, seed=ord(commit[0]))
        (repository / "refs" / branch).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository


def write_base(folder: Path, tiny_model: Path, seed: int) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    build_base(folder, tiny_model)
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(seed)
    for values in model.parameters():
        values.data = torch.randn(values.shape) * 0.1
    model.save_pretrained(folder)
    return folder


def train(model: str, folder: Path, **settings: Any) -> tuple[Trainer, Any]:
    trainer = Trainer(model, lora_r=2, learning_rate=0.01, batch_size=4, threads=1, **settings)
    return trainer, trainer.train(write_dataset(folder / "facts.jsonl"), steps=2)


def assert_merged(folder: Path, base: Path, adapter: Path) -> None:
    expected = merged_by_peft(base, adapter)
    for name, values in load_file(folder / "model.safetensors").items():
        assert torch.allclose(values, expected[name], atol=1e-6), name


def test_the_commit_travels_and_a_branch_that_moved_changes_nothing(hub_cache: Path, tmp_path: Path) -> None:
    trainer, run = train("me/tiny", tmp_path)
    config = json.loads((run.adapter_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("me/tiny", MAIN)
    (hub_cache / "refs" / "main").write_text(OTHER)
    merged = trainer.export("merged", output=tmp_path / "by-run").path
    assert_merged(merged, hub_cache / "snapshots" / MAIN, run.adapter_path)


def test_a_branch_that_was_asked_for_is_recorded_as_its_commit(hub_cache: Path, tmp_path: Path) -> None:
    _, run = train("me/tiny", tmp_path, revision="v2")
    assert json.loads((run.adapter_path / "adapter_config.json").read_text())["revision"] == OTHER
    provenance = json.loads((run.run_folder / "provenance.json").read_text())["model"]
    assert provenance["revision"] == OTHER
    with safe_open(run.adapter_path / "adapter_model.safetensors", "pt") as file:
        assert file.metadata()["base_weights_sha256"] == provenance["base_weights_sha256"]


def test_an_adapter_of_plain_peft_is_exported_with_the_revision_that_it_names(
    hub_cache: Path, tmp_path: Path, home: Path
) -> None:
    adapter = build_adapter(tmp_path / "adapter", hub_cache / "snapshots" / OTHER)
    change_json(adapter / "adapter_config.json", base_model_name_or_path="me/tiny", revision="v2")
    found = export_source(str(adapter), RunStore(home), PathPolicy.for_person(home))
    assert (found.model.name, found.model.revision) == ("me/tiny", "v2")


@pytest.mark.parametrize("format", with_rarer(["gguf"], ["merged", "lora"]))
def test_a_folder_that_was_written_anew_is_refused_unless_it_is_allowed(
    format: Any, tiny_model: Path, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", tiny_model, seed=1)
    trainer, _ = train(str(base), tmp_path)
    options: dict[str, Any] = {"quantization": "f16"} if format == "gguf" else {}
    assert trainer.export(format, **options).path.exists()
    write_base(base, tiny_model, seed=2)
    with pytest.raises(InputError, match="not the one that was trained on: its weights changed") as caught:
        trainer.export(format, **options, output=tmp_path / "refused")
    assert caught.value.next and caught.value.next.arguments == {"allow_other_base": True}
    assert not (tmp_path / "refused").exists()
    assert trainer.export(format, **options, output=tmp_path / "allowed", allow_other_base=True).path.exists()


def test_a_copy_of_the_adapter_knows_its_base_too(
    tiny_model: Path, tmp_path: Path, export: Callable[..., dict[str, Any]]
) -> None:
    base = write_base(tmp_path / "base", tiny_model, seed=1)
    _, run = train(str(base), tmp_path)
    copy = Path(shutil.copytree(run.adapter_path, tmp_path / "copy"))
    change_json(base / "config.json", rms_norm_eps=0.5)
    with pytest.raises(InputError, match=r"its config\.json changed"):
        export(base, copy, "f16")


def test_a_run_is_not_resumed_on_another_base(tiny_model: Path, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", tiny_model, seed=1)
    trainer, run = train(str(base), tmp_path)
    state = json.loads((run.run_folder / "state.json").read_text())
    (run.run_folder / "state.json").write_text(json.dumps(state | {"status": "interrupted", "result": None}))
    write_base(base, tiny_model, seed=2)
    with pytest.raises(InputError, match="not the one that was trained on") as caught:
        trainer.train(resume_from=run.run_id)
    assert caught.value.next == then("resume", run_id=run.run_id, allow_other_base=True)
    resumed = Trainer(str(base), allow_other_base=True).train(resume_from=run.run_id)
    assert resumed.run_id == run.run_id and "its weights changed" in " ".join(resumed.warnings)
    assert not json.loads((run.run_folder / "spec.json").read_text())["model"]["allow_other_base"]


def test_a_run_that_died_while_its_base_was_loaded_knows_it_when_it_is_resumed(
    tiny_model: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*arguments: object) -> None:
        raise OSError("killed")

    base = write_base(tmp_path / "base", tiny_model, seed=1)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="killed"):
        patched.setattr("backpropagate.training.engine.open_model.open_model", dies)
        train(str(base), tmp_path)
    (folder,) = (home / "runs").iterdir()
    assert (folder / "plan.json").exists() and not (folder / "provenance.json").exists()
    run = Trainer(str(base)).train(resume_from=folder.name)
    model = json.loads((folder / "provenance.json").read_text())["model"]
    with safe_open(run.adapter_path / "adapter_model.safetensors", "pt") as file:
        assert file.metadata()["base_weights_sha256"] == model["base_weights_sha256"]


@pytest.mark.nightly
@pytest.mark.anyio
@pytest.mark.slow
async def test_a_refused_resume_names_the_call_that_works(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", tiny_model, seed=1)
    submitted = await service.submit(small_spec(dataset, base, steps=100_000))
    wait_for_step(service.store.find(submitted.run_id), 2)
    await service.cancel(submitted.run_id)
    assert (await ended(service, submitted.run_id)).status == "cancelled"
    write_base(base, tiny_model, seed=2)
    await service.resume(submitted.run_id)
    failed = await ended(service, submitted.run_id)
    assert failed.error and failed.error.next, failed
    assert tool_words(failed.error.next) == f'resume_run(run_id="{submitted.run_id}", allow_other_base=true).'
    command = command_words(failed.error.next)
    assert command == f"backprop resume {submitted.run_id} --allow-other-base"
    await service.resume(submitted.run_id, allow_other_base=True)
    async for events in service.watch(submitted.run_id):
        if any(isinstance(event, Warned) and "its weights changed" in event.message for event in events):
            await service.cancel(submitted.run_id)
    again = await service.get(submitted.run_id)
    assert (again.status, again.error) == ("cancelled", None)


async def ended(service: TrainingService, run_id: str) -> RunView:
    async for _ in service.watch(run_id):
        pass
    return await service.get(run_id)
