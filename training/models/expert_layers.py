"""Layers that choose among experts: what families differ in, and the sizes of a model.

Such a layer's MLP is a router, which chooses some of many gated MLPs for each token and weighs their outputs,
and in some families a shared MLP that all tokens go through. Transformers keeps the experts of a layer as two
parameters, `experts.gate_up_proj` and `experts.down_proj`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

GATE_UP, DOWN = "experts.gate_up_proj", "experts.down_proj"
EXPERT_TARGETS = (GATE_UP, DOWN)
"""Names in `target_modules` with which experts get a LoRA: one for gate and up together, and one for down."""
LARGEST_MATRIX = 2**31 - 1
"""Numbers of all experts together that kernels can address."""

Config = Mapping[str, Any]
Routing = Literal["softmax", "softmax of chosen", "sigmoid in groups"]


class StoredNames(NamedTuple):
    """How a checkpoint calls the matrices of each expert, and the block that they are in."""

    block: str
    gate: str
    up: str
    down: str


PER_EXPERT = StoredNames("mlp", "gate_proj", "up_proj", "down_proj")


def _every_layer(config: Any) -> list[bool]:
    return [True] * config.num_hidden_layers


def _stepped_layers(config: Any) -> list[bool]:
    dense: set[int] = set(config.mlp_only_layers or ())
    step: int = config.decoder_sparse_step
    return [layer not in dense and (layer + 1) % step == 0 for layer in range(config.num_hidden_layers)]


def _later_layers(config: Any) -> list[bool]:
    return [layer >= config.first_k_dense_replace for layer in range(config.num_hidden_layers)]


@dataclass(frozen=True)
class Experts:
    """Switches of a family with experts. `count`, `width` and `chosen` are entries of its config."""

    count: str = "num_experts"
    width: str = "moe_intermediate_size"
    chosen: str = "num_experts_per_tok"
    sparse: Callable[[Any], list[bool]] = _every_layer
    """Which layers have experts; the others have a dense MLP."""
    dense: bool = False
    """Whether there may be such others."""
    block: str = "mlp."
    """What stands before the names of router and experts in a layer."""
    beside: bool = False
    """Whether the shared MLP and the experts are blocks of their own, each between its norms."""
    named_by_peft: bool = True
    """Whether PEFT takes an MLP's `gate_proj` and its like for the experts."""
    router: str = "gate"
    routing: Routing = "softmax"
    normalised: str | bool = "norm_topk_prob"
    """Whether the weights of a token's experts are divided by their sum."""
    rounded: bool = True
    """Whether these weights have the model's type; else they stay in fp32."""
    bias: bool = False
    """Of the router and of each expert."""
    transposed: bool = False
    """Whether matrices are (inputs, outputs)."""
    stored: StoredNames | None = PER_EXPERT
    """None: a checkpoint has the matrices of all experts as one tensor, as transformers has them."""
    shared: str | None = None
    """Module of the shared MLP in the block, which has the gated MLP's linears."""
    shared_width: Callable[[Any], int] = lambda config: 0
    shared_gate: str | None = None
    """Module whose sigmoid the shared output is multiplied by."""
    activation: str | None = None
    """Of the experts, where it is not the one that the config names."""


MIXTRAL = Experts(
    "num_local_experts",
    "intermediate_size",
    normalised=True,
    rounded=False,
    stored=StoredNames("block_sparse_moe", "w1", "w3", "w2"),
)
QWEN3 = Experts("num_local_experts", sparse=_stepped_layers, dense=True)
QWEN2 = Experts(
    sparse=_stepped_layers,
    dense=True,
    shared="shared_expert",
    shared_width=lambda config: config.shared_expert_intermediate_size,
    shared_gate="shared_expert_gate",
)
GPT_OSS = Experts(
    "num_local_experts",
    "intermediate_size",
    router="router",
    routing="softmax of chosen",
    normalised=False,
    bias=True,
    transposed=True,
    stored=None,
    activation="clamped_swiglu",
)
GLM4 = Experts(
    "n_routed_experts",
    sparse=_later_layers,
    dense=True,
    routing="sigmoid in groups",
    rounded=False,
    shared="shared_experts",
    shared_width=lambda config: config.moe_intermediate_size * config.n_shared_experts,
)

GEMMA4 = Experts(
    chosen="top_k_experts",
    block="",
    beside=True,
    named_by_peft=False,
    router="router.proj",
    normalised=True,
    rounded=False,
    stored=None,
    shared="mlp",
    shared_width=lambda config: config.intermediate_size,
)


@dataclass(frozen=True)
class ExpertSizes:
    """Of one model.

    Args:
        count: experts of a layer.
        chosen: of them, for each token.
        width: an expert's intermediate size.
        shared_width: the shared MLP's; 0 without one.
        sparse: whether a layer has experts, for each layer.
        scale: factor on the experts' weights.
        groups, chosen_groups: the experts are in so many groups, and chosen from the best of them.
    """

    family: Experts
    count: int
    chosen: int
    width: int
    shared_width: int
    sparse: tuple[bool, ...]
    normalised: bool
    scale: float = 1.0
    groups: int = 1
    chosen_groups: int = 1


def expert_sizes(config: Any, family: Experts) -> ExpertSizes:
    """Args:
    config: transformers' config, or the completed entries of a config.json as attributes.
    """
    normalised = family.normalised
    grouped = family.routing == "sigmoid in groups"
    return ExpertSizes(
        family,
        count=getattr(config, family.count),
        chosen=getattr(config, family.chosen),
        width=getattr(config, family.width),
        shared_width=family.shared_width(config),
        sparse=tuple(family.sparse(config)),
        normalised=normalised if isinstance(normalised, bool) else bool(getattr(config, normalised)),
        scale=config.routed_scaling_factor if grouped else 1.0,
        groups=config.n_group if grouped else 1,
        chosen_groups=config.topk_group if grouped else 1,
    )


def target_name(name: str) -> str:
    """What a name in `target_modules` means in each layer: its last part, or of experts the last two."""
    last = ".".join(name.split(".")[-2:])
    return last if last in EXPERT_TARGETS else name.rpartition(".")[2]


def is_mxfp4(config: Config) -> bool:
    """Whether a config.json says that experts are stored in MXFP4, as gpt-oss is published."""
    stored: object = config.get("quantization_config")
    return isinstance(stored, Mapping) and cast("Config", stored).get("quant_method") == "mxfp4"
