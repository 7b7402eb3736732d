"""Exports to a folder as runs: merged and adapter alone, from a run, and on to the Hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_stand_in import HubStandIn

from backpropagate.training.config.fields import ExportFormat
from backpropagate.training.config.results import ExportResult
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.requests.export import export_spec
from backpropagate.training.requests.push import push_spec
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.view import RunView
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio

CopiedRun = Callable[[], RunFolder]


async def exported(service: TrainingService, source: str, format: ExportFormat) -> RunView:
    paths = PathPolicy.for_person(service.settings.home)
    submission = await service.submit(export_spec(source, service.store, paths, format=format))
    async for _ in service.watch(submission.run_id):
        pass
    return await service.get(submission.run_id)


async def test_a_run_is_exported_merged_and_that_is_pushed(
    hub: HubStandIn, service: TrainingService, copied_run: CopiedRun
) -> None:
    view = await exported(service, copied_run().run_id, "merged")
    assert isinstance(view.result, ExportResult) and "Merged model of" in view.result.summary, view.error
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(view.result.path, local_files_only=True)
    assert AutoTokenizer.from_pretrained(view.result.path, local_files_only=True).chat_template
    card = (Path(view.result.path) / "README.md").read_text("utf-8")
    assert "merged into its weights" in card and "| seed | 42 |" in card
    paths = PathPolicy.for_person(service.settings.home)
    submission = await service.submit(push_spec(view.run_id, "me/merged", service.store, paths))
    async for _ in service.watch(submission.run_id):
        pass
    assert (await service.get(submission.run_id)).status is Status.COMPLETED
    assert {"model.safetensors", "config.json", "README.md"} <= hub.repositories["me/merged"].files.keys()


def test_the_command_exports_the_adapter_alone(trained: RunFolder, tmp_path: Path) -> None:
    output = tmp_path / "adapter-alone"
    command = [sys.executable, "-m", "backpropagate", "export", str(trained.adapter_path), "--format", "lora"]
    done = subprocess.run(
        [*command, "--output", str(output), "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == str(output)
    ours = (output / "adapter_model.safetensors").read_bytes()
    assert ours == (trained.adapter_path / "adapter_model.safetensors").read_bytes()
    assert (output / "chat_template.jinja").is_file() and (output / "README.md").is_file()


async def test_an_adapter_of_no_known_run_gets_a_card_that_claims_nothing(
    service: TrainingService, trained: RunFolder, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained.adapter_path, tmp_path / "elsewhere")
    view = await exported(service, str(folder), "merged")
    assert isinstance(view.result, ExportResult), view.error
    assert "are not recorded" in (Path(view.result.path) / "README.md").read_text("utf-8")
