"""A tiny causal model with a byte-level tokenizer and a ChatML template, made on the spot."""

from __future__ import annotations

import warnings
from pathlib import Path

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tiny_model(folder: Path, **shape: int) -> Path:
    """Write the model's folder and return it. `shape`: sizes of its config that shall be others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        special = ["<|im_start|>", "<|im_end|>"]
        inner = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate([*special, *letters])}, merges=[]))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        inner.add_special_tokens(special)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=CHATML
        )
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        sizes = {
            "vocab_size": len(letters) + len(special),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "eos_token_id": 1,
            "pad_token_id": 1,
        }
        LlamaForCausalLM(LlamaConfig(**{**sizes, **shape})).save_pretrained(folder)
    return folder


def build_quick_learner(folder: Path) -> Path:
    """The tiny model with larger weights, on which a LoRA takes hold at once."""
    import torch
    from transformers import AutoModelForCausalLM

    build_tiny_model(folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for name, weight in model.named_parameters():
        weight.data += torch.randn_like(weight) * (0.02 if "norm" in name else 0.15)
    model.save_pretrained(folder)
    return folder
