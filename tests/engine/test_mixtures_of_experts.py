"""Mixtures of experts: what gets a LoRA loads in plain PEFT, and what gets none is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.plain_peft import read_with_peft
from backpropagate.training.engine.plan import Data, Example, Plan
from backpropagate.training.engine.run import run_engine
from backpropagate.training.errors import InputError, TrainingError

from .conftest import Events, a_plan, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
ROUTED = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "glm4_moe": {**ROUTED, "moe_intermediate_size": 48, "head_dim": 16, "first_k_dense_replace": 1},
    "qwen3_moe": {**EXPERTS, "head_dim": 16, "mlp_only_layers": [0]},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 48},
    "mixtral": {"num_local_experts": 4},
    "phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def trained(family: str, folder: Path, examples: list[Example], **lora: Any) -> Plan:
    tiny_model(family, **FAMILIES[family]).save_pretrained(folder / "model")
    plan = a_plan(
        model=folder / "model", adapter=folder / "adapter", engine="autograd", steps=2, learning_rate=1e-2,
        lora=LoraGroup(r=4, alpha=8, **lora),
    )  # fmt: skip
    run_engine(plan, Data(examples), Events(), lambda: False, Checkpoints(folder / "checkpoints"))
    return plan


@pytest.mark.parametrize("family", FAMILIES)
def test_the_adapter_of_a_mixture_of_experts_loads_in_plain_peft_and_names_what_it_leaves_out(
    family: str, tmp_path: Path, examples: Callable[..., list[Example]]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plan = trained(family, tmp_path, examples(17, 9, 12))
    base = AutoModelForCausalLM.from_pretrained(plan.model)
    ids = torch.tensor([examples(20)[0].input_ids])
    before = base(input_ids=ids).logits
    loaded = PeftModel.from_pretrained(base, str(plan.adapter))
    assert not torch.equal(loaded(input_ids=ids).logits, before)
    covered = read_with_peft(plan.model, plan.adapter)
    assert 0 < covered.share < 0.5 and covered.experts > 0.2
    assert covered.share + sum(covered.left_out.values()) == pytest.approx(1, abs=0.05)


def test_modules_that_peft_takes_for_experts_are_refused_by_name(
    tmp_path: Path, examples: Callable[..., list[Example]]
) -> None:
    with pytest.raises(InputError, match=r"takes down_proj, gate_proj, up_proj for the experts"):
        trained(
            "qwen3_moe", tmp_path, examples(9), target_modules=["q_proj", "gate_proj", "up_proj", "down_proj"]
        )


def test_an_adapter_that_peft_would_read_in_part_is_no_finished_adapter(
    tmp_path: Path, examples: Callable[..., list[Example]]
) -> None:
    plan = trained("mixtral", tmp_path, examples(9))
    file = plan.adapter / "adapter_model.safetensors"
    whole = load_file(file)
    name = next(name for name in whole if "q_proj.lora_B" in name)
    save_file({key: value for key, value in whole.items() if key != name}, file)
    with pytest.raises(
        TrainingError, match=r"layers\.0\.self_attn\.q_proj\.lora_B\.weight is None in the file"
    ):
        read_with_peft(plan.model, plan.adapter)
    save_file({**whole, name: whole[name][:-1].contiguous()}, file)
    with pytest.raises(TrainingError, match="PEFT cannot load the adapter"):
        read_with_peft(plan.model, plan.adapter)
