"""Rotary position embeddings (RoPE): read from a config, in its older or newer form, and written to GGUF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...errors import GgufExportError
from ...models.known_config import Config
from ...next_step import then
from ...untrusted import quoted, short_name
from .layer_kinds import GEMMA_4

if TYPE_CHECKING:
    import gguf

    from ..merged.merge import Floats

PLAIN_KINDS = frozenset({"default", "linear", "yarn"})
KINDS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("llama", "mistral", "granite"), frozenset({"default", "linear", "yarn", "llama3"})),
    **dict.fromkeys(("smollm3", "qwen2", "qwen3", "qwen3_moe", "seed_oss", "olmo2", "olmo3"), PLAIN_KINDS),
    **dict.fromkeys(
        ("gemma2", "gemma3_text", "ernie4_5", "glm4", "glm4_moe"), frozenset({"default", "linear"})
    ),
    "mixtral": PLAIN_KINDS | {"llama3"},
    "gpt_oss": frozenset({"yarn"}),
    **dict.fromkeys(("qwen3_5_text", *GEMMA_4), frozenset({"default"})),
    "phi3": frozenset({"default", "longrope"}),
    "ministral3": frozenset({"yarn"}),
    "exaone4": frozenset({"default", "linear", "llama3"}),
    "cohere2": frozenset({"default"}),
    "hunyuan_v1_dense": frozenset({"default", "linear", "dynamic"}),
}
"""Scalings that llama.cpp computes, by Transformers' `model_type`."""
FIELDS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "yarn": frozenset({"factor", "original_max_position_embeddings"}),
    "llama3": frozenset(
        {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"}
    ),
    "dynamic": frozenset({"alpha"}),
    "longrope": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"}
    ),
}
"""What each scaling depends on. Others are refused if they are set."""
MINISTRAL = frozenset({"mscale_all_dim", "llama_4_scaling_beta"})
"""Ministral 3's YaRN depends on these, too: its factors on attention, and on queries by their position."""
NEUTRAL = {"truncate": True, "beta_fast": 32, "beta_slow": 1}
"""Values with which a field that llama.cpp does not read says nothing."""
NEUTRAL_WITH_ALPHA = {**NEUTRAL, "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
BY_LAYER_TYPE = frozenset({"gemma3_text", "olmo3"})
"""Families with a RoPE of their own in layers with a sliding window."""
PARTIAL: Mapping[str, float] = {"phi3": 1.0, "glm4": 0.5, "glm4_moe": 0.5, "qwen3_5_text": 0.25}
"""Families that may leave dimensions of each head unrotated, with the usual share of rotated ones."""
THETAS = {
    "smollm3": 2_000_000.0,
    **dict.fromkeys(("gemma3_text", "mixtral"), 1_000_000.0),
    "gpt_oss": 150_000.0,
    **dict.fromkeys(("olmo3", "ernie4_5"), 500_000.0),
}
USUAL_THETA = 10_000.0
WINDOW_THETAS = {"olmo3": 500_000.0}


def head_dim(config: Config) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


@dataclass(frozen=True)
class Rope:
    """RoPE of the layers with full attention, and of those with a sliding window."""

    kind: str
    theta: float
    fields: Config
    window_theta: float | None = None
    share: float = 1.0
    """Of each head's dimensions, those that are rotated."""

    def dimensions(self, config: Config) -> int:
        """How many dimensions of each head are rotated."""
        return int(head_dim(config) * self.share)

    def ntk_theta(self, config: Config) -> float:
        """The base frequency that a fixed alpha makes of `theta` (NTK-aware scaling)."""
        size = head_dim(config)
        return self.theta * self.fields["alpha"] ** (size / (size - 2))

    def long_attention_factor(self, config: Config) -> float:
        """LongRoPE's factor on attention: sqrt(1 + ln(scale) / ln(original length)) (Ding et al. 2024)."""
        if self.fields.get("attention_factor") is not None:
            return self.fields["attention_factor"]
        original = self.fields["original_max_position_embeddings"]
        scale = self.fields.get("factor") or config["max_position_embeddings"] / original
        return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def rope_of(config: Config) -> Rope:
    """The RoPE settings of a config.

    Args:
        config: of one of the families in `KINDS`, with its sizes.

    Raises:
        GgufExportError: llama.cpp has no such scaling.
    """
    if config["model_type"] in GEMMA_4:
        return _rope_of_gemma4(config)
    if config["model_type"] in BY_LAYER_TYPE:
        return _rope_by_layer_type(config)
    fields = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    return _rope(config, fields, config.get("rope_theta"))


def _rope_of_gemma4(config: Config) -> Rope:
    """Layers without a window rotate the fastest frequencies of each head only."""
    given: dict[str, Any] = dict(config.get("rope_parameters") or {})
    full: dict[str, Any] = {**GEMMA4_FULL, **(given.pop("full_attention", None) or {})}
    windowed: Config = given.pop("sliding_attention", None) or {}
    _refuse(config, given)
    inside = _rope(config, windowed, None)
    kind: Any = full.pop("rope_type")
    theta: Any = full.pop("rope_theta")
    share: Any = full.pop("partial_rotary_factor")
    _refuse(config, full)
    if kind != "proportional" or not _is_positive(theta) or not _is_positive(share) or share > 1:
        raise _unknown(config, f"RoPE {quoted(kind)} with partial_rotary_factor {short_name(repr(share))}")
    return Rope("proportional", theta, {}, inside.theta, share)


GEMMA4_FULL: Config = {
    "rope_type": "proportional",
    "rope_theta": 1_000_000.0,
    "partial_rotary_factor": 0.25,
}


def _rope_by_layer_type(config: Config) -> Rope:
    """Layers with a window have a base frequency of their own, and no scaling."""
    given: dict[str, Any] = dict(config.get("rope_parameters") or {})
    full: Config = given.pop("full_attention", None) or {}
    windowed: Config = given.pop("sliding_attention", None) or {}
    _refuse(config, given)
    rope = _rope(config, {**full, **(config.get("rope_scaling") or {})}, config.get("rope_theta"))
    usual = WINDOW_THETAS.get(config["model_type"], USUAL_THETA)
    inside = _rope(config, windowed, config.get("rope_local_base_freq") or usual)
    if inside.kind != "default":
        raise _unknown(config, f"RoPE scaling {inside.kind!r} in layers with a sliding window")
    return replace(rope, window_theta=inside.theta)


def _rope(config: Config, fields: Config, theta: float | None) -> Rope:
    family = config["model_type"]
    kind = str(fields.get("rope_type") or fields.get("type") or "default").lower()
    kind = "longrope" if kind == "su" or (family, kind) == ("phi3", "yarn") else kind
    if kind not in KINDS[family]:
        raise _unknown(config, f"RoPE scaling {quoted(kind)}")
    share = _share(config, fields)
    _refuse(config, _others(family, kind, fields), NEUTRAL_WITH_ALPHA if kind == "dynamic" else NEUTRAL)
    usual = THETAS.get(family, USUAL_THETA)
    return Rope(
        kind, fields.get("rope_theta") or theta or usual, _complete(config, kind, fields), share=share
    )


def _share(config: Config, fields: Config) -> float:
    """Of each head's dimensions, those that are rotated."""
    usual = PARTIAL.get(config["model_type"], 1.0)
    found = fields.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    share = usual if found is None else found
    if config["model_type"] not in PARTIAL and share != 1.0:
        raise _unknown(config, f"'partial_rotary_factor' = {short_name(repr(found))} for RoPE")
    if not _is_positive(share) or share > 1 or int(head_dim(config) * share) % 2:
        raise _unknown(config, f"'partial_rotary_factor' = {short_name(repr(found))} for RoPE")
    return share


def _others(family: str, kind: str, fields: Config) -> Config:
    """What the scaling is not known to depend on."""
    known = FIELDS[kind] | {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    if family == "qwen3_5_text":
        known |= {"mrope_section", "mrope_interleaved"}
    if family == "gpt_oss":
        known |= {"truncate"}
    if family == "ministral3":
        known |= MINISTRAL | {"max_position_embeddings", "mscale"}
    usual = _usual_attention_factor(kind, fields)
    return {
        name: value
        for name, value in fields.items()
        if name not in known and not (name == "attention_factor" and value == usual)
    }


def _usual_attention_factor(kind: str, fields: Config) -> float | None:
    """YaRN's: 1 + 0.1 ln(factor) (Peng et al. 2023), the only one that llama.cpp has."""
    factor = fields.get("factor")
    return 1 + 0.1 * math.log(factor) if kind == "yarn" and factor and factor > 1 else None


def _complete(config: Config, kind: str, fields: Config) -> Config:
    """The scaling's fields as numbers; a length outside of them takes precedence."""
    if kind not in ("yarn", "llama3", "longrope"):
        _check_numbers(config, kind, fields)
        return fields
    outside = config.get("original_max_position_embeddings")
    inside = fields.get("original_max_position_embeddings")
    original = outside or inside or config["max_position_embeddings"]
    factor = fields.get("factor")
    if kind == "yarn":
        factor = factor or config["max_position_embeddings"] / original
    complete = {**fields, "original_max_position_embeddings": original, "factor": factor}
    _check_numbers(config, kind, complete)
    return complete


def _check_numbers(config: Config, kind: str, fields: Config) -> None:
    optional = {"attention_factor", "factor"} if kind == "longrope" else set[str]()
    for name in sorted(FIELDS[kind]):
        value = fields.get(name)
        numbers: Any = value if name.endswith(("short_factor", "long_factor")) else [value]
        if value is None and name in optional:
            continue
        if not isinstance(numbers, list) or not all(map(_is_positive, cast("list[Any]", numbers))):
            raise GgufExportError(
                f"config.json has {name} = {short_name(repr(value))} for the RoPE scaling {kind!r}; "
                "numbers above 0 were expected.",
                hint="Download the model again.",
            )


def _is_positive(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < math.inf


def _refuse(config: Config, fields: Config, neutral: Config = NEUTRAL) -> None:
    for name, value in fields.items():
        if value is not None and value != neutral.get(name, False):
            raise _unknown(config, f"{quoted(name)} = {short_name(repr(value))} for RoPE")


def _unknown(config: Config, what: str) -> GgufExportError:
    return GgufExportError(
        f"{what} of a {config['model_type']} model cannot be exported to GGUF.",
        hint="Export the merged model instead.",
        next=then("ask_again", format="merged"),
    )


def write_rope(writer: gguf.GGUFWriter, rope: Rope) -> None:
    """Base frequency and scaling, where llama.cpp computes the frequencies."""
    import gguf

    writer.add_rope_freq_base(rope.theta)
    if rope.window_theta is not None:
        writer.add_rope_freq_base_swa(rope.window_theta)
    fields = rope.fields
    if rope.kind in {"linear", "yarn"}:
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope.kind))
        writer.add_rope_scaling_factor(fields["factor"])
    if rope.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(fields["original_max_position_embeddings"])
        for name, add in (
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if fields.get(name) is not None:
                add(fields[name])


def llama3_factors(config: Config, rope: Rope) -> dict[str, Floats]:
    """Llama 3's scaling: what each rotary frequency is divided by, (head size / 2,).

    Wavelengths shorter than the original context are left, longer ones divided by `factor`, and in between
    the two are blended, as in the Llama 3.1 reference code.
    """
    if rope.kind != "llama3":
        return {}
    fields = rope.fields
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    wavelengths = np.float32(2 * math.pi) * np.float32(rope.theta) ** exponents
    factor, original = fields["factor"], fields["original_max_position_embeddings"]
    low, high = fields["low_freq_factor"], fields["high_freq_factor"]
    smooth = (original / wavelengths - low) / (high - low)
    blended: Floats = 1 / ((1 - smooth) / factor + smooth)
    blended[wavelengths > original / low] = factor
    blended[wavelengths < original / high] = 1.0
    return {"rope_freqs.weight": blended.astype(np.float32)}


def long_factors(config: Config, rope: Rope) -> dict[str, Floats]:
    """LongRoPE's two sets of divisors, each (head size / 2,)."""
    if rope.kind != "longrope":
        return {}
    return {
        f"rope_factors_{name}.weight": np.array(rope.fields[f"{name}_factor"], np.float32)
        for name in ("long", "short")
    }
