"""A token that was never trained is known by its row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backpropagate.training.models.untrained_tokens import untrained_tokens


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "transformer.wte.weight", "lm_head.weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_zeros_or_a_repeated_row_is_of_a_token_that_was_never_trained(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    rows = torch.randn(8, 4, dtype=torch.float32).to(dtype)
    rows[5] = 0
    rows[6] = rows[7]
    save_file({name: rows, "other": torch.zeros(8, 4)}, tmp_path / "model.safetensors")
    assert untrained_tokens(tmp_path, [2, 5, 6, 99], others=[7]) == [5, 6]
    assert untrained_tokens(tmp_path, [6]) == []


def test_a_padding_row_of_the_embedding_says_nothing_of_a_token_that_the_head_knows(tmp_path: Path) -> None:
    embedding, head = torch.randn(8, 4), torch.randn(8, 4)
    embedding[5] = 0
    tensors = {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    save_file(tensors, tmp_path / "model.safetensors")
    assert untrained_tokens(tmp_path, [5]) == []


def test_weights_of_another_form_say_nothing(tmp_path: Path) -> None:
    assert untrained_tokens(tmp_path, [1]) == []
