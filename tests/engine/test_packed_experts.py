"""Models with experts in the packed engine: products, sinks, stored weights, answers, adapters, resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rarer import rarer
from torch.nn import functional as F

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loaded_model import StepModel
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.open_model import open_model
from backpropagate.training.engine.packed.attention import explicit, with_sinks
from backpropagate.training.engine.packed.engine import load_packed_step
from backpropagate.training.engine.packed.expert_products import GroupedProducts, LoopedProducts
from backpropagate.training.engine.packed.open_decoder import load_decoder
from backpropagate.training.engine.plain_peft import read_with_peft
from backpropagate.training.engine.plan import Data, Example, Plan
from backpropagate.training.engine.run import run_engine
from backpropagate.training.engine.select_engine import select_engine
from backpropagate.training.events import never_stop, no_report

from .conftest import Events, a_plan, tiny_model
from .test_packed_step_equals_peft import EXPERTS, GEMMA_4_MIXED, GLM_MOE, GPT_OSS, ON_EXPERTS, relative

FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 24},
    "qwen3_moe": {**EXPERTS, "head_dim": 16, "mlp_only_layers": [0], "num_hidden_layers": 3},
    "gpt_oss": GPT_OSS,
    "glm4_moe": {**GLM_MOE, "num_hidden_layers": 3},
    "gemma4_text": {
        **GEMMA_4_MIXED, "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
}  # fmt: skip
EVERYTHING = ("q_proj", "k_proj", "v_proj", "o_proj", *ON_EXPERTS)


def test_grouped_products_are_those_of_a_loop_also_of_experts_without_rows() -> None:
    torch.manual_seed(0)
    ends = torch.tensor([0, 5, 5, 12, 12], dtype=torch.int32)
    x, dy = torch.randn(12, 16), torch.randn(12, 24)
    weight = torch.randn(5, 24, 16)
    looped, grouped = LoopedProducts(), GroupedProducts()
    for one in (looped, grouped):
        assert torch.allclose(one.rows(x, weight, ends), looped.rows(x, weight, ends), atol=1e-5)
        back = one.rows(dy, weight.transpose(1, 2), ends)
        assert torch.allclose(back, looped.rows(dy, weight.transpose(1, 2), ends), atol=1e-5)
        assert torch.allclose(one.outer(dy, x, ends), looped.outer(dy, x, ends), atol=1e-5)
        assert not one.outer(dy, x, ends)[[0, 2, 4]].any()
    assert torch.allclose(looped.rows(x, weight, ends)[:5], x[:5] @ weight[1].t(), atol=1e-5)


def test_a_training_step_with_grouped_products_is_the_one_with_a_loop(
    examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    folder = saved(tiny_model("mixtral", num_local_experts=4))
    lora = LoraGroup(r=5, alpha=8, target_modules=EVERYTHING)
    batch = packed_batch(examples(17, 9, 30))
    found: list[torch.Tensor] = []
    for products in (LoopedProducts(), GroupedProducts()):
        decoder = load_decoder(folder, lora, "float32", "cpu", in_4bit=False)
        decoder.lora.values.normal_(0, 0.05, generator=torch.manual_seed(1))
        decoder.refresh()
        for layer in decoder.layers:
            for linear in layer.experts():
                linear.products = products
        decoder.forward_backward(batch, torch.tensor(0.1), seed=0, recompute="gate_up")
        found.append(decoder.lora.gradients)
    assert relative(found[1], found[0]) < 1e-5


def test_flash_attention_with_sinks_is_right_forward_and_backward() -> None:
    """Its operators cannot run here; what they compute of a given output and logsumexp can."""
    torch.manual_seed(0)
    q, k, v, d_out = (torch.randn(9, 2, 8) for _ in range(4))
    sinks = torch.randn(2)
    scale = 1 / math.sqrt(8)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    expected = explicit(*leaves, 4, sinks, scale=scale)
    gradients = torch.autograd.grad(expected, leaves, d_out)

    distance = torch.arange(9)[:, None] - torch.arange(9)[None]
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    scores = scores.masked_fill((distance < 0) | (distance >= 4), -torch.inf)
    plain = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
    out, logsumexp = with_sinks(plain, scores.logsumexp(-1), sinks)
    assert torch.allclose(out, expected, atol=1e-6)
    share = torch.exp(scores - logsumexp[:, :, None])
    delta = (d_out * out).sum(-1).t()[:, :, None]
    d_scores = share * (torch.einsum("qhd,khd->hqk", d_out, v) - delta) * scale
    found = (
        torch.einsum("hqk,khd->qhd", d_scores, k),
        torch.einsum("hqk,qhd->khd", d_scores, q),
        torch.einsum("hqk,qhd->khd", share, d_out),
    )
    assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in zip(found, gradients, strict=True))


@pytest.mark.parametrize("in_4bit", [rarer(False), True])
@pytest.mark.parametrize("family", FAMILIES)
def test_experts_that_stream_or_are_expanded_are_those_on_the_device(
    family: str, in_4bit: bool, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    folder = saved(tiny_model(family, **{**FAMILIES[family], "num_hidden_layers": 4}))
    lora = LoraGroup(r=4, alpha=8, target_modules=EVERYTHING)
    batch = packed_batch(examples(17, 9, 30))
    found: list[list[torch.Tensor]] = []
    for resident in (None, 1):
        decoder = load_decoder(folder, lora, "float32", "cpu", in_4bit=in_4bit, resident_layers=resident)
        decoder.lora.values.normal_(0, 0.05, generator=torch.manual_seed(1))
        decoder.refresh()
        seen: list[torch.Tensor] = []
        for recompute in ("nothing", "everything", "gate_up"):
            seen.append(decoder.label_losses(batch))
            decoder.forward_backward(batch, torch.tensor(0.1), seed=0, recompute=recompute)
            seen.append(decoder.lora.gradients.clone())
        found.append(seen)
        assert decoder.streams == (resident == 1)
    assert all(torch.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize("how", ["whole", "in 4 bits", rarer("streamed")])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_that_answers_is_the_one_that_was_trained(
    family: str,
    how: str,
    examples: Callable[..., list[Example]],
    saved: Callable[[Any], Path],
    tmp_path: Path,
) -> None:
    folder = saved(tiny_model(family, **FAMILIES[family]))
    targets = "all-linear" if family in ("qwen2_moe", "glm4_moe") else EVERYTHING
    plan = a_plan(
        model=folder, adapter=tmp_path, lora=LoraGroup(r=4, alpha=8, target_modules=targets),
        load_in_4bit=how == "in 4 bits", resident_layers=1 if how == "streamed" else None,
    )  # fmt: skip
    step = load_packed_step(plan)
    step.lora.values.normal_(0, 0.05, generator=torch.manual_seed(1))
    step.refresh()
    view = step.peft_model()
    for example in examples(17, 30):
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            logits = view(input_ids=ids, use_cache=False).logits[0, :-1]
            with view.disable_adapter():
                base = view(input_ids=ids, use_cache=False).logits[0, :-1]
        total = F.cross_entropy(logits, torch.tensor(example.labels[1:]), reduction="sum")
        assert float(step.loss(packed_batch([example]))) == pytest.approx(float(total), rel=1e-5)
        assert not torch.allclose(logits, base, atol=1e-3)


def training(folder: Path, name: str, lora: LoraGroup, **settings: Any) -> Plan:
    return a_plan(
        model=folder / "model", adapter=folder / name, steps=4, learning_rate=1e-2, lora=lora,
        micro_batch_tokens=64, batch_size=4, **settings,
    )  # fmt: skip


def losses_with_plain_peft(plan: Plan, made: Sequence[Example]) -> list[float]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(plan.model, dtype=torch.float32), str(plan.adapter)
    ).eval()
    found: list[float] = []
    for example in made:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.input_ids]), use_cache=False).logits[0, :-1]
        found.append(float(F.cross_entropy(logits, torch.tensor(example.labels[1:]), reduction="sum")))
    return found


@pytest.mark.parametrize(
    "targets", [rarer("all-linear", id="by default"), pytest.param(EVERYTHING, id="on experts")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_adapter_loads_in_plain_peft_with_equal_losses(
    family: str, targets: Any, examples: Callable[..., list[Example]], tmp_path: Path
) -> None:
    tiny_model(family, **FAMILIES[family]).save_pretrained(tmp_path / "model")
    lora = LoraGroup(r=4, alpha=8, target_modules=targets)
    assert select_engine(tmp_path / "model", lora, load_in_4bit=False, max_seq_length=64)[0] == "packed"
    plan = training(tmp_path, "adapter", lora)
    model = open_model(plan, no_report)
    assert isinstance(model, StepModel)
    made = examples(17, 9, 30, 12)
    before = [loss.total for loss in model.losses(made)]
    model.train(Data(made), no_report, never_stop, Checkpoints(tmp_path / "checkpoints"))
    ours = [loss.total for loss in model.losses(made)]
    assert sum(ours) < sum(before)
    assert ours == pytest.approx(losses_with_plain_peft(plan, made), rel=1e-4)
    covered = read_with_peft(plan.model, plan.adapter)
    assert (covered.experts == 0) == (targets != "all-linear")
    again = open_model(training(tmp_path, "next", lora, continue_from=plan.adapter), no_report)
    assert [loss.total for loss in again.losses(made)] == pytest.approx(ours, rel=1e-6)


def test_a_resumed_run_on_experts_is_the_uninterrupted_one(
    examples: Callable[..., list[Example]], tmp_path: Path
) -> None:
    tiny_model("qwen3_moe", **FAMILIES["qwen3_moe"]).save_pretrained(tmp_path / "model")
    lora = LoraGroup(r=4, alpha=8, target_modules=EVERYTHING)
    data = Data(examples(*(6 + 7 * i % 25 for i in range(16))))

    def losses(name: str, stop_after: int | None) -> list[float]:
        events = Events()
        plan = training(tmp_path, name, lora, resume=stop_after is None)
        checkpoints = Checkpoints(tmp_path / f"{name} checkpoints")

        def stop() -> bool:
            return stop_after is not None and len(events.losses()) >= stop_after

        run_engine(plan, data, events, stop, checkpoints)
        return events.losses()

    whole = losses("whole", 99)
    parts = losses("parts", 2)
    assert len(parts) == 2
    assert parts + losses("parts", None) == whole


def in_mxfp4(folder: Path, into: Path) -> Path:
    """A gpt-oss with random experts in MXFP4, and its twin as transformers dequantises them, in `folder`."""
    from safetensors.torch import load_file, save_file
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    made = torch.manual_seed(3)
    whole = load_file(folder / "model.safetensors")
    stored = dict(whole)
    for name in [name for name in whole if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = stored.pop(name).shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), generator=made).to(torch.uint8)
        scales = torch.randint(120, 124, (experts, outputs, inputs // 32), generator=made).to(torch.uint8)
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        whole[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    into.mkdir()
    save_file(stored, into / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (into / "config.json").write_text(json.dumps(config))
    return into


@pytest.mark.parametrize("resident", [None, 0])
def test_experts_in_mxfp4_are_read_without_rounding(
    resident: int | None, examples: Callable[..., list[Example]], saved: Callable[[Any], Path], tmp_path: Path
) -> None:
    sizes = {**GPT_OSS, "hidden_size": 64, "intermediate_size": 32}
    whole = saved(tiny_model("gpt_oss", **sizes))
    folder = in_mxfp4(whole, tmp_path / "mxfp4")
    lora = LoraGroup(r=4, alpha=8, target_modules=EVERYTHING)
    assert select_engine(folder, lora, load_in_4bit=True, max_seq_length=64)[0] == "packed"
    batch = packed_batch(examples(17, 9, 30))
    found: list[torch.Tensor] = []
    for model in (whole, folder):
        plan = a_plan(
            model=model, adapter=tmp_path, lora=lora, load_in_4bit=model is folder, resident_layers=resident
        )
        step = load_packed_step(plan)
        step.lora.values.normal_(0, 0.05, generator=torch.manual_seed(1))
        step.refresh()
        step.forward_backward(batch, torch.tensor(0.1), seed=0)
        view = step.peft_model()
        with torch.no_grad():
            logits = view(input_ids=torch.arange(3, 20)[None], use_cache=False).logits
        found += [step.lora.gradients.clone(), step.label_losses(batch), logits]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found[:3], found[3:], strict=True))


def test_experts_without_a_lora_keep_neither_their_input_nor_their_activation(
    examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    folder = saved(tiny_model("mixtral", num_local_experts=4))
    decoder = load_decoder(folder, LoraGroup(r=4), "float32", "cpu", in_4bit=False)
    _, kept, _ = decoder.forward_keeping(packed_batch(examples(17, 9)), "gate_up")
    held = [kept[0].mlp.gate_up_lora_hidden, kept[0].mlp.down_lora_hidden]
    assert all(tensor.untyped_storage().nbytes() == 0 for tensor in held)
