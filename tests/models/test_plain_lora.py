"""An adapter is plain LoRA if each entry of its config is known to leave it so; any other is named."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from peft import LoraConfig

from backpropagate.training.models.plain_lora import beyond_plain_lora

PLAIN = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], revision="main").to_dict()
READ_OTHERWISE = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "use_rslora"),
    *("layers_to_transform", "layers_pattern", "megatron_core", "eva_config", "qalora_group_size"),
    *("runtime_config",),
}
"""Fields of PEFT that have no effect on how A and B are added, or that the merge reads."""


def test_what_peft_writes_of_a_plain_adapter_is_plain() -> None:
    assert beyond_plain_lora(PLAIN) is None
    for initial in (True, False, "gaussian", "eva", "orthogonal"):
        assert beyond_plain_lora(PLAIN | {"init_lora_weights": initial, "use_rslora": True}) is None


@pytest.mark.parametrize(
    "name", sorted({field.name for field in fields(LoraConfig)} - READ_OTHERWISE | {"of_the_future"})
)
@pytest.mark.parametrize("value", [True, "x", 3, 0.5, {"a": 1}, [1]])
def test_every_other_entry_that_is_set_is_named(name: str, value: Any) -> None:
    if (name, value) == ("init_lora_weights", True):
        return
    assert f"'{name}' = {value!r}" in (beyond_plain_lora(PLAIN | {name: value}) or "")


@pytest.mark.parametrize(
    "initial", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "mica", "x\nNext: y"]
)
def test_a_start_that_takes_weights_out_of_the_base_is_named_on_one_line(initial: str) -> None:
    said = beyond_plain_lora(PLAIN | {"init_lora_weights": initial})
    assert said and "init_lora_weights" in said and "\n" not in said
