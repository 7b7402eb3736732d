"""The table of config entries is Transformers' own, and what is not in it is named."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from backpropagate.training.models.known_config import (
    DEFAULTS,
    FURTHER,
    ROPE,
    WITHOUT_EFFECT,
    complete_config,
    impossible_entry,
    unknown_entry,
)

FROM_OTHERS = {"num_key_value_heads", "head_dim", "layer_types", "no_rope_layers", "sliding_window"}
"""Entries without a value of their own, for which Transformers computes one."""


@pytest.mark.parametrize("family", DEFAULTS)
def test_every_entry_of_transformers_is_known_with_its_default(family: str) -> None:
    theirs = AutoConfig.for_model(family).to_dict()
    known = WITHOUT_EFFECT | ROPE | {"layer_types"} | DEFAULTS[family].keys() | FURTHER.get(family, set())
    says_something = {name for name in theirs if unknown_entry({"model_type": family, name: theirs[name]})}
    assert not says_something - known - {"is_encoder_decoder"}
    for name, value in DEFAULTS[family].items():
        assert theirs.get(name) == value or (name in FROM_OTHERS and value is None), name


@pytest.mark.parametrize("family", DEFAULTS)
def test_what_transformers_saves_is_known(family: str) -> None:
    config = AutoConfig.for_model(family)
    for saved in (config.to_dict(), config.to_diff_dict()):
        assert unknown_entry({**saved, "model_type": family}) is None


def test_an_unknown_entry_that_is_set_is_named_and_one_that_is_not_is_nothing() -> None:
    for value in (None, False, {}, []):
        assert unknown_entry({"model_type": "llama", "mystery": value}) is None
    for value in (True, 0, 1, "x", [0], {"a": None}):
        assert unknown_entry({"model_type": "llama", "mystery": value}) == ("mystery", value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_attention_heads", value) for value in (0, -1, 1.5, True, "4", None)),
        *(("head_dim", value) for value in (0, 2.5)),
        *(("rms_norm_eps", value) for value in (float("nan"), float("inf"), 0.0, -1e-6, None, "1e-6")),
    ],
)
def test_a_size_that_no_model_has_is_named(name: str, value: object) -> None:
    config = complete_config({"model_type": "qwen3"})
    assert impossible_entry(config) is None
    assert (impossible_entry({**config, name: value}) or ("", None))[0] == name
