"""How each model family is stored in GGUF: its name there, its metadata, and how weights are laid out.

Metadata keys and layouts are those that llama.cpp reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...models.known_config import Config
from . import metadata
from .gemma4 import proportional_factors, write_gemma4
from .head_order import HeadOrder, head_order
from .layer_kinds import GEMMA_4
from .rope import Rope, llama3_factors, long_factors
from .row_layout import PLAIN_LAYOUT, RowLayout

if TYPE_CHECKING:
    from ..merged.merge import Floats


@dataclass(frozen=True)
class Architecture:
    """A model family as llama.cpp implements it."""

    name: str
    write: metadata.Write
    extra: Callable[[Config, Rope], dict[str, Floats]] = lambda config, rope: {}
    """Tensors that no checkpoint holds, by their GGUF names."""
    permuted: bool = False
    """Rotary pairs are adjacent in llama.cpp, and half a head apart in Transformers."""
    norm_shift: float = 0.0
    """What Transformers adds to the weight of a norm when it runs."""


def architecture_of(config: Config) -> Architecture:
    """The architecture of a model whose config `model_config` gave."""
    return ARCHITECTURES[config["model_type"]]


def _llama_like(name: str, write: metadata.Write = metadata.write_llama) -> Architecture:
    return Architecture(name, write, llama3_factors, permuted=True)


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": _llama_like("llama"),
    "mistral": _llama_like("llama"),
    "smollm3": _llama_like("smollm3"),
    "granite": _llama_like("granite", metadata.write_granite),
    "ministral3": _llama_like("mistral3", metadata.write_ministral3),
    "qwen2": Architecture("qwen2", metadata.write_plain),
    "qwen3": Architecture("qwen3", metadata.write_plain),
    "seed_oss": Architecture("seed_oss", metadata.write_plain),
    "ernie4_5": Architecture("ernie4_5", metadata.write_plain),
    "hunyuan_v1_dense": Architecture("hunyuan-dense", metadata.write_hunyuan),
    "gemma2": Architecture("gemma2", metadata.write_gemma2, norm_shift=1.0),
    "gemma3_text": Architecture("gemma3", metadata.write_gemma3, norm_shift=1.0),
    "phi3": Architecture("phi3", metadata.write_phi3, long_factors),
    "olmo2": Architecture("olmo2", metadata.write_plain),
    "olmo3": Architecture("olmo2", metadata.write_olmo3),
    "glm4": Architecture("glm4", metadata.write_glm4),
    "exaone4": Architecture("exaone4", metadata.write_exaone4, llama3_factors),
    "cohere2": Architecture("cohere2", metadata.write_cohere2),
    **dict.fromkeys(GEMMA_4, Architecture("gemma4", write_gemma4, proportional_factors)),
    "qwen3_5_text": Architecture("qwen35", metadata.write_qwen3_5, norm_shift=1.0),
    "mixtral": _llama_like("llama", metadata.write_mixtral),
    "qwen3_moe": Architecture("qwen3moe", metadata.write_qwen3_moe),
    "glm4_moe": Architecture("glm4moe", metadata.write_glm4_moe),
    "gpt_oss": Architecture("gpt-oss", metadata.write_gpt_oss),
}
"""By Transformers' `model_type`; SmolLM and SmolLM2 are of type llama, Phi-4 of type phi3."""


def row_layout(name: str, config: Config, architecture: Architecture) -> RowLayout | HeadOrder:
    """How the weight of this Transformers name is laid down."""
    if ".linear_attn." in name:
        return head_order(name, config) or PLAIN_LAYOUT
    if architecture.norm_shift and name.endswith("norm.weight"):
        return RowLayout(shift=architecture.norm_shift)
    if architecture.permuted and name.endswith(("q_proj.weight", "q_proj.bias")):
        return RowLayout(heads=config["num_attention_heads"])
    if architecture.permuted and name.endswith(("k_proj.weight", "k_proj.bias")):
        return RowLayout(heads=config["num_key_value_heads"])
    return PLAIN_LAYOUT
