"""The plan of a run, and plan.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.lora_parameters import lora_scale
from backpropagate.training.engine.plan import Plan

from .conftest import a_plan

# As the runs of version 0.1.0 hold it.
OLD: dict[str, Any] = {
    "model": "/models/m", "adapter": "/runs/r/.adapter-of-the-engine", "base_model_name": "owner/m",
    "reason": "our own step", "lora": {
        "r": 8, "alpha": 16, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"], "rslora": True,
    },
    "load_in_4bit": False, "continue_from": None, "device": "cpu", "precision": "float32",
    "recompute": "nothing", "max_seq_length": 512, "steps": 30, "epochs": 3.0, "batch_size": 4,
    "gradient_accumulation_steps": 2, "tokens_per_step": None, "micro_batch_tokens": 4096,
    "learning_rate": 0.001, "lr_scheduler": "cosine", "warmup_steps": 3, "warmup_ratio": None,
    "weight_decay": 0.01, "max_grad_norm": 0.5, "seed": 7, "shuffle": False, "eval_every": 5, "patience": 2,
    "checkpoint_every_steps": 10, "checkpoint_every_s": 60.0, "report_every_s": None, "resume": False,
    "engine": "autograd", "threads": 2, "tokens_key": "abc", "reasons": {"engine": "our own step"},
}  # fmt: skip


def test_a_plan_of_an_older_version_is_read() -> None:
    plan = Plan.from_record(OLD)
    assert (plan.model, plan.continue_from, plan.tokens_key) == (Path("/models/m"), None, "abc")
    assert plan.lora == LoraGroup(
        r=8, alpha=16, dropout=0.1, target_modules=["q_proj", "v_proj"], rslora=True
    )
    assert plan.data.order == "as_given" and plan.data.max_seq_length == 512
    assert (plan.evaluation.eval_every, plan.evaluation.patience) == (5, 2)
    assert plan.batch_size == 4 and plan.micro_batch_tokens == 4096 and plan.device == "cpu"
    record = plan.record()
    assert record["lora"].items() >= OLD["lora"].items()
    for name in OLD.keys() - {"shuffle", "reasons", "lora"}:
        assert record[name] == OLD[name], name


def test_a_plan_reads_what_it_has_written(tmp_path: Path) -> None:
    plan = a_plan(
        model=tmp_path, adapter=tmp_path / "a", continue_from=tmp_path / "b", order="length", resume=True,
        lora=LoraGroup(target_modules=["q_proj"]), patience=3, load_in_4bit=True, questions=["Why?"],
    )  # fmt: skip
    assert Plan.from_record(json.loads(json.dumps(plan.record()))) == plan


def test_a_plan_with_something_undecided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not decided in the plan: batch_size, recompute"):
        a_plan(model=tmp_path, adapter=tmp_path, batch_size="auto", recompute="auto")


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 8.0)])
def test_rank_stabilisation_divides_by_the_root_of_the_rank(rslora: bool, scale: float) -> None:
    assert lora_scale(LoraGroup(r=16, alpha=32, rslora=rslora)) == scale
