"""Rotary position embeddings (RoPE): read from a config, in its older or newer form, and written to GGUF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import GgufExportError
from ...next_step import then

if TYPE_CHECKING:
    import gguf

    from ..merged.merge import Floats

Config = Mapping[str, Any]

KINDS = ("default", "linear", "yarn", "llama3", "longrope")


@dataclass(frozen=True)
class Rope:
    """RoPE of the layers with full attention, and of those with a sliding window."""

    kind: str
    theta: float
    fields: Config
    window_theta: float | None = None

    def long_attention_factor(self, config: Config) -> float:
        """LongRoPE's factor on attention: sqrt(1 + ln(scale) / ln(original length)) (Ding et al. 2024)."""
        original = self.fields["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def rope_of(config: Config) -> Rope:
    """The RoPE settings of a config.

    Raises:
        GgufExportError: llama.cpp has no such scaling.
    """
    rope: Config = config.get("rope_parameters") or config.get("rope_scaling") or {}
    full: Config = rope.get("full_attention", rope)
    kind = str(full.get("rope_type") or full.get("type") or "default").lower()
    kind = "longrope" if kind == "su" else kind
    if kind not in KINDS:
        raise GgufExportError(
            f"RoPE scaling {kind!r} cannot be exported to GGUF.",
            hint="Export the merged model instead.",
            next=then("ask_again", format="merged"),
        )
    inherited = {
        name: config[name]
        for name in ("partial_rotary_factor", "original_max_position_embeddings")
        if config.get(name) is not None
    }
    theta = full.get("rope_theta", config.get("rope_theta", 10000.0))
    window: Config = rope.get("sliding_attention", {})
    window_theta = window.get("rope_theta", config.get("rope_local_base_freq"))
    return Rope(kind, theta, {**inherited, **full}, window_theta)


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
            ("extrapolation_factor", writer.add_rope_scaling_yarn_ext_factor),
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
    factor, original = fields.get("factor", 8.0), fields.get("original_max_position_embeddings", 8192)
    low, high = fields.get("low_freq_factor", 1.0), fields.get("high_freq_factor", 4.0)
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
