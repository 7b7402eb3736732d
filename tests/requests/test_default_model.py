"""The model of a request that names none, by the machine."""

from __future__ import annotations

import pytest
from measured_gpus import with_gpus

from backpropagate import Trainer
from backpropagate.training.models.presets import PRESETS
from backpropagate.training.requests.train import train_spec


def chosen(**arguments: object) -> str:
    name = train_spec(arguments={"dataset": "/rows.jsonl", **arguments}).model.name
    return next(preset for preset, found in PRESETS.items() if found.hub_id == name)


def test_a_cpu_gets_the_smallest_model_and_what_was_asked_for_is_kept() -> None:
    assert chosen() == chosen(model="auto") == "smollm2-135m"
    assert train_spec(arguments={"dataset": "/rows.jsonl", "model": "owner/own"}).model.name == "owner/own"
    Trainer()


@pytest.mark.parametrize(
    ("gib", "preset"),
    [
        ([2], "smollm2-135m"), ([6], "qwen3-0.6b"), ([8], "qwen3-1.7b"), ([16], "smollm3-3b"),
        ([80], "qwen2.5-7b"), ([80, 8], "qwen3-1.7b"),
    ],
)  # fmt: skip
def test_a_gpu_gets_the_largest_open_model_that_fits_its_memory(
    gib: list[int], preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, *gib)
    assert chosen() == preset
    assert chosen(device="cpu") == "smollm2-135m"


def test_the_users_own_default_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROPAGATE_MODEL__NAME", PRESETS["llama3.2-1b"].hub_id)
    assert chosen() == "llama3.2-1b"
