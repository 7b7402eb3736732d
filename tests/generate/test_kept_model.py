"""A worker keeps the model that has answered, for the next run that asks it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import psutil
import pytest
from taught import ANSWERED, SAID
from waiting import phases_of, wait_until

from backpropagate import GenerateSpec, Trainer
from backpropagate.cli.main import run
from backpropagate.training.config.results import GenerateResult
from backpropagate.training.config.settings import load_settings
from backpropagate.training.runs.device_queue import DeviceQueue
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.model_stamp import model_key
from backpropagate.training.runs.store import RunStore
from backpropagate.training.worker.warm import left_to_keeper


def newest(home: Path) -> RunFolder:
    return RunFolder(max(home.glob("runs/*-generate-*")))


def was_warm(asked: RunFolder) -> bool:
    result = asked.state().result
    assert isinstance(result, GenerateResult) and result.warm is ("loading" not in phases_of(asked))
    return result.warm


@pytest.mark.usefixtures("kept")
def test_a_kept_model_answers_the_next_command_and_gives_way_to_another_run(
    taught: RunFolder, home: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(SAID)
    assert run(["generate", taught.run_id, "--file", str(prompt), "--max-new-tokens", "9"]) == 0
    shown = capsys.readouterr().out
    assert f"> {SAID}\nbase (cut at 9 tokens):\n" in shown and f"tuned:\n    {ANSWERED}\n" in shown
    first = newest(home)
    assert not was_warm(first)

    assert run(["generate", taught.run_id, SAID, "--no-base", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["result"]["answers"]
    assert answer["tuned"] == {"text": ANSWERED, "tokens": 7, "stopped": True} and answer["base"] is None
    second, keeper = newest(home), first.state().pid
    assert was_warm(second) and second.state().pid == keeper is not None
    assert "run_ended" in second.log_path.read_text("utf-8")

    Trainer(str(tiny_model), threads=1).generate(SAID, taught.run_id, max_new_tokens=2)
    assert not newest(home).state().warnings  # it did not have to share the device
    wait_until(lambda: not psutil.pid_exists(keeper), "the end of the worker")


def test_a_run_is_left_to_a_worker_that_keeps_its_model_only_while_that_worker_lives(
    home: Path, tiny_model: Path
) -> None:
    spec = GenerateSpec.model_validate(
        {"model": {"name": str(tiny_model)}, "prompts": ["Hi"], "device": "cpu"}
    )
    asked, settings = RunStore(home).create(spec), load_settings()
    assert settings.runtime_dir and not left_to_keeper(asked, settings)
    queue = DeviceQueue(settings.runtime_dir, "cpu")
    keeper = queue.keep(model_key(spec))
    assert keeper is not None
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(left_to_keeper(asked, settings)))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    keeper.release()  # as the system does when its process is killed
    waiting.join(60)
    assert found == [False]
    taken = asked.state().model_copy(update={"pid": 1})
    held = queue.keep(model_key(spec))
    asked.write_state(taken)
    assert held is not None and left_to_keeper(asked, settings)
