"""What is done to queries and keys between their projection and attention: rotary positions, and their norm.

qkv is (tokens, num_heads + 2 · num_kv_heads, head_dim); value heads, which come last, stay, or are normed
without being rotated (Gemma 4). A layer that uses an earlier one's keys and values has queries alone. Llama's
and Qwen3's are those of `fused_ops`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, ParamSpec, Protocol

import torch
from torch import Tensor

from ...models.attention_heads import Heads
from .decoder_config import DecoderConfig
from .fused_ops import (
    fused_on_cuda,
    kernel_on_cuda,
    norm_rotate,
    norm_rotate_backward,
    rotate,
    rotate_backward,
)

P = ParamSpec("P")
Angles = tuple[Tensor, Tensor]
"""cos and sin of each position's angles, each (tokens, rotated dimensions / 2)."""


class TurnHeads(Protocol):
    def __call__(self, qkv: Tensor, angles: Angles, weight: Tensor | None, /) -> Tensor: ...


class TurnHeadsBackward(Protocol):
    def __call__(
        self, dq: Tensor, dk: Tensor, dv: Tensor, qkv: Tensor | None, angles: Angles, weight: Tensor | None, /
    ) -> Tensor: ...


class HeadRotation(NamedTuple):
    """Forward, and the gradient of qkv given those of queries, keys and values.

    weight: of the norm, (num_heads + num_kv_heads, head_dim), where there is one, with a row for each value
        head where these are normed too; qkv is needed then only.
    """

    forward: TurnHeads
    backward: TurnHeadsBackward


def head_rotation(config: DecoderConfig, heads: Heads) -> HeadRotation:
    """The functions of layers with these heads."""
    rotation = _with_own_values(config, heads)
    return _with_values_of_keys(rotation, heads) if heads.values_of_keys else rotation


def _with_own_values(config: DecoderConfig, heads: Heads) -> HeadRotation:
    family = config.family
    rotation = config.rotations[config.layer_rotations[config.heads.index(heads)]]
    whole = 2 * len(rotation.inverse_frequencies) == heads.head_dim
    like_llama = whole and not family.interleaved
    if family.qk_norm is None:
        return _rotation_alone(heads) if like_llama else _other_rotation(config, heads)
    if like_llama and (family.qk_norm, family.norm, family.rotated_before_norm) == ("head", "rms", False):
        return _like_qwen3(config)
    return _normed_rotation(config, heads)


def _with_values_of_keys(rotation: HeadRotation, heads: Heads) -> HeadRotation:
    """Of layers that project queries and keys alone: qkv before, and its gradient, have no values."""
    queries, keys = heads.num_heads, heads.num_kv_heads

    def forward(qkv: Tensor, angles: Angles, weight: Tensor | None) -> Tensor:
        return rotation.forward(torch.cat([qkv, qkv[:, queries:]], 1), angles, weight)

    def backward(
        dq: Tensor, dk: Tensor, dv: Tensor, qkv: Tensor | None, angles: Angles, weight: Tensor | None
    ) -> Tensor:
        whole = None if qkv is None else torch.cat([qkv, qkv[:, queries:]], 1)
        d_qkv = rotation.backward(dq, dk, dv, whole, angles, weight)
        d_q, d_k, d_v = d_qkv.split_with_sizes([queries, keys, keys], 1)
        return torch.cat([d_q, d_k + d_v], 1)

    return HeadRotation(forward, backward)


def _rotation_alone(heads: Heads) -> HeadRotation:
    rotated = heads.turned

    def forward(qkv: Tensor, angles: Angles, weight: Tensor | None) -> Tensor:
        return rotate(qkv, *angles, rotated)

    def backward(
        dq: Tensor, dk: Tensor, dv: Tensor, qkv: Tensor | None, angles: Angles, weight: Tensor | None
    ) -> Tensor:
        return rotate_backward(dq, dk, dv, *angles)

    return HeadRotation(forward, backward)


def _like_qwen3(config: DecoderConfig) -> HeadRotation:
    def forward(qkv: Tensor, angles: Angles, weight: Tensor | None) -> Tensor:
        assert weight is not None
        return norm_rotate(qkv, *angles, weight, config.norm_eps)

    def backward(
        dq: Tensor, dk: Tensor, dv: Tensor, qkv: Tensor | None, angles: Angles, weight: Tensor | None
    ) -> Tensor:
        assert qkv is not None and weight is not None
        return norm_rotate_backward(dq, dk, dv, qkv, *angles, weight, config.norm_eps)

    return HeadRotation(forward, backward)


def _other_rotation(config: DecoderConfig, heads: Heads) -> HeadRotation:
    rotated, interleaved = heads.turned, config.family.interleaved

    @kernel_on_cuda("rotation_kernels", "turn", rotated_heads=rotated, interleaved=interleaved)
    def turn(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned = _turned(qkv[:, :rotated].float(), cos, sin, interleaved)
        return torch.cat([turned.to(qkv.dtype), qkv[:, rotated:]], 1)

    @kernel_on_cuda("rotation_kernels", "turn_back", interleaved=interleaved)
    def turn_back(dq: Tensor, dk: Tensor, dv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned = _turned(torch.cat([dq, dk], 1).float(), cos, -sin, interleaved)
        return torch.cat([turned.to(dq.dtype), dv], 1)

    def forward(qkv: Tensor, angles: Angles, weight: Tensor | None) -> Tensor:
        return turn(qkv, *angles)

    def backward(
        dq: Tensor, dk: Tensor, dv: Tensor, qkv: Tensor | None, angles: Angles, weight: Tensor | None
    ) -> Tensor:
        return turn_back(dq, dk, dv, *angles)

    return HeadRotation(forward, backward)


def _normed_rotation(config: DecoderConfig, heads: Heads) -> HeadRotation:
    """RMSNorm of queries and keys, before the rotation or after it; of values alone."""
    queries, rotated = heads.num_heads, heads.turned
    with_norm = heads.all if config.family.value_norm else rotated
    family, eps, interleaved = config.family, config.norm_eps, config.family.interleaved
    shift = 1.0 if family.norm == "rms_plus_one" else 0.0

    has_kernel = family.qk_norm == "head" and with_norm == rotated and not family.rotated_before_norm
    of_kernel = {"eps": eps, "shift": shift, "rounded": False, "interleaved": interleaved}

    def fused(name: str) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
        return kernel_on_cuda("rotation_kernels", name, **of_kernel) if has_kernel else fused_on_cuda

    def mean(x: Tensor) -> Tensor:
        """Over what is normed together: (tokens, rotated, 1)."""
        means = x.mean(-1, keepdim=True)
        if family.qk_norm == "head":
            return means
        q, k = means.split_with_sizes([queries, rotated - queries], 1)
        return torch.cat([q.mean(1, keepdim=True).expand_as(q), k.mean(1, keepdim=True).expand_as(k)], 1)

    def normed(x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(mean(x * x) + eps) * (shift + weight.float())

    def normed_backward(d: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        r = torch.rsqrt(mean(x * x) + eps)
        g, unit = d * (shift + weight.float()), x * r
        return r * (g - unit * mean(g * unit))

    def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if with_norm == rotated:
            return _turned(x, cos, sin, interleaved)
        return torch.cat([_turned(x[:, :rotated], cos, sin, interleaved), x[:, rotated:]], 1)

    @fused("norm_turn")
    def turn(qkv: Tensor, cos: Tensor, sin: Tensor, weight: Tensor) -> Tensor:
        x = qkv[:, :with_norm].float()
        if family.rotated_before_norm:
            x = normed(turned(x, cos, sin), weight)
        else:
            x = turned(normed(x, weight), cos, sin)
        return torch.cat([x.to(qkv.dtype), qkv[:, with_norm:]], 1)

    @fused("norm_turn_back")
    def turn_back(
        dq: Tensor, dk: Tensor, dv: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, weight: Tensor
    ) -> Tensor:
        x, d = qkv[:, :with_norm].float(), torch.cat([dq, dk, dv], 1)
        d, rest = d[:, :with_norm].float(), d[:, with_norm:]
        if family.rotated_before_norm:
            d = normed_backward(d, turned(x, cos, sin), weight)
            d = turned(d, cos, -sin)
        else:
            d = normed_backward(turned(d, cos, -sin), x, weight)
        return torch.cat([d.to(qkv.dtype), rest], 1)

    def forward(qkv: Tensor, angles: Angles, weight: Tensor | None) -> Tensor:
        assert weight is not None
        return turn(qkv, *angles, weight)

    def backward(
        dq: Tensor, dk: Tensor, dv: Tensor, qkv: Tensor | None, angles: Angles, weight: Tensor | None
    ) -> Tensor:
        assert qkv is not None and weight is not None
        return turn_back(dq, dk, dv, qkv, *angles, weight)

    return HeadRotation(forward, backward)


def _turned(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Pairs of dimensions turned by their angle: (x_2i, x_2i+1) if interleaved, else (x_i, x_{i + d/2}).

    x (tokens, heads, head_dim); of cos and sin (tokens, d/2), where dimensions beyond d stay.
    """
    size = 2 * cos.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    first, second = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    pair = first * cos - second * sin, second * cos + first * sin
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([turned, rest], -1)
