"""The decoder's own weights as a transformers model, to generate with, also with LoRA: nothing is copied."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...models.multimodal import keep_language_model, language_model_class
from ...models.transformers_config import transformers_config
from ..autograd.peft_lora import bind_lora, peft_model
from ..lora_parameters import LoraModule
from ..plan import Plan
from .adapter_targets import adapter_targets
from .decoder import PackedDecoder
from .embedding import EmbeddingModule
from .expanded_linear import ExpandedExpertLinear, ExpandedLoraLinear
from .fp8_linear import Fp8LoraLinear, fp8_linears
from .load_weights import LAYER_TABLE, destinations

BUFFERS = ("e_score_correction_bias", "layer_scalar")


def peft_view(decoder: PackedDecoder, plan: Plan) -> Any:
    """A PEFT model whose base weights and LoRA matrices are views into the buffers of `decoder`."""
    base = base_view(decoder, plan.model)
    model = peft_model(base, plan.lora, *adapter_targets(decoder, plan.lora))
    bind_lora(model, decoder.lora)
    return model.eval()


def base_view(decoder: PackedDecoder, folder: Path) -> Any:
    """The transformers model of a folder whose weights are those of `decoder`."""
    config = transformers_config(folder)
    with torch.device("meta"):
        model: Any = language_model_class(config).from_config(config, dtype=decoder.dtype)
    keep_language_model(model)
    for name, view in destinations(decoder).items():
        module, _, kind = name.rpartition(".")
        frozen = nn.Parameter(view, requires_grad=False)
        setattr(model.get_submodule(module), kind, view if kind in BUFFERS else frozen)
    for layer in decoder.layers:
        for linear in layer.linears():
            if isinstance(linear, ExpandedLoraLinear):
                for module in linear.modules:
                    model.set_submodule(module.name, ExpandedModule(linear, module))
        for experts in layer.experts():
            if isinstance(experts, ExpandedExpertLinear):
                _expand_before_use(model, experts)
    for linear in fp8_linears(decoder.layers):
        for module in linear.modules:
            model.set_submodule(module.name, Fp8Module(linear, module, decoder.dtype))
    place = decoder.config.place
    _embed(model, f"{place}.embed_tokens", decoder.embedding, decoder)
    if decoder.layer_embeddings is not None:
        _embed(model, f"{place}.{LAYER_TABLE}", decoder.layer_embeddings.table, decoder)
    if decoder.config.tie_word_embeddings:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    # Its frequencies are in no checkpoint: from_pretrained computes them too, in fp32 whatever the dtype.
    body = model.get_decoder()
    if decoder.shards is not None:
        _in_passes(body, decoder)
    body.rotary_emb = type(body.rotary_emb)(config=body.config).to(decoder.device)
    model.generation_config = _generation_config(folder, model)
    return model


def _in_passes(body: Any, decoder: PackedDecoder) -> None:
    """Let each call of transformers' decoder be a pass, for which other ranks give their shards."""
    forward = body.forward

    @wraps(forward)
    def in_a_pass(*args: Any, **settings: Any) -> Any:
        with decoder.one_pass(backward=False):
            return forward(*args, **settings)

    body.forward = in_a_pass


def _embed(model: Any, name: str, matrix: Tensor, decoder: PackedDecoder) -> None:
    """Let an embedding take its rows from where the matrix lies, and multiply them as Gemma's does."""
    embedding: Any = model.get_submodule(name)
    scale = _scale(embedding, decoder.dtype)
    if matrix.device.type != decoder.device.type:
        made = EmbeddingModule(matrix, embedding.padding_idx, decoder.device, scale)
        model.set_submodule(name, made)
    elif scale is not None:
        embedding.embed_scale = scale.to(decoder.device)


def _scale(embedding: Any, dtype: torch.dtype) -> Tensor | None:
    """What Gemma's embedding multiplies its rows by, which is in no checkpoint."""
    scale = getattr(embedding, "scalar_embed_scale", None)
    return None if scale is None else torch.tensor(scale, dtype=dtype)


def _expand_before_use(model: Any, experts: ExpandedExpertLinear) -> None:
    """Let a parameter of experts be what these are expanded to, just before their module is used."""
    name, _, kind = experts.name.rpartition(".")
    module = model.get_submodule(name)
    weight = experts.weight.transpose(1, 2) if experts.sizes.transposed else experts.weight
    setattr(module, kind, nn.Parameter(weight, requires_grad=False))

    def expand(*_: object) -> None:
        experts.expand()

    module.register_forward_pre_hook(expand)


class ExpandedModule(nn.Linear):
    """A linear module whose weight is expanded when it is used; until then `weight` only tells its shape."""

    def __init__(self, linear: ExpandedLoraLinear, module: LoraModule) -> None:
        super().__init__(module.in_features, module.out_features, bias=False, device="meta")  # pyright: ignore[reportUnknownMemberType]
        self.weight = nn.Parameter(linear.weight[linear.rows_of(module)], requires_grad=False)
        if linear.bias is not None:
            self.bias = nn.Parameter(linear.bias[linear.rows_of(module)], requires_grad=False)
        self._linear, self._module = linear, module

    def forward(self, input: Tensor) -> Tensor:
        self._linear.expanded(self._module)  # `weight` is where it is; PEFT may have put its LoRA on it
        return F.linear(input, self.weight, self.bias)


class Fp8Module(nn.Linear):
    """A linear module whose weight is in FP8; `weight` only tells its shape, type and device."""

    def __init__(self, linear: Fp8LoraLinear, module: LoraModule, dtype: torch.dtype) -> None:
        super().__init__(module.in_features, module.out_features, bias=False, device="meta")  # pyright: ignore[reportUnknownMemberType]
        shape = torch.zeros((), dtype=dtype, device=linear.a.device).expand(self.weight.shape)
        self.weight = nn.Parameter(shape, requires_grad=False)
        self._linear, self._module = linear, module

    def forward(self, input: Tensor) -> Tensor:
        made = self._linear.frozen(input.flatten(0, -2), self._module)
        return made.view(*input.shape[:-1], -1)


def _generation_config(folder: Path, model: Any) -> Any:
    from transformers import GenerationConfig

    if not (folder / "generation_config.json").is_file():
        return model.generation_config
    return GenerationConfig.from_pretrained(folder, local_files_only=True)  # pyright: ignore[reportUnknownMemberType]
