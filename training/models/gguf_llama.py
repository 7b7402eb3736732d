"""A Llama-shaped GGUF file → a model folder as transformers loads it.

GGUF names tensors and settings its own way, stores q and k with the rotary pairs side by side, and keeps
the tokenizer as lists of tokens and merges. What the quick start's model needs is read here, anything
else is refused by name. About 10 s for 135 M parameters; peak memory is the weights in the chosen dtype.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import ModelLoadError
from ..untrusted import quoted, shown_path

Metadata = dict[str, Any]
Dtype = Literal["float32", "bfloat16"]

TOP_LEVEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL_TOKEN = 3  # gguf.TokenType.CONTROL
SPECIAL_TOKENS = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}


class LlamaSizes(NamedTuple):
    """The sizes that the conversion needs."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int


def convert_gguf(
    source: Path, folder: Path, *, dtype: Dtype = "float32", on_tensor: Callable[[float], None] | None = None
) -> None:
    """Write the model of a GGUF file into `folder` (which exists): weights, configuration, tokenizer.

    Args:
        on_tensor: called after each tensor with the share that is done, 0 to 1; may raise to stop.

    Raises:
        ModelLoadError: the file is not a GGUF of a Llama-shaped model with a SmolLM tokenizer.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(source)
    except (ValueError, IndexError, OSError) as error:
        raise ModelLoadError(
            f"{shown_path(source)} cannot be read as a GGUF file: {type(error).__name__}.",
            cause=error,
            untrusted=str(error),
        ) from None
    metadata: Metadata = {name: field.contents() for name, field in reader.fields.items()}
    _check(source, metadata)
    sizes = _sizes(metadata)
    names = _save_weights(reader.tensors, sizes, folder, dtype, on_tensor or (lambda _share: None))
    tied = "lm_head.weight" not in names
    _save_json(folder / "config.json", _config(metadata, sizes, tied=tied, dtype=dtype))
    _save_json(folder / "generation_config.json", _token_ids(metadata))
    _save_tokenizer(metadata, folder)


def _check(source: Path, metadata: Metadata) -> None:
    expected = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
    }
    for name, value in expected.items():
        if metadata.get(name) != value:
            raise ModelLoadError(
                f"{shown_path(source)} has {name} = {quoted(metadata.get(name))}; only {value!r} is "
                "supported.",
                hint="Give a folder with the model's safetensors files instead.",
            )
    for name in metadata:
        if name.startswith(("llama.rope.scaling", "llama.expert")):
            raise ModelLoadError(f"{shown_path(source)} has {quoted(name)}, which cannot be converted.")


def _sizes(metadata: Metadata) -> LlamaSizes:
    return LlamaSizes(
        layers=int(metadata["llama.block_count"]),
        hidden=int(metadata["llama.embedding_length"]),
        feed_forward=int(metadata["llama.feed_forward_length"]),
        heads=int(metadata["llama.attention.head_count"]),
        kv_heads=int(metadata["llama.attention.head_count_kv"]),
    )


def _save_weights(
    tensors: list[Any], sizes: LlamaSizes, folder: Path, dtype: Dtype, on_tensor: Callable[[float], None]
) -> list[str]:
    import torch
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    names = [hf_name(tensor.name) for tensor in tensors]
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in zip(names, tensors, strict=True):
        weights[name] = torch.as_tensor(_values(tensor, sizes)).to(getattr(torch, dtype))
        on_tensor(len(weights) / len(names))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return names


def hf_name(name: str) -> str:
    """The name that transformers gives to a GGUF tensor: `blk.0.attn_q.weight` is layer 0's q_proj."""
    if name in TOP_LEVEL:
        return TOP_LEVEL[name]
    match name.split("."):
        case ["blk", layer, part, "weight"] if part in IN_LAYER:
            return f"model.layers.{layer}.{IN_LAYER[part]}.weight"
        case _:
            raise ModelLoadError(
                f"The GGUF file holds a tensor {quoted(name)}, which a Llama model does not have."
            )


def _values(tensor: Any, sizes: LlamaSizes) -> Any:
    """The tensor's numbers in float32, dequantised, rows first."""
    import numpy
    from gguf import dequantize

    values = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
    values = values.reshape([int(size) for size in reversed(tensor.shape)])
    if ".attn_q." in tensor.name:
        values = half_rotation(values, sizes.heads)
    elif ".attn_k." in tensor.name:
        values = half_rotation(values, sizes.kv_heads)
    return numpy.ascontiguousarray(values)


def half_rotation(weight: Any, heads: int) -> Any:
    """Reorder q's or k's rows from rotary pairs side by side (GGUF) to halves of a head (transformers).

    Args:
        weight: (heads * head_dim, hidden); rows 2i and 2i + 1 of a head form pair i.

    Returns:
        The same shape; rows i and i + head_dim / 2 of a head form pair i.
    """
    rows, hidden = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, hidden).swapaxes(1, 2).reshape(rows, hidden)


def _config(metadata: Metadata, sizes: LlamaSizes, *, tied: bool, dtype: Dtype) -> Metadata:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.feed_forward,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.hidden // sizes.heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": float(metadata["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": float(metadata.get("llama.rope.freq_base", 10_000.0)),
        "max_position_embeddings": int(metadata["llama.context_length"]),
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        "dtype": dtype,
        **_token_ids(metadata),
    }


def _token_ids(metadata: Metadata) -> dict[str, int]:
    ids = {role: metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "padding")}
    return {f"{SPECIAL_TOKENS[role]}_token_id": int(id) for role, id in ids.items() if id is not None}


def _save_tokenizer(metadata: Metadata, folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer: Any = Tokenizer(
        models.BPE(vocab={token: id for id, token in enumerate(tokens)}, merges=merges, fuse_unk=False)
    )
    # SmolLM's pre-tokenizer: each digit by itself, then bytes.
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    _save_json(folder / "tokenizer_config.json", _tokenizer_config(metadata, tokens))
    template = metadata.get("tokenizer.chat_template")
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="\n")


def _tokenizer_config(metadata: Metadata, tokens: list[str]) -> Metadata:
    ids = {role: metadata.get(f"tokenizer.ggml.{role}_token_id") for role in SPECIAL_TOKENS}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": int(metadata["llama.context_length"]),
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        **{f"{SPECIAL_TOKENS[role]}_token": tokens[id] for role, id in ids.items() if id is not None},
    }


def _save_json(path: Path, values: Metadata) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
