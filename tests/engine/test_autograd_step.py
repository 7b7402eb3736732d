"""The autograd step: any causal model, its LoRA in the flat buffer, packed or padded."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.autograd.base_model import WITHOUT_LORA
from backpropagate.training.engine.autograd.engine import AutogradStep, load_autograd_step
from backpropagate.training.engine.autograd.label_losses import LabelLosses
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.plan import Data, Example, Plan
from backpropagate.training.engine.run import run_engine
from backpropagate.training.errors import InputError, ModelLoadError

from .conftest import Events, a_plan, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, **NO_DROPOUT}),
    "gemma2": ("gemma2", {"head_dim": 12, "sliding_window": 8, "final_logit_softcapping": 5.0}),
    "gpt_neox": ("gpt_neox", {"use_parallel_residual": True}),
    "llama": ("llama", {}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4, "hidden_dropout": 0.0, "attention_dropout": 0.0}),
    "mamba": ("mamba", {"state_size": 4, "num_hidden_layers": 2}),
}
PACKS = {"gpt2": True, "gemma2": True, "gpt_neox": True, "llama": True, "bloom": False, "mamba": False}


@pytest.fixture
def plan_for(tmp_path: Path) -> Callable[..., Plan]:
    def make(family: str, **settings: Any) -> Plan:
        kind, overrides = FAMILIES[family]
        folder = tmp_path / family
        if not folder.exists():
            tiny_model(kind, **overrides).save_pretrained(folder)
        lora = settings.pop("lora", LoraGroup(r=4, alpha=8))
        return a_plan(model=folder, adapter=tmp_path / "adapter", lora=lora, **settings)

    return make


def randomised(step: AutogradStep) -> AutogradStep:
    torch.manual_seed(1)
    step.lora.values.normal_(0, 0.05)
    return step


def one_by_one(model: Any, examples: list[Example]) -> tuple[float, list[torch.Tensor]]:
    """Mean loss per label token and the LoRA gradients, each example alone and unpadded."""
    labels = sum(label != -100 for example in examples for label in example.labels[1:])
    total = torch.zeros(())
    for example in examples:
        logits = model(input_ids=torch.tensor([example.input_ids]), use_cache=False).logits[0, :-1]
        total = total + F.cross_entropy(logits, torch.tensor(example.labels[1:]), reduction="sum") / labels
    parameters = [p for p in model.parameters() if p.requires_grad]
    return total.item(), list(torch.autograd.grad(total, parameters))


@pytest.mark.parametrize("family", FAMILIES)
def test_any_causal_model_gets_the_loss_and_gradients_of_its_examples_one_by_one(
    family: str, plan_for: Callable[..., Plan], examples: Callable[..., list[Example]]
) -> None:
    targets = ("in_proj", "x_proj") if family == "mamba" else "all-linear"
    step = randomised(
        load_autograd_step(plan_for(family, lora=LoraGroup(r=4, alpha=8, target_modules=targets)))
    )
    assert step.packs is PACKS[family]
    made = examples(17, 9, 30, 2)
    batch = packed_batch(made)
    weight = torch.tensor(1 / batch.label_tokens)
    loss = step.forward_backward(batch, weight, seed=0)
    gradients = [p.grad.clone() for p in step.model.parameters() if p.requires_grad]
    expected, theirs = one_by_one(step.model, made)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(step.loss(batch) * weight) == pytest.approx(expected, rel=1e-5)
    for ours, their in zip(gradients, theirs, strict=True):
        assert (ours - their).norm() <= 2e-5 * their.norm()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_padding_gives_what_packing_gives(
    family: str, plan_for: Callable[..., Plan], examples: Callable[..., list[Example]]
) -> None:
    step = randomised(load_autograd_step(plan_for(family)))
    batch = packed_batch(examples(17, 9, 30))
    weight = torch.tensor(1 / batch.label_tokens)
    packed = step.forward_backward(batch, weight, seed=0)
    gradients = step.lora.gradients.clone()
    step.lora.gradients.zero_()
    step.packs = False
    padded = step.forward_backward(batch, weight, seed=0)
    assert float(packed) == pytest.approx(float(padded), rel=1e-5)
    assert (gradients - step.lora.gradients).norm() <= 1e-5 * gradients.norm()


@pytest.mark.parametrize("family", ["openai-gpt", "xglm"])
def test_learned_positions_do_not_hide_that_a_model_mixes_what_lies_end_to_end(
    family: str, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"n_embd": 48, "d_model": 48, "n_layer": 2, "num_layers": 2, "n_head": 4, "attention_heads": 4}
    config = AutoConfig.for_model(family, vocab_size=128, ffn_dim=96, n_positions=64, **sizes)
    model = AutoModelForCausalLM.from_config(config)  # small weights: attention changes little
    assert not LabelLosses(model, model, torch.device("cpu")).packs


def test_a_model_that_chooses_its_keys_gets_longer_examples_one_at_a_time(
    plan_for: Callable[..., Plan], examples: Callable[..., list[Example]]
) -> None:
    FAMILIES["choosing"] = (
        "deepseek_v32",
        {
            "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8, "v_head_dim": 16, "head_dim": 8, "index_topk": 8, "index_head_dim": 16,
            "index_n_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
            "num_experts_per_tok": 2, "moe_intermediate_size": 16, "mlp_layer_types": ["dense", "sparse"],
        },
    )  # fmt: skip
    step = randomised(load_autograd_step(plan_for("choosing")))
    assert not any("indexer" in module.name for module in step.lora.modules())
    made = examples(17, 9, 30, 2)
    batch = packed_batch(made)
    expected, _ = one_by_one(step.model, made)
    assert float(step.loss(batch) / batch.label_tokens) == pytest.approx(expected, rel=1e-5)


def test_both_engines_train_a_llama_alike(
    plan_for: Callable[..., Plan], examples: Callable[..., list[Example]], tmp_path: Path
) -> None:
    plan = plan_for("llama", steps=8, batch_size=4, learning_rate=5e-3, eval_every=4, recompute="everything")
    data = Data(examples(17, 9, 30, 12, 21, 8, vocab=12), examples(20, 11, seed=5, vocab=12))
    packed, differentiated = Events(), Events()
    run_engine(plan, data, packed, lambda: False, Checkpoints(tmp_path / "c"))
    outcome = run_engine(
        plan.changed(engine="autograd"), data, differentiated, lambda: False, Checkpoints(tmp_path / "d")
    )
    assert outcome.engine == "autograd"
    assert differentiated.losses() == pytest.approx(packed.losses(), rel=1e-4)
    assert outcome.eval_loss == pytest.approx(packed.of("eval")[-1]["loss"], rel=1e-4)


def test_a_resumed_run_is_the_same_bit_for_bit_with_dropout_of_base_and_lora(
    plan_for: Callable[..., Plan], examples: Callable[..., list[Example]], tmp_path: Path
) -> None:
    FAMILIES["dropping gpt2"] = ("gpt2", {**FAMILIES["gpt2"][1], "resid_pdrop": 0.1})
    plan = plan_for(
        "dropping gpt2", lora=LoraGroup(r=4, dropout=0.1), steps=6, batch_size=2, learning_rate=1e-2
    )
    data = Data(examples(17, 9, 30, 12))
    whole, first, rest = Events(), Events(), Events()
    run_engine(plan.changed(engine="autograd"), data, whole, lambda: False, Checkpoints(tmp_path / "c"))
    adapter = (plan.adapter / "adapter_model.safetensors").read_bytes()
    checkpoints = Checkpoints(tmp_path / "d")
    run_engine(plan.changed(engine="autograd"), data, first, lambda: len(first.of("step")) >= 3, checkpoints)
    run_engine(plan.changed(engine="autograd", resume=True), data, rest, lambda: False, checkpoints)
    assert first.losses() + rest.losses() == whole.losses()
    assert (plan.adapter / "adapter_model.safetensors").read_bytes() == adapter


@pytest.mark.parametrize("targets", ["all-linear", "attention", ("c_fc",)])
def test_the_adapter_of_a_model_with_transposed_weights_loads_in_plain_peft(
    targets: Any, plan_for: Callable[..., Plan], examples: Callable[..., list[Example]], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plan = plan_for("gpt2", lora=LoraGroup(r=4, target_modules=targets), steps=2, learning_rate=1e-2)
    data = Data(examples(17, 9), examples(12))
    outcome = run_engine(
        plan.changed(engine="autograd"), data, Events(), lambda: False, Checkpoints(tmp_path / "c")
    )
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(plan.model), str(plan.adapter))
    batch = packed_batch(data.held_out)
    logits = loaded(input_ids=batch.input_ids[None]).logits[0, batch.label_positions]
    assert F.cross_entropy(logits, batch.targets).item() == pytest.approx(outcome.eval_loss, rel=1e-5)


def test_attention_means_the_attention_of_any_architecture(plan_for: Callable[..., Plan]) -> None:
    step = load_autograd_step(plan_for("gpt_neox", lora=LoraGroup(r=4, target_modules="attention")))
    names = {module.name.rpartition(".")[2] for module in step.lora.modules()}
    assert names == {"query_key_value", "dense"}
    assert not any("mlp" in module.name for module in step.lora.modules())


def test_a_target_that_does_not_exist_is_refused_with_the_nearest(plan_for: Callable[..., Plan]) -> None:
    with pytest.raises(InputError, match="no linear module 'q_prj'") as caught:
        load_autograd_step(plan_for("llama", lora=LoraGroup(target_modules=("q_prj",))))
    assert caught.value.hint == "Did you mean q_proj?"


def test_what_peft_cannot_adapt_is_refused(plan_for: Callable[..., Plan]) -> None:
    with pytest.raises(InputError, match="PEFT refuses these target modules"):
        load_autograd_step(plan_for("mamba", lora=LoraGroup(target_modules=("in_proj", "out_proj"))))


def test_modules_whose_weight_a_layer_reads_itself_get_no_lora_unless_they_are_named(
    plan_for: Callable[..., Plan],
) -> None:
    step = load_autograd_step(plan_for("mamba"))
    assert {module.name.rpartition(".")[2] for module in step.lora.modules()} == {"in_proj"}


def test_every_layer_of_transformers_that_reads_a_linear_module_s_weight_is_known() -> None:
    # Such a module's forward, and so the LoRA that PEFT puts around it, is not called.
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = {(kind.removesuffix("_text"), name) for kind, names in WITHOUT_LORA.items() for name in names}
    folder = Path(find_spec("transformers").origin).parent / "models"  # pyright: ignore
    reads = re.compile(r"self\.(\w*(?:_proj|classifier|_coefs))\.weight(?:,| @|\.type\(|\.clamp\()")
    found = {
        (path.parent.name, name)
        for path in folder.glob("*/modeling_*.py")
        if path.parent.name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        for name in reads.findall(path.read_text("utf-8"))
    }
    lost_by_peft = {("laguna", "shared_experts"), ("inkling2", "weight_proj")}
    assert found == known - lost_by_peft


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="could not be loaded"):
        load_autograd_step(a_plan(model=tmp_path, adapter=tmp_path / "adapter"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_base_in_four_bits_is_trained(
    plan_for: Callable[..., Plan], examples: Callable[..., list[Example]], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    plan = plan_for("llama", load_in_4bit=True, steps=6, batch_size=4, learning_rate=1e-2, warmup_steps=0)
    plan = plan.changed(eval_every=2)
    events = Events()
    data = Data(examples(17, 9, 30, 12, vocab=12))
    data = Data(data.train, data.train)
    outcome = run_engine(
        plan.changed(engine="autograd"), data, events, lambda: False, Checkpoints(tmp_path / "c")
    )
    assert events.losses()[-1] < events.losses()[0] - 0.2
    assert outcome.eval_loss is not None and outcome.eval_loss < events.losses()[-1]
