"""A small model that has really learnt facts, for all that is measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from facts import write_dataset
from tiny_model import build_quick_learner

from backpropagate import Trainer, TrainingRun
from backpropagate.training.data.prepare import prepared_before
from backpropagate.training.evaluation import held_out_answers
from backpropagate.training.runs.folder import RunFolder


@dataclass(frozen=True)
class Learnt:
    """A run that has learnt facts, in a home of its own, and the trainer that made it."""

    home: Path
    model: Path
    data: Path
    run: TrainingRun
    by: Trainer

    @property
    def trainer(self) -> Trainer:
        return Trainer(str(self.model), threads=1, output_dir=self.home)

    @property
    def trained_hashes(self) -> set[int]:
        key = (RunFolder(self.run.run_folder).plan() or {})["tokens_key"]
        data = prepared_before(self.home / "cache" / "tokens", key)
        assert data is not None
        return {int(digest, 16) for digest in data.train.hashes()}

    def last_state(self) -> Any:
        newest = max(self.home.glob("runs/*-evaluate-*"), key=lambda path: path.stat().st_mtime_ns)
        return RunFolder(newest).state()


@pytest.fixture(scope="session")
def quick_learner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_quick_learner(tmp_path_factory.mktemp("models") / "quick")


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory, quick_learner: Path) -> Learnt:
    folder = tmp_path_factory.mktemp("learnt")
    home, data = folder / "home", write_dataset(folder / "facts.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKPROPAGATE_HOME", str(home))
        patch.setenv("BACKPROPAGATE_RUNTIME_DIR", str(folder / "runtime"))
        patch.setattr(held_out_answers, "allowed_s", lambda seconds: 600.0)  # also on a busy machine
        questions = ["What is zorvex?"]
        by = Trainer(str(quick_learner), threads=1, learning_rate=1e-2, questions=questions)
        return Learnt(home, quick_learner, data, by.train(data, steps=250), by)
