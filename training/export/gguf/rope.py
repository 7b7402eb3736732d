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

if TYPE_CHECKING:
    import gguf

    from ..merged.merge import Floats

KINDS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("llama", "mistral"), frozenset({"default", "linear", "yarn", "llama3"})),
    **dict.fromkeys(("smollm3", "qwen2", "qwen3"), frozenset({"default", "linear", "yarn"})),
    **dict.fromkeys(("gemma2", "gemma3_text"), frozenset({"default", "linear"})),
    "phi3": frozenset({"default", "longrope"}),
}
"""Scalings that llama.cpp computes, by Transformers' `model_type`."""
FIELDS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "yarn": frozenset({"factor", "original_max_position_embeddings"}),
    "llama3": frozenset(
        {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"}
    ),
    "longrope": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"}
    ),
}
"""What each scaling depends on. Others are refused if they are set."""
NEUTRAL = {"partial_rotary_factor": 1.0, "truncate": True, "beta_fast": 32, "beta_slow": 1}
"""Values with which a field that llama.cpp does not read says nothing."""
THETAS = {"smollm3": 2_000_000.0, "gemma3_text": 1_000_000.0}
USUAL_THETA = 10_000.0


@dataclass(frozen=True)
class Rope:
    """RoPE of the layers with full attention, and of those with a sliding window."""

    kind: str
    theta: float
    fields: Config
    window_theta: float | None = None

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
    if config["model_type"] == "gemma3_text":
        return _rope_of_gemma3(config)
    fields = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    return _rope(config, fields, config.get("rope_theta"))


def _rope_of_gemma3(config: Config) -> Rope:
    """Layers with a window have a base frequency of their own, and no scaling."""
    given: dict[str, Any] = dict(config.get("rope_parameters") or {})
    full: Config = given.pop("full_attention", None) or {}
    windowed: Config = given.pop("sliding_attention", None) or {}
    _refuse(config, given)
    rope = _rope(config, {**full, **(config.get("rope_scaling") or {})}, config.get("rope_theta"))
    inside = _rope(config, windowed, config.get("rope_local_base_freq") or USUAL_THETA)
    if inside.kind != "default":
        raise _unknown(config, f"RoPE scaling {inside.kind!r} in layers with a sliding window")
    return replace(rope, window_theta=inside.theta)


def _rope(config: Config, fields: Config, theta: float | None) -> Rope:
    family = config["model_type"]
    kind = str(fields.get("rope_type") or fields.get("type") or "default").lower()
    kind = "longrope" if kind == "su" or (family, kind) == ("phi3", "yarn") else kind
    if kind not in KINDS[family]:
        raise _unknown(config, f"RoPE scaling {quoted(kind)}")
    partial = config.get("partial_rotary_factor")
    _refuse(config, {"partial_rotary_factor": partial, **_others(kind, fields)})
    usual = THETAS.get(family, USUAL_THETA)
    return Rope(kind, fields.get("rope_theta") or theta or usual, _complete(config, kind, fields))


def _others(kind: str, fields: Config) -> Config:
    """What the scaling is not known to depend on."""
    known = FIELDS[kind] | {"rope_type", "type", "rope_theta"}
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


def _refuse(config: Config, fields: Config) -> None:
    for name, value in fields.items():
        if value is not None and value != NEUTRAL.get(name, False):
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
