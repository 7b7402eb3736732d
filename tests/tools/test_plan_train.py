"""plan_train through a real client: what fits, at which settings, how sure it is, and what a probe shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent
from measured_gpus import with_gpus
from model_configs import config_folder, config_of

from backpropagate.server.app import build_server
from backpropagate.training.models import hub
from backpropagate.training.planning import model_facts
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio

H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Folders of a 7B, 14B, 32B and 70B, whose weights are not there."""
    folder = tmp_path / "models"
    folder.mkdir()
    for size in ("7b", "14b", "32b", "70b"):
        config_folder(folder / size, size)
    return folder


async def called(
    service: TrainingService, root: Path, tool: str, **arguments: Any
) -> tuple[dict[str, Any], str]:
    """The structured answer and its text; of an error, the text only."""
    async with Client(build_server(service, [root])) as client:
        answer = await client.call_tool(tool, arguments)
    assert isinstance(answer.content[0], TextContent)
    return (answer.structured_content or {}), answer.content[0].text


async def planned(service: TrainingService, root: Path, **arguments: Any) -> dict[str, Any]:
    answer, text = await called(service, root, "plan_train", **arguments)
    assert answer, text
    return answer["plan"]


@pytest.mark.parametrize(
    ("size", "gib", "in_4bit", "streams"),
    [
        ("7b", 80, False, False),
        ("7b", 12, True, True),  # so that less is computed again
        ("7b", 6, True, True),
        ("14b", 8, True, True),
        ("32b", 12, True, True),
        ("70b", 24, True, True),
    ],
)
async def test_a_real_shape_fits_a_card_with_the_settings_that_it_needs(
    service: TrainingService, models: Path, monkeypatch: pytest.MonkeyPatch,
    size: str, gib: int, in_4bit: bool, streams: bool,
) -> None:  # fmt: skip
    with_gpus(monkeypatch, 80, free=gib, name=H100)
    plan = await planned(service, models, model=str(models / size))
    assert plan["fits"] and plan["settings"]["load_in_4bit"] is in_4bit
    layers = plan["settings"]["weights"].split()
    assert (layers[0] != layers[2]) is streams
    parts = plan["memory_gib"]
    assert plan["peak_gib"] == pytest.approx(sum(parts.values()), abs=0.1) and plan["peak_gib"] <= gib
    assert {"weights", "optimizer", "gradients", "activations", "cuda_and_kernels"} <= parts.keys()
    assert ("load_in_4bit" in plan["reasons"]) is in_4bit
    assert plan["next"]["action"] == "train"
    assert plan["next"]["arguments"].get("load_in_4bit", False) is in_4bit


async def test_whole_weights_that_are_asked_for_stay_whole(
    service: TrainingService, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 80, free=12, name=H100)
    plan = await planned(service, models, model=str(models / "7b"), load_in_4bit=False)
    assert plan["fits"] and plan["settings"]["load_in_4bit"] is False
    assert plan["settings"]["weights"].startswith("8 of 28 layers")


async def test_what_cannot_fit_is_said_with_what_would_and_is_not_started(
    service: TrainingService, models: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 10, name="NVIDIA GeForce RTX 3080")
    large = {"model": str(models / "70b"), "load_in_4bit": True}
    plan = await planned(service, models, **large)
    assert not plan["fits"] and not plan["possible"]
    assert "at least 14" in plan["why_not"] and "has 10.0" in plan["why_not"]
    assert plan["would_fit"][0] == "model=mistral-small-24b, load_in_4bit=true"
    assert plan["would_fit"][-1] == "in 4 bits up to 32B"
    assert plan["next"] == {
        "action": "plan",
        "arguments": {"dataset": "…", "model": "mistral-small-24b", "load_in_4bit": True},
    }
    before = service.store.ids()
    answer, text = await called(service, dataset.parent, "train", dataset=str(dataset), **large)
    assert not answer and "[RUNTIME_GPU_OOM]" in text and "call again with model" in text
    assert "with 64 tokens at a time (however short the rows are)" in text
    assert service.store.ids() == before


async def test_a_base_in_fp8_is_trained_only_where_the_card_has_fp8_and_is_refused_before_it_starts(
    service: TrainingService, models: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"model": str(models / "7b"), "settings": {"base_precision": "fp8"}}
    with_gpus(monkeypatch, 80, name=H100, capability="9.0")
    plan = await planned(service, models, **asked)
    assert plan["settings"]["base_precision"] == "fp8" and plan["next"]["action"] == "train"
    with_gpus(monkeypatch, 80, name="NVIDIA A100-SXM4-80GB", capability="8.0")
    for tool, data in (("plan_train", {}), ("train", {"dataset": str(dataset)})):
        answer, text = await called(service, dataset.parent, tool, **data, **asked)
        assert not answer and "[DEP_GPU_NOT_AVAILABLE]" in text and "compute capability 8.0" in text
    assert not service.store.ids()


async def test_a_model_of_the_hub_is_planned_from_its_config_alone(
    service: TrainingService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 24, name="NVIDIA GeForce RTX 4090")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_facts, "hub_config", lambda *_: config_of("14b"))
    monkeypatch.setattr(hub, "_download", lambda *_: pytest.fail("nothing may be downloaded"))
    plan = await planned(service, tmp_path, model="owner/own-model")
    assert plan["billions"] == pytest.approx(14.77) and "on the Hub" in plan["model_from"]
    assert plan["disk_gb"]["download"] == pytest.approx(29.5, abs=0.1)
    monkeypatch.setattr(model_facts, "hub_config", lambda *_: None)
    assert "its name" in (await planned(service, tmp_path, model="owner/other-14b"))["model_from"]
    answer, text = await called(service, tmp_path, "plan_train", model="owner/unknown")
    assert not answer and "[DEP_MODEL_LOAD_FAILED]" in text and "Nothing is known of the size" in text
    answer, text = await called(service, tmp_path, "plan_train", model="owner/other-14b", probe=True)
    assert "has to be downloaded first" in text


async def test_another_engines_memory_is_called_an_estimate_and_keeps_the_batch(
    service: TrainingService, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 24, name="NVIDIA GeForce RTX 4090")
    plan = await planned(service, models, model=str(models / "7b"), settings={"engine": "trl"})
    assert "estimate" in plan["peak_from"] and any("estimates" in note for note in plan["notes"])
    settings = plan["settings"]
    assert settings["batch_size"] * settings["gradient_accumulation_steps"] == 8
    assert plan["next"]["arguments"]["engine"] == "trl"


@pytest.mark.slow
async def test_a_plan_is_what_the_training_then_does(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    root = Path(tiny_model.anchor)
    request: dict[str, Any] = {
        "dataset": str(dataset), "model": str(tiny_model), "steps": 4, "lora_r": 4,
        "settings": {"threads": 1, "held_out": 0},
    }  # fmt: skip
    plan = await planned(service, root, **request)
    assert plan["fits"] and "rough estimate" in plan["speed_from"] and "all of its tokens" in plan["data"]
    answer, text = await called(service, root, "train", **request)
    run = service.store.find(answer["run_id"])
    carried_out = run.plan()
    assert carried_out is not None, text
    shared = ("engine", "recompute", "batch_size", "learning_rate", "micro_batch_tokens", "load_in_4bit")
    assert {name: plan["settings"][name] for name in shared} == {name: carried_out[name] for name in shared}
    again = await planned(service, root, **request)
    assert again["speed_from"] == f"measured on this machine in run {run.run_id}"
    assert again["hours"] is not None and again["hours"] < plan["hours"] * 10


@pytest.mark.slow
async def test_a_probe_measures_a_few_steps_and_keeps_nothing_else(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    root = Path(tiny_model.anchor)
    answer, text = await called(
        service, root, "plan_train", dataset=str(dataset), model=str(tiny_model), probe=True,
        settings={"threads": 1}, wait_s=120,
    )  # fmt: skip
    assert answer, text
    run = service.store.find(answer["probe"])
    assert answer["plan"]["speed_from"] == f"measured on this machine in run {run.run_id}"
    assert f"run {run.run_id} used" in answer["plan"]["peak_from"]
    written = {path.name for path in run.path.iterdir()}
    assert not written & {"adapter", "checkpoints", ".adapter-of-the-engine"}
    result = json.loads((run.path / "state.json").read_text())["result"]
    assert result["kind"] == "probe" and result["tokens_per_s"] > 0 and result["peak_memory_mib"] > 0
    assert answer["next"].startswith("train(dataset=")


async def test_a_plan_after_an_inspection_of_the_same_dataset_does_not_read_it_again(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    root, given = Path(tiny_model.anchor), {"dataset": str(dataset), "model": str(tiny_model)}
    inspected, _ = await called(service, root, "inspect_dataset", **given)
    await planned(service, root, **given)
    assert service.store.ids() == [inspected["run_id"]]


async def test_a_dataset_that_cannot_be_read_is_told(service: TrainingService, tmp_path: Path) -> None:
    answer, text = await called(service, tmp_path, "plan_train", dataset=str(tmp_path / "none.jsonl"))
    assert not answer and "[INPUT_DATASET_NOT_FOUND]" in text


def test_a_plan_is_made_without_a_heavy_library(home: Path, models: Path) -> None:
    program = """
import sys, anyio
from backpropagate.training.requests.train import train_spec
from backpropagate.training.service import TrainingService
service = TrainingService()
spec = train_spec(service.settings, arguments={"model": sys.argv[1]}, needs_dataset=False)
print(anyio.run(service.plan, spec).billions)
print([name for name in ("torch", "transformers", "numpy", "datasets") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(models / "7b")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "7.615\n[]\n"


def tickets(folder: Path, *bad: str) -> Path:
    """24 tickets, the last four equal to the first four, and bad rows."""
    rows = [json.dumps({"prompt": f"Ticket {i % 20}?", "completion": f"Answer {i % 20}."}) for i in range(24)]
    path = folder / "tickets.jsonl"
    path.write_text("\n".join([*rows, *bad]), encoding="utf-8")
    return path


async def test_a_plan_says_that_its_training_would_be_refused_for_its_rows(
    service: TrainingService, tiny_model: Path, tmp_path: Path
) -> None:
    data = tickets(tmp_path, '{"Customer Message": "Late?", "Agent Reply": "Sorry."}')
    root, asked = Path(tiny_model.anchor), {"dataset": str(data), "model": str(tiny_model)}
    answer, text = await called(service, root, "plan_train", **asked)
    assert "would be refused: 1 of 25 rows cannot be used" in text and 'on_bad_rows="skip"' in text
    assert answer["plan"]["next"] == {"action": "inspect", "arguments": asked}
    answer, text = await called(service, root, "plan_train", **asked, on_bad_rows="skip")
    assert "refused" not in text and answer["plan"]["next"]["action"] == "train"


async def test_a_plan_of_rows_that_cannot_be_used_does_not_say_that_nobody_has_looked(
    service: TrainingService, tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "tickets.csv"
    data.write_text("Customer Message,Agent Reply\nLate?,Sorry.\n", encoding="utf-8")
    asked: dict[str, Any] = {"dataset": str(data), "model": str(tiny_model)}
    _, text = await called(service, Path(tiny_model.anchor), "plan_train", **asked)
    assert "none of its rows can be used" in text and "not been inspected" not in text
    assert "1 of 1 row cannot be used" in text and "Next: inspect_dataset(" in text


async def test_a_plan_counts_no_row_that_dedupe_leaves_out(
    service: TrainingService, tiny_model: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"dataset": str(tickets(tmp_path)), "model": str(tiny_model)}
    asked["settings"] = {"held_out": 0}
    plan = await planned(service, Path(tiny_model.anchor), **asked)
    assert plan["data"].startswith("24 examples")
    plan = await planned(service, Path(tiny_model.anchor), **asked, dedupe="exact")
    assert plan["data"].startswith("20 examples")
