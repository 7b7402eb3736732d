"""The sizes of a decoder, read from a Hugging Face config."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from ...models.attention_heads import Heads
from ...models.decoder_families import (
    LAYER_EMBEDDING_MODULES,
    Family,
    Switch,
    decoder_place,
    family_of,
)
from ...models.expert_layers import DOWN, GATE_UP, ExpertSizes, StoredNames, expert_sizes
from .rotary import Rotary, rotations


class ActivationLimits(NamedTuple):
    """Of gpt-oss's clamped SwiGLU."""

    alpha: float
    limit: float


GPT_OSS_LIMITS = ActivationLimits(1.702, 7.0)
"""Of published models, where the config does not say."""


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and switches of a decoder. `heads`, `widths`, `windows` and `layer_rotations` have one entry per
    layer.

    Of layers with experts, `widths` are not theirs.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    heads: tuple[Heads, ...]
    widths: tuple[int, ...]
    """Intermediate sizes of dense MLPs."""
    norm_eps: float
    tie_word_embeddings: bool
    qkv_bias: bool
    o_proj_bias: bool
    mlp_bias: bool
    windows: tuple[int | None, ...]
    """Positions that a token attends to, itself included; None is all before it."""
    rotations: tuple[Rotary, ...]
    layer_rotations: tuple[int, ...]
    """Which of `rotations` turns the layer's queries and keys."""
    place: str
    """The decoder's module in the model, and the first part of the names of its own."""
    activation: str
    """Of `gated_activations.ACTIVATIONS`."""
    attention_scale: float
    attention_cap: float | None = None
    """Scores become cap · tanh(score / cap); so do logits with `logits_cap`."""
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    """Factor on what attention and MLP add to the residual stream."""
    logits_scale: float = 1.0
    logits_cap: float | None = None
    token_layer_size: int = 0
    """Of the embedding that each token has for each layer; 0 without them."""
    token_layer_vocab: int = 0
    experts: ExpertSizes | None = None
    activation_limits: ActivationLimits = GPT_OSS_LIMITS

    @property
    def num_layers(self) -> int:
        return len(self.windows)

    @property
    def parameters(self) -> int:
        """Weights of all matrices that a token meets, also of a tied head; a step costs about 4 FLOP each."""
        attention = sum(sum(heads.projected) + heads.num_heads * heads.head_dim for heads in self.heads)
        widths = 3 * sum(self._width(layer) for layer in range(self.num_layers))
        widths += 3 * self.token_layer_size * self.num_layers
        return self.hidden_size * (attention + widths + self.vocab_size)

    def _width(self, layer: int) -> int:
        """What a token meets of a layer's MLP or experts."""
        experts = self.experts
        if experts is None or not experts.sparse[layer]:
            return self.widths[layer]
        return experts.chosen * experts.width + experts.shared_width


class LinearSizes(NamedTuple):
    """Linear modules of a layer that read the same input."""

    inputs: int
    outputs: dict[str, int]
    """By the module's name in its layer."""
    bias: bool


class LayerLinears(NamedTuple):
    """The linear modules of a layer. A layer with experts has those of its shared MLP, or no gate_up.

    The last two are of layers for which tokens have embeddings.
    """

    qkv: LinearSizes
    o_proj: LinearSizes
    gate_up: LinearSizes | None
    down_proj: LinearSizes | None
    embedding_gate: LinearSizes | None = None
    embedding_projection: LinearSizes | None = None

    def all(self) -> list[LinearSizes]:
        return [sizes for sizes in self if sizes is not None]


def layer_linears(config: DecoderConfig, layer: int) -> LayerLinears:
    hidden, family, projected = config.hidden_size, config.family, config.heads[layer].projected
    query, qkv = projected[0], _named("self_attn", family.qkv, projected)
    attention = (
        LinearSizes(hidden, qkv, config.qkv_bias),
        LinearSizes(query, {"self_attn.o_proj": hidden}, config.o_proj_bias),
    )
    block, inner = "mlp", config.widths[layer]
    if config.experts is not None and config.experts.sparse[layer]:
        experts = config.experts.family
        block, inner = f"{experts.block}{experts.shared}", config.experts.shared_width
        if not inner:
            return LayerLinears(*attention, None, None)
    gate_up = _named(block, family.gate_up, (inner, inner))
    return LayerLinears(
        *attention,
        gate_up=LinearSizes(hidden, gate_up, config.mlp_bias),
        down_proj=LinearSizes(inner, {f"{block}.down_proj": hidden}, config.mlp_bias),
        **_embedding_linears(config),
    )


def _embedding_linears(config: DecoderConfig) -> dict[str, LinearSizes]:
    size, (gate, projection, _) = config.token_layer_size, LAYER_EMBEDDING_MODULES
    if not size:
        return {}
    return {
        "embedding_gate": LinearSizes(config.hidden_size, {gate: size}, False),
        "embedding_projection": LinearSizes(size, {projection: config.hidden_size}, False),
    }


class ExpertLinearSizes(NamedTuple):
    """One linear of all experts of a layer."""

    name: str
    """In its layer."""
    experts: int
    inputs: int
    outputs: int
    bias: bool
    transposed: bool
    """Whether transformers keeps the matrices as (inputs, outputs)."""
    stored: StoredNames | None


def expert_name(sizes: ExpertLinearSizes) -> tuple[str, str]:
    """The block that it is in, and its name there, one of `EXPERT_TARGETS`."""
    block, experts, kind = sizes.name.partition("experts.")
    return block, experts + kind


def expert_linears(config: DecoderConfig, layer: int) -> tuple[ExpertLinearSizes, ...]:
    """Gate and up together, and down; none of a layer without experts."""
    experts = config.experts
    if experts is None or not experts.sparse[layer]:
        return ()
    hidden, count, block = config.hidden_size, experts.count, experts.family.block
    switches = experts.family.bias, experts.family.transposed, experts.family.stored
    return (
        ExpertLinearSizes(f"{block}{GATE_UP}", count, hidden, 2 * experts.width, *switches),
        ExpertLinearSizes(f"{block}{DOWN}", count, experts.width, hidden, *switches),
    )


def _named(block: str, names: tuple[str, ...], sizes: tuple[int, ...]) -> dict[str, int]:
    """Output sizes by module; one module has all of them, and there is none of size 0."""
    if len(names) == 1:
        return {f"{block}.{names[0]}": sum(sizes)}
    return {f"{block}.{name}": size for name, size in zip(names, sizes, strict=True) if size}


def read_decoder_config(config: Any) -> DecoderConfig:
    """The sizes of a model of one of `FAMILIES`, or with one inside. Ask `engine_choice` first."""
    tied = bool(config.tie_word_embeddings)
    config, place = decoder_place(config)
    family = family_of(config)
    entries = SimpleNamespace(**config.to_dict())
    heads = family.heads(entries)
    rotary, layer_rotations = rotations(config, family, heads)
    embedding = family.token_layer_size
    return DecoderConfig(
        family=family,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        heads=heads,
        widths=family.widths(entries),
        norm_eps=getattr(config, family.eps),
        tie_word_embeddings=tied,
        qkv_bias=_is_on(config, family.qkv_bias),
        o_proj_bias=_is_on(config, family.o_proj_bias),
        mlp_bias=_is_on(config, family.mlp_bias),
        windows=_windows(config, family),
        rotations=rotary,
        layer_rotations=layer_rotations,
        place=place,
        activation=getattr(config, family.activation),
        attention_scale=family.attention_scale(config),
        attention_cap=family.attention_cap(config),
        embedding_scale=family.embedding_scale(config),
        residual_scale=family.residual_scale(config),
        logits_scale=family.logits_scale(config),
        logits_cap=family.logits_cap(config),
        token_layer_size=0 if embedding is None else getattr(config, embedding),
        token_layer_vocab=0 if embedding is None else config.vocab_size_per_layer_input,
        experts=family.experts and expert_sizes(config, family.experts),
        activation_limits=ActivationLimits(
            getattr(config, "swiglu_alpha", GPT_OSS_LIMITS.alpha),
            getattr(config, "swiglu_limit", GPT_OSS_LIMITS.limit),
        ),
    )


def _is_on(config: Any, switch: Switch) -> bool:
    return switch if isinstance(switch, bool) else bool(getattr(config, switch, False))


def _windows(config: Any, family: Family) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    if family.window_everywhere:
        return (window,) * config.num_hidden_layers
    types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return tuple(window if kind == "sliding_attention" else None for kind in types)
