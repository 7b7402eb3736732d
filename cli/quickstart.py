"""`backprop quickstart`: fine-tune a small real model on an example dataset."""

from __future__ import annotations

import json
from importlib.resources import as_file, files

import click

from .. import examples
from ..training.config.specs import TrainSpec
from ..training.requests.train import train_spec
from ..training.service import TrainingService
from .train import run_and_print

STEPS = 40
SETTINGS = {"batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 5, "max_seq_length": 256, "lora_r": 16}


@click.command("quickstart")
@click.option("--steps", type=click.IntRange(1), default=STEPS, show_default=True, help="Optimizer steps.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON.")
@click.pass_context
def quickstart(ctx: click.Context, steps: int, as_json: bool) -> None:
    """Fine-tune SmolLM2-135M on an example dataset, on this machine, in about two minutes on a CPU.

    The facts in the dataset are new to the model: its answers before and after show what it learnt.
    """
    service = TrainingService()
    with as_file(files(examples) / "quickstart.jsonl") as data:
        spec = _spec(service, str(data), steps)
        run_and_print(ctx, service, lambda: service.submit(spec), as_json=as_json)


def _spec(service: TrainingService, data: str, steps: int) -> TrainSpec:
    asked = json.loads((files(examples) / "quickstart_questions.json").read_text(encoding="utf-8"))
    return train_spec(
        service.settings,
        arguments={
            **SETTINGS,
            "model": "smollm2-135m",
            "dataset": data,
            "steps": steps,
            "questions": [item["question"] for item in asked],
        },
    )
