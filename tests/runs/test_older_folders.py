"""Run folders that version 0.1 wrote still open: listed, shown, described, resumed and exported from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anyio
import pytest

from backpropagate.cli import main
from backpropagate.tools.status import run_status
from backpropagate.training.config.results import ExportResult, InspectResult, TrainResult
from backpropagate.training.events import EVENTS, Step
from backpropagate.training.export.hub.model_card import run_card
from backpropagate.training.export.hub.run_facts import RunFacts
from backpropagate.training.runs.event_log import read_events
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.identity import host
from backpropagate.training.service import TrainingService

FOLDERS = Path(__file__).parent / "folders_of_0_1"


@pytest.fixture
def older(home: Path) -> Path:
    """A home with the old folders, as if this machine had written them."""
    shutil.copytree(FOLDERS, home / "runs")
    for path in (home / "runs").glob("*/state.json"):
        path.write_text(path.read_text().replace("desk~0123456789ab", host()))
    return home / "runs"


def run_of(older: Path, part: str) -> RunFolder:
    return RunFolder(next(older.glob(f"*{part}*")))


def test_every_old_run_is_listed_and_shown(older: Path, service: TrainingService) -> None:
    lines, unreadable = anyio.run(service.list, None, 50)
    assert not unreadable and len(lines) == 6
    assert {line.status for line in lines} == set(Status) - {Status.QUEUED, Status.RUNNING}
    assert any(line.loss is not None and line.total_steps for line in lines)
    for line in lines:
        assert run_status(anyio.run(service.get, line.run_id)).text()
        assert main.run(["show-run", line.run_id]) == 0


def test_old_results_are_read_into_their_kinds(older: Path) -> None:
    trained = run_of(older, "6060").state()
    assert isinstance(trained.result, TrainResult) and not trained.warnings
    assert trained.result.steps == 20 and trained.result.packing and trained.result.packing.examples == 28
    assert [answer.question for answer in trained.result.answers] == ["Who?", "What?"]
    exported = run_of(older, "18d6").state().result
    assert isinstance(exported, ExportResult) and exported.quantization == "q8_0" and len(exported.proof) == 3
    inspected = run_of(older, "inspect").state().result
    assert isinstance(inspected, InspectResult) and inspected.rows == 200 and inspected.preview
    failed = run_of(older, "7ade").state()
    assert failed.result is None and failed.error and failed.error.code == "INPUT_DATASET_FORMAT_UNSUPPORTED"


def test_old_events_are_read_into_their_classes(older: Path) -> None:
    events = [event for path in older.glob("*/events.jsonl") for event in read_events(path)[0]]
    lines = [
        json.loads(line) for path in older.glob("*/events.jsonl") for line in path.read_text().splitlines()
    ]
    assert len(events) == len(lines)
    assert all(type(event) is EVENTS[event.kind] for event in events)
    assert {"queued", "phase", "step", "eval", "checkpoint", "saved", "done"} <= {e.kind for e in events}
    steps = [event for event in events if isinstance(event, Step)]
    assert all(step.tokens_per_s is not None and step.learning_rate is not None for step in steps)


def test_an_old_training_is_described_by_its_card(older: Path) -> None:
    card = run_card(RunFacts.of(run_of(older, "6060")), "adapter")
    assert "| LoRA rank, alpha, dropout | 4, 32, 0 |" in card and "| steps | 20 of 20 |" in card
