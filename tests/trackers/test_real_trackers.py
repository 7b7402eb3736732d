"""The real libraries write to local folders, and other readers find there what the run recorded.

`.ci/task trackers` runs these: the libraries are not installed for the other tests.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import wandb_file

from backpropagate import Trainer, TrainingRun
from backpropagate.training.runs.folder import Status
from backpropagate.training.trackers import child

pytestmark = pytest.mark.slow

STEPS = 6


class Seen:
    """What a second reader finds of a run.

    Args:
        losses: step → training loss.
    """

    def __init__(self, losses: dict[int, float], settings: dict[str, str], summary: dict[str, str]) -> None:
        self.losses, self.settings, self.summary = losses, settings, summary


def read_wandb(run: TrainingRun, home: Path) -> Seen:
    losses: dict[int, float] = {}
    settings: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    files = sorted((home / "wandb").glob(f"offline-run-*-{run.run_id}/*.wandb"))
    for file in files:
        for record in wandb_file.records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                assert record.run.display_name == f"backprop-{run.run_id}"
                assert record.run.host == "backpropagate", "this machine's name is nobody's business"
                settings |= wandb_file.values(record.run.config.update)
            elif kind == "history":
                row = wandb_file.values(record.history.item)
                if "train/loss" in row:
                    losses[row["train/global_step"]] = row["train/loss"]
            elif kind == "summary":
                summary |= wandb_file.values(record.summary.update)
    return Seen(losses, _texts(settings), _texts(summary))


def read_tensorboard(run: TrainingRun, home: Path) -> Seen:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found: Any = EventAccumulator(str(home / "tensorboard" / f"backprop-{run.run_id}"))
    found.Reload()
    settings: dict[str, Any] = {}
    for content in found.PluginTagToContent("hparams").values():
        start = HParamsPluginData.FromString(content).session_start_info
        for name, value in start.hparams.items():
            settings[name] = getattr(value, value.WhichOneof("kind"))
    numbers = {
        tag: found.Scalars(tag)[-1].value for tag in found.Tags()["scalars"] if tag.startswith("final/")
    }
    texts = {
        tag: found.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
        for tag in found.Tags()["tensors"]
        if tag.startswith("final/")
    }
    losses = {event.step: event.value for event in found.Scalars("train/loss")}
    assert len(losses) == len(found.Scalars("train/loss")), "no step is shown twice"
    return Seen(losses, _texts(settings), _texts(numbers | texts))


def read_mlflow(run: TrainingRun, home: Path) -> Seen:
    import mlflow

    (record,) = run.result.trackers
    client: Any = mlflow.MlflowClient(tracking_uri=record.place)
    experiment = client.get_experiment_by_name("backpropagate")
    (found,) = client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.runName = 'backprop-{run.run_id}'"
    )
    losses = {
        metric.step: metric.value for metric in client.get_metric_history(found.info.run_id, "train/loss")
    }
    tags = {f"final/{name.removeprefix('backpropagate.')}": value for name, value in found.data.tags.items()}
    return Seen(losses, _texts(found.data.params), _texts(found.data.metrics | tags))


def read_trackio(run: TrainingRun, home: Path) -> Seen:
    from trackio.sqlite_storage import SQLiteStorage

    name = f"backprop-{run.run_id}"
    with sqlite3.connect(SQLiteStorage.get_project_db_path("backpropagate")) as database:
        (runs,) = database.execute("select count(distinct run_name) from metrics").fetchone()
    assert runs == 1
    rows: list[dict[str, Any]] = SQLiteStorage.get_logs("backpropagate", name)
    losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    settings: Any = SQLiteStorage.get_run_config("backpropagate", name)
    return Seen(losses, _texts(settings), _texts(rows[-1]))


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


READERS: dict[str, Callable[[TrainingRun, Path], Seen]] = {
    "wandb": read_wandb,
    "tensorboard": read_tensorboard,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
}


@pytest.fixture(params=READERS)
def tracker(
    request: pytest.FixtureRequest, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    pytest.importorskip(request.param)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    if request.param == "trackio":
        monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
        monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(child, "CLOSE_S", 60.0)  # a busy machine is slow, not wrong
    return request.param


def a_trainer(model: Path, tracker: str) -> Trainer:
    return Trainer(str(model), lora_r=4, batch_size=8, threads=1, held_out=0.2, report_to=[tracker])


def test_a_tracker_has_what_the_run_recorded_and_nothing_of_this_machine(
    home: Path, dataset: Path, tiny_model: Path, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "0123456789" * 4
    monkeypatch.setenv("WANDB_API_KEY", key)
    run = a_trainer(tiny_model, tracker).train(dataset, steps=STEPS)
    (record,) = run.result.trackers
    assert record.state == "complete" and record.place and not run.warnings
    seen = READERS[tracker](run, home)
    assert seen.losses == pytest.approx(dict(enumerate(run.losses, 1)))
    assert float(seen.settings["lora_r"]) == 4 and float(seen.settings["steps"]) == STEPS
    assert seen.settings["model"] == tiny_model.name and seen.settings["run_id"] == run.run_id
    assert float(seen.summary["final/eval_loss"]) == pytest.approx(run.eval_loss)
    assert run.result.verdict and seen.summary["final/verdict"] == run.result.verdict.verdict
    assert seen.summary["final/status"] == "completed"
    assert not list(home.rglob("requirements.txt"))
    for file in home.rglob("*"):
        if file.suffix == ".wandb" or ".tfevents." in file.name:
            sent = file.read_bytes()
            assert key.encode() not in sent and str(dataset.parent).encode() not in sent


def test_a_resumed_run_continues_its_run_in_the_tracker(
    home: Path, dataset: Path, tiny_model: Path, tracker: str
) -> None:
    trainer = a_trainer(tiny_model, tracker)
    asked = count()
    stopped = trainer.train(dataset, steps=STEPS, should_stop=lambda: next(asked) > 12)
    assert stopped.status is Status.CANCELLED and 0 < stopped.steps < STEPS
    run = trainer.train(resume_from=stopped.run_id)
    seen = READERS[tracker](run, home)
    assert seen.losses == pytest.approx(dict(enumerate([*stopped.losses, *run.losses], 1)))
    assert seen.summary["final/status"] == "completed" and len(seen.losses) == STEPS
