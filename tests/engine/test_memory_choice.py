"""What the plan keeps on a GPU, by the memory that is free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backpropagate.training.config.specs import ModelGroup, TrainingGroup, TrainSpec
from backpropagate.training.engine.out_of_memory import out_of_memory
from backpropagate.training.engine.plan import Plan
from backpropagate.training.engine.planner import Machine, choose_plan
from backpropagate.training.next_step import then
from backpropagate.training.planning.decoder_shape import folder_shape
from backpropagate.training.planning.memory_choice import resident_for_answers

GIB = 2**30
QWEN_7B: dict[str, Any] = {
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "intermediate_size": 18944, "vocab_size": 152064,
    "tie_word_embeddings": False, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6,
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The config of a 7B, and weights of which nothing is read."""
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return tmp_path


def planned(
    model: Path, free: float, *, device: Any = "cuda", in_4bit: bool = True, **settings: Any
) -> tuple[Plan, dict[str, str]]:
    spec = TrainSpec(
        model=ModelGroup(name=str(model), load_in_4bit=in_4bit), training=TrainingGroup(**settings)
    )
    return choose_plan(
        spec, Machine(device, int(free * GIB), 1), examples=100, held_out=8, model=model,
        adapter=model / "a", base_model_name="", continue_from=None,
    )  # fmt: skip


def summary(plan: Plan) -> tuple[object, ...]:
    return plan.training.engine, plan.training.recompute, plan.micro_batch_tokens, plan.resident_layers


@pytest.mark.parametrize(
    ("free", "chosen"),
    [
        (78, ("nothing", 8192, None)),
        (24, ("gate_up", 8192, None)),
        (11.5, ("everything", 8192, None)),
        (7.5, ("everything", 8192, 6)),
        (5.5, ("everything", 4096, 4)),
        (4, ("everything", 2048, 0)),
    ],
)
def test_a_7b_in_4_bits_takes_what_is_free(free: float, chosen: tuple[object, ...], model: Path) -> None:
    assert summary(planned(model, free)[0]) == ("packed", *chosen)


def test_whole_weights_stream_only_where_they_do_not_fit(model: Path) -> None:
    assert summary(planned(model, 23.5, in_4bit=False)[0]) == ("packed", "everything", 8192, None)
    plan, reasons = planned(model, 11.5, in_4bit=False)
    assert plan.resident_layers == 8
    assert "20 of 28 layers stream from host memory" in reasons["weights"]


def test_a_place_that_is_asked_for_is_kept(model: Path) -> None:
    plan, reasons = planned(model, 78, weights="host", recompute="everything", micro_batch_tokens=1024)
    assert summary(plan) == ("packed", "everything", 1024, 0)
    assert reasons["recompute"] == "as asked" and "28 of 28 layers" in reasons["weights"]
    plan, reasons = planned(model, 4, weights="gpu")
    assert plan.resident_layers is None
    assert "more than is free" in reasons["recompute"]


def test_a_cpu_has_one_place_and_says_so(model: Path) -> None:
    plan, reasons = planned(model, 0, device="cpu", weights="host")
    assert plan.resident_layers is None and plan.training.recompute == "nothing"
    assert reasons["weights"] == "not used: a CPU has only the host's memory"


def test_a_plan_survives_its_record(model: Path) -> None:
    plan = planned(model, 7.5)[0]
    assert Plan.from_record(plan.record()).resident_layers == 6
    older = {
        name: value for name, value in plan.record().items() if name not in ("weights", "resident_layers")
    }
    assert Plan.from_record(older).resident_layers is None


def test_a_model_that_is_only_asked_streams_where_it_does_not_fit(model: Path) -> None:
    assert resident_for_answers(folder_shape(model), in_4bit=True, free=0) is None
    assert resident_for_answers(folder_shape(model), in_4bit=True, free=24 * GIB) is None
    resident = resident_for_answers(folder_shape(model), in_4bit=True, free=6 * GIB)
    assert resident is not None and 0 < resident < 28


def test_a_lack_of_memory_leads_to_weights_that_stream(model: Path) -> None:
    plan = planned(model, 24, recompute="everything")[0]
    assert out_of_memory(plan, "training", "Memory ran out.").next == then("ask_again", weights="host")
    streaming = planned(model, 24, recompute="everything", weights="host")[0]
    found = out_of_memory(streaming, "training", "Memory ran out.").next
    assert found == then("ask_again", max_seq_length=1024)
