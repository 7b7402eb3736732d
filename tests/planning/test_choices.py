"""What a plan chooses by the memory of a machine, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measured_gpus import with_gpus
from model_configs import config_folder

from backpropagate.training.config.specs import ModelGroup, TrainingGroup, TrainSpec
from backpropagate.training.config.training_plan import TrainingPlan
from backpropagate.training.data.split.held_out import held_out_count
from backpropagate.training.errors import (
    GpuMonitoringError,
    GpuNotAvailableError,
    GpuOutOfMemoryError,
    InputError,
)
from backpropagate.training.hardware.gpu import GpuReadings
from backpropagate.training.next_step import then
from backpropagate.training.planning import machine as machine_module
from backpropagate.training.planning.data_facts import NOTHING, DataFacts
from backpropagate.training.planning.duration import seconds_of
from backpropagate.training.planning.fits import require_fit
from backpropagate.training.planning.machine import Machine, machine_for, machine_or_cpu, shared
from backpropagate.training.planning.memory import GIB
from backpropagate.training.planning.model_facts import model_facts
from backpropagate.training.planning.plan_training import plan_training
from backpropagate.training.runs.store import RunStore

DATA = DataFacts(100, 8, [200] * 100, 0.5, "a test")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return config_folder(tmp_path / "7b", "7b")


def spec_of(model: Path, *, in_4bit: bool = False, **training: Any) -> TrainSpec:
    return TrainSpec(
        model=ModelGroup(name=str(model), load_in_4bit=in_4bit), training=TrainingGroup(**training)
    )


def plan_of(spec: TrainSpec, machine: Machine, home: Path, data: DataFacts = DATA) -> TrainingPlan:
    return plan_training(spec, RunStore(home), machine, data, ask_hub=False)


def cpu(gib: float) -> Machine:
    return Machine("cpu", 0, 4, name="CPU", free_bytes=int(gib * GIB), total_bytes=128 * GIB)


@pytest.mark.parametrize(
    ("gib", "recompute", "tokens"), [(80, "nothing", 8192), (50, "nothing", 2048), (38, "everything", 2048)]
)
def test_a_cpu_splits_steps_and_recomputes_only_where_main_memory_is_small(
    gib: float, recompute: str, tokens: int, model: Path, home: Path
) -> None:
    data = DataFacts(400, 8, [1000] * 400, 0.5, "a test")
    plan = plan_of(spec_of(model), cpu(gib), home, data)
    assert (plan.settings["recompute"], plan.settings["micro_batch_tokens"]) == (recompute, tokens)


@pytest.mark.parametrize(
    ("gib", "length", "recompute", "tokens"),
    [
        (80, 500, "nothing", 8192),
        (24, 500, "nothing", 2048),
        (20, 500, "gate_up", 2048),
        (24, 100, "nothing", 8192),
    ],
)
def test_a_gpu_takes_fewer_tokens_at_a_time_where_computing_again_would_cost_more(
    gib: float, length: int, recompute: str, tokens: int, model: Path, home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with_gpus(monkeypatch, 80, free=gib, name="NVIDIA H100 80GB HBM3")
    data = DataFacts(400, 8, [length] * 400, 0.5, "a test")
    plan = plan_of(spec_of(model), machine_for("auto"), home, data)
    assert (plan.settings["recompute"], plan.settings["micro_batch_tokens"]) == (recompute, tokens)


def test_the_plan_that_is_carried_out_is_the_one_that_was_shown(
    model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backpropagate.training.engine import planner  # with torch

    with_gpus(monkeypatch, 80, free=24, name="NVIDIA H100 80GB HBM3")
    machine = machine_for("auto")
    shown = plan_of(spec_of(model), machine, home, DataFacts(400, 8, [500] * 400, 0.5, "a test"))
    seen = {
        "torch_device": "cuda",
        "free_gpu_bytes": machine.free_gpu_bytes,
        "device_name": machine.name,
        "gpu_capability": (9, 0),
        "held_by_others": machine.held,
    }
    for name, value in seen.items():
        monkeypatch.setattr(planner, name, lambda value=value: value)
    plan, reasons = planner.choose_plan(
        spec_of(model), planner.this_machine(2), examples=400, held_out=8, model=model, lengths=[500] * 400,
        adapter=home / "adapter", base_model_name="a model", continue_from=None, trained_share=0.5,
    )  # fmt: skip
    carried_out = plan.training.recompute, plan.training.micro_batch_tokens
    assert carried_out == (shown.settings["recompute"], shown.settings["micro_batch_tokens"])
    assert carried_out[0] == "nothing" and reasons["recompute"] == shown.reasons["recompute"]


def test_weights_of_16_bits_stay_on_a_card_that_has_room_for_them(
    model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the formula promises more of weights that stream."""
    with_gpus(monkeypatch, 24, free=22, name="NVIDIA GeForce RTX 4090")
    data = DataFacts(400, 8, [500] * 400, 0.5, "a test")
    plan = plan_of(spec_of(model), machine_for("auto"), home, data)
    assert plan.fits and plan.settings["weights"] == "28 of 28 layers on the GPU"


def test_weights_stream_only_from_main_memory_that_is_there(
    model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 24, free=12, name="NVIDIA GeForce RTX 4090")
    data, machine = DataFacts(400, 8, [500] * 400, 0.5, "a test"), machine_for("auto")
    streams, stays = (
        plan_of(spec_of(model, in_4bit=True), replace(machine, free_bytes=gib * GIB), home, data)
        for gib in (64, 1)
    )
    assert streams.fits and streams.settings["weights"] != stays.settings["weights"]
    assert stays.fits and stays.settings["weights"] == "28 of 28 layers on the GPU"


def test_a_model_whose_steps_can_be_graphs_does_not_stream_to_take_more_tokens_at_a_time(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}
    model = config_folder(tmp_path / "small", "7b", intermediate_size=4864, **small)
    data = DataFacts(400, 8, [500] * 400, 0.5, "a test")
    with_gpus(monkeypatch, 80, free=4.5, name="NVIDIA H100 80GB HBM3")
    plan = plan_of(spec_of(model, in_4bit=True), machine_for("auto"), home, data)
    assert plan.fits and plan.settings["weights"] == "24 of 24 layers on the GPU"
    with_gpus(monkeypatch, 80, free=2.6, name="NVIDIA H100 80GB HBM3")
    assert plan_of(spec_of(model), machine_for("auto"), home, data).fits


def test_of_a_card_that_nobody_knows_more_tokens_come_before_less_to_compute_again(
    model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 80, free=24, name="a card of next year")
    data = DataFacts(400, 8, [500] * 400, 0.5, "a test")
    plan = plan_of(spec_of(model), machine_for("auto"), home, data)
    assert (plan.settings["recompute"], plan.settings["micro_batch_tokens"]) == ("gate_up", 8192)


def test_the_steps_of_a_small_model_before_its_graphs_are_counted(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many steps of one shape as of many take less."""
    with_gpus(monkeypatch, 80, name="NVIDIA H100 80GB HBM3")
    small = {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}
    model = config_folder(tmp_path / "small", "7b", intermediate_size=4864, **small)
    alike, mixed = [[500] * 800, [300, 700] * 400]
    hours = [
        plan_of(
            spec_of(model, steps=100), machine_for("auto"), home, DataFacts(800, 0, lengths, 0.5, "a test")
        ).hours
        for lengths in (alike, mixed)
    ]
    assert None not in hours and hours[0] < hours[1]


def test_a_card_that_others_hold_is_planned_with_what_is_left_and_who_holds_it(
    model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 80, free=5, name="NVIDIA H100 80GB HBM3")
    plan = plan_of(spec_of(model, in_4bit=True, weights="gpu"), machine_for("auto"), home)
    assert plan.possible and not plan.fits and "75.0 GiB are held by others" in str(plan.why_not)
    assert plan.next.action == "plan" and plan.next.arguments["weights"] == "auto"


def test_of_several_gpus_the_smallest_is_planned_and_the_largest_decides_what_is_refused(
    model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 80, 4)
    facts = model_facts(ModelGroup(name=str(model)), home, ask_hub=False)
    require_fit(spec_of(model), facts, machine_for("auto", "largest"))
    assert not plan_of(spec_of(model), machine_for("auto"), home).possible
    with_gpus(monkeypatch, 4)
    with pytest.raises(GpuOutOfMemoryError, match="the smallest settings need at least") as refused:
        require_fit(spec_of(model), facts, machine_for("auto", "largest"))
    assert refused.value.next == then("ask_again", model="mistral-7b", load_in_4bit=True)


def gpus(count: int, main_memory: int) -> Machine:
    """So many cards of 80 GiB in a machine."""
    free, host = 79 * GIB, main_memory * GIB
    one = Machine("cuda", free, 16, "", 80 * GIB, "NVIDIA H100 80GB HBM3", host, host)
    return shared(one, count)


def test_a_plan_for_several_gpus_has_the_same_steps_more_speed_and_the_memory_of_each(
    model: Path, home: Path
) -> None:
    data = DataFacts(4000, 8, [500] * 4000, 0.5, "a test")
    spec = spec_of(model, batch_size=64, steps=100, gpus=4)
    one, four = (plan_of(spec, gpus(count, 512), home, data) for count in (1, 4))
    same = ("batch_size", "steps", "learning_rate", "micro_batch_tokens", "recompute", "weights")
    assert [one.settings[name] for name in same] == [four.settings[name] for name in same]
    assert four.settings["gpus"] == 4 and "4 GPUs share the 64 examples" in four.reasons["gpus"]
    assert four.peak_gib == one.peak_gib and "each of 4 GPUs" in " ".join(four.notes)
    assert one.tokens_per_s and four.tokens_per_s
    assert 3 < four.tokens_per_s / one.tokens_per_s < 4
    few = plan_of(spec_of(model, batch_size=8, gpus=4), gpus(4, 512), home, data)
    assert "a larger batch_size would keep them busier" in few.reasons["gpus"]
    assert few.peak_gib < four.peak_gib  # two examples each instead of sixteen


def test_several_gpus_shard_weights_that_do_not_fit_each_of_them(tmp_path: Path, home: Path) -> None:
    model = config_folder(tmp_path / "70b", "70b")
    four = plan_of(spec_of(model, gpus=4, recompute="everything"), gpus(4, 40), home)
    assert four.fits and four.settings["weights"] == "sharded over 4 GPUs"
    assert "weights, LoRA and optimizer on the GPU; sharded over 4 GPUs" in four.reasons["weights"]
    two = plan_of(spec_of(model, gpus=2, recompute="everything"), gpus(2, 200), home)
    assert two.fits and two.settings["weights"].startswith("sharded over 2 GPUs, with shards of ")
    assert four.memory_gib["weights"] < two.memory_gib["weights"] < 79
    each = plan_of(spec_of(model, gpus=4, weights="host"), gpus(4, 200), home)
    assert each.fits and "shards of 80 of 80 layers in host memory" in each.settings["weights"]
    assert "take 13" in " ".join(each.notes)  # one copy of 131 GiB in all, and the embedding of each


def test_whole_weights_stay_on_several_gpus_where_they_fit_unless_they_are_to_be_sharded(
    model: Path, home: Path
) -> None:
    whole = plan_of(spec_of(model, gpus=2), gpus(2, 512), home)
    assert whole.settings["weights"] == "28 of 28 layers on the GPU"
    sharded = plan_of(spec_of(model, gpus=2, weights="sharded"), gpus(2, 512), home)
    assert sharded.settings["weights"] == "sharded over 2 GPUs" and sharded.peak_gib < whole.peak_gib - 4
    assert sharded.settings["load_in_4bit"] is False
    alone = plan_of(spec_of(model, gpus="all", weights="sharded"), gpus(1, 512), home)
    assert "not sharded: this host has one GPU for the run" in alone.reasons["weights"]


def test_more_gpus_are_named_where_they_would_fit_a_model(tmp_path: Path, home: Path) -> None:
    model = config_folder(tmp_path / "70b", "70b")
    facts = model_facts(ModelGroup(name=str(model)), tmp_path, ask_hub=False)
    one = replace(gpus(1, 40), gpus=4)
    with pytest.raises(GpuOutOfMemoryError, match="main memory has 40") as refused:
        require_fit(spec_of(model), facts, one)
    assert refused.value.next == then("ask_again", gpus=2)
    assert "gpus=2" in plan_of(spec_of(model), one, home).would_fit
    with pytest.raises(GpuOutOfMemoryError, match="Each of the 2 GPUs holds the whole model") as refused:
        require_fit(spec_of(model, gpus=2, weights="gpu"), facts, replace(gpus(2, 200), gpus=4))
    assert refused.value.next == then("ask_again", weights="auto")
    with pytest.raises(GpuOutOfMemoryError) as refused:
        require_fit(spec_of(model), facts, gpus(1, 40))
    assert refused.value.next == then("ask_again", load_in_4bit=True)


def test_nothing_is_refused_by_a_name_or_an_estimate(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 4)
    named = model_facts(ModelGroup(name="owner/own-70b"), home, ask_hub=False)
    require_fit(TrainSpec(model=ModelGroup(name="owner/own-70b")), named, machine_for("auto"))
    assert named is not None and named.config is None


def test_a_driver_that_does_not_answer_is_an_error_of_a_plan_and_no_reason_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_gpus(monkeypatch, 24)
    monkeypatch.setattr(machine_module, "read_gpus", lambda: GpuReadings([]))
    with pytest.raises(GpuMonitoringError):
        machine_for("auto")
    assert machine_or_cpu().device == "cpu"


def test_without_a_dataset_the_steps_are_not_guessed(model: Path, home: Path) -> None:
    plan = plan_of(spec_of(model), cpu(60), home, NOTHING)
    assert plan.hours is None and plan.settings["steps"] is None and "held_out" not in plan.reasons
    assert plan_of(spec_of(model, steps=10), cpu(60), home, NOTHING).settings["steps"] == 10


def test_few_steps_on_much_data_are_told_to_be_followed_by_a_long_evaluation(model: Path, home: Path) -> None:
    much = DataFacts(49_500, 500, [200] * 100, 0.5, "a test")
    [note] = [note for note in plan_of(spec_of(model, steps=2), cpu(60), home, much).notes if "held" in note]
    assert "Evaluating 500 held-out rows" in note and "held_out=0.00016 holds out 8." in note
    assert held_out_count(50_000, 0.00016) == 8
    for steps in (200, None):
        assert "held_out" not in str(plan_of(spec_of(model, steps=steps), cpu(60), home, much).notes)
    with_fewest = plan_of(spec_of(model, steps=1), cpu(60), home)  # 8 rows
    assert "held_out" not in str(with_fewest.notes)


def test_the_time_counts_an_evaluation_before_the_steps_only_where_there_is_one() -> None:
    def evaluating(held_out: float) -> float:
        whole, without = (
            seconds_of("cpu", tokens=3000, held_out=tokens, rate=100, stored=0, beside=None)
            for tokens in (held_out, 0)
        )
        return whole - without - 3  # the verdict's tenth

    assert evaluating(900) == pytest.approx(2 * 3) and evaluating(6000) == pytest.approx(20)


# --- A base in FP8.


def in_fp8(model: Path, **settings: Any) -> TrainSpec:
    return spec_of(model, **{"base_precision": "fp8", **settings})


def refused_fp8(spec: TrainSpec, home: Path) -> str:
    """What is said when a training on this machine is submitted, which a plan says too."""
    facts = model_facts(spec.model, home, ask_hub=False)
    with pytest.raises((InputError, GpuNotAvailableError)) as caught:
        require_fit(spec, facts, machine_for(spec.training.device, "largest"))
    assert caught.value.next == then("ask_again", base_precision="auto")
    with pytest.raises(type(caught.value)) as planned:
        plan_of(spec, machine_for(spec.training.device), home)
    assert planned.value.message == caught.value.message
    return caught.value.message


def test_fp8_is_planned_only_on_request_in_the_memory_of_bf16_and_faster(
    model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 80, name="NVIDIA H100 80GB HBM3", capability="9.0")
    specs = spec_of(model, batch_size=32), in_fp8(model, batch_size=32)
    usual, fp8 = (plan_of(spec, machine_for("auto"), home) for spec in specs)
    assert "base_precision" not in usual.settings and fp8.settings["base_precision"] == "fp8"
    assert fp8.settings["precision"] == "bf16" and "LoRA in bf16" in fp8.reasons["base_precision"]
    assert fp8.fits and fp8.peak_gib == usual.peak_gib
    assert fp8.tokens_per_s and usual.tokens_per_s and 1.1 < fp8.tokens_per_s / usual.tokens_per_s < 1.6
    assert fp8.next.arguments["base_precision"] == "fp8"


def test_weights_in_fp8_do_not_stream_and_what_fits_without_them_is_said(
    model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 12, name="NVIDIA GeForce RTX 4070", capability="8.9")
    facts = model_facts(ModelGroup(name=str(model)), home, ask_hub=False)
    with pytest.raises(GpuOutOfMemoryError) as caught:
        require_fit(in_fp8(model), facts, machine_for("auto"))
    assert caught.value.next == then("ask_again", base_precision="auto")
    plan = plan_training(
        in_fp8(model), RunStore(home), machine_for("auto"), DATA, four_bit_is_given=False, ask_hub=False
    )
    assert not plan.fits and plan.would_fit[:2] == [
        "base_precision=auto", "load_in_4bit=true, base_precision=auto",
    ]  # fmt: skip
    assert plan.next.arguments["base_precision"] == "auto"


@pytest.mark.parametrize(
    ("name", "capability", "words"),
    [
        ("NVIDIA A100-SXM4-80GB", "8.0", "NVIDIA A100-SXM4-80GB has compute capability 8.0: FP8 needs 8.9"),
        ("NVIDIA GeForce RTX 3090", "8.6", "has compute capability 8.6"),
    ],
)
def test_a_card_without_fp8_is_named(
    name: str, capability: str, words: str, model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 80, name=name, capability=capability)
    assert words in refused_fp8(in_fp8(model), home)
    assert "on a CPU" in refused_fp8(in_fp8(model, device="cpu"), home)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"in_4bit": True}, "either 8 or 4 bits"),
        ({"weights": "host"}, "weights in FP8 do not stream"),
        ({"engine": "trl"}, "only the packed engine has it, and that does not train this model: trl was"),
        ({"engine": "unsloth"}, "unsloth was asked for"),
    ],
)
def test_what_contradicts_fp8_is_named(
    settings: dict[str, Any], words: str, model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 80, capability="9.0")
    assert words in refused_fp8(in_fp8(model, **settings), home)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"hidden_size": 2056, "head_dim": 128}, "a matrix with 2056 rows or columns, which is no multiple"),
        ({"model_type": "gpt2"}, "only the packed engine has it"),
        ({"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2}, "has experts"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True,
                                     "bnb_4bit_quant_type": "nf4"}},
            "holds its weights in 4 bits",
        ),
    ],
    ids=["sizes", "another engine", "experts", "4 bits"],
)  # fmt: skip
def test_a_model_that_has_no_fp8_is_refused_with_the_reason(
    entries: dict[str, Any], words: str, model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = model / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **entries}))
    with_gpus(monkeypatch, 80, capability="9.0")
    assert words in refused_fp8(in_fp8(model), home)
