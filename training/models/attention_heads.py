"""The attention heads of each layer. In most models all layers have the same; in Gemma 4 they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Heads(NamedTuple):
    """Of one layer."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    values_of_keys: bool = False
    """Whether values are what the keys' projection gives: there is none of values."""
    keys_of: int | None = None
    """The earlier layer whose keys and values are used, where the layer projects none."""

    @property
    def own_kv_heads(self) -> int:
        """Heads of keys that the layer projects itself."""
        return 0 if self.keys_of is not None else self.num_kv_heads

    @property
    def turned(self) -> int:
        """Heads of queries and of own keys: those that are rotated, and normed."""
        return self.num_heads + self.own_kv_heads

    @property
    def all(self) -> int:
        """Heads of queries, and of own keys and values."""
        return self.turned + self.own_kv_heads

    @property
    def projected(self) -> tuple[int, int, int]:
        """Output sizes of the projections of queries, keys and values; 0 is none."""
        key = self.own_kv_heads * self.head_dim
        return self.num_heads * self.head_dim, key, 0 if self.values_of_keys else key


def head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def same_heads(config: Any) -> tuple[Heads, ...]:
    """Those of a model whose layers all have the same."""
    heads = Heads(config.num_attention_heads, config.num_key_value_heads, head_dim(config))
    return (heads,) * config.num_hidden_layers


def same_widths(config: Any) -> tuple[int, ...]:
    """The intermediate size of each layer's dense MLP."""
    return (config.intermediate_size,) * config.num_hidden_layers


# --- Gemma 4: larger heads in layers without a window, and later layers that use earlier ones' keys.

FULL, PERIOD, FULL_HEAD = "full_attention", 6, 512
"""Every sixth layer has no window, with heads of 512 dimensions, where the config does not say."""


def gemma4_kinds(config: Any) -> list[str]:
    """The kind of each layer; the last one has no window, whatever the config says."""
    layers = range(1, config.num_hidden_layers + 1)
    usual = ["sliding_attention" if layer % PERIOD else FULL for layer in layers]
    return [*(getattr(config, "layer_types", None) or usual)[:-1], FULL]


def gemma4_heads(config: Any) -> tuple[Heads, ...]:
    kinds, shared = gemma4_kinds(config), first_sharing_layer(config)
    own = [
        Heads(
            config.num_attention_heads,
            sizes.get("num_key_value_heads", config.num_key_value_heads),
            sizes.get("head_dim", config.head_dim),
            values_of_keys=bool(config.attention_k_eq_v) and kind == FULL,
        )
        for kind, sizes in zip(kinds, _own_sizes(config, kinds), strict=True)
    ]
    last = {kind: layer for layer, kind in enumerate(kinds[:shared])}
    sharing = [
        Heads(heads.num_heads, own[last[kind]].num_kv_heads, heads.head_dim, keys_of=last[kind])
        for kind, heads in zip(kinds[shared:], own[shared:], strict=True)
    ]
    return (*own[:shared], *sharing)


def gemma4_widths(config: Any) -> tuple[int, ...]:
    width, shared = config.intermediate_size, first_sharing_layer(config)
    wide = 2 * width if config.use_double_wide_mlp else width
    return (width,) * shared + (wide,) * (config.num_hidden_layers - shared)


def first_sharing_layer(config: Any) -> int:
    """From this layer on keys and values are those of earlier layers of the same kind."""
    return config.num_hidden_layers - (config.num_kv_shared_layers or 0)


def _own_sizes(config: Any, kinds: list[str]) -> list[Mapping[str, int]]:
    """What differs of each layer's heads: as transformers saves it, or as checkpoints are published."""
    given: Any = getattr(config, "per_layer_config", None)
    if isinstance(given, Mapping):
        by_layer: dict[int, Mapping[str, int]] = {int(layer): sizes for layer, sizes in given.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return [by_layer.get(layer, {}) for layer in range(len(kinds))]
    full = {"head_dim": getattr(config, "global_head_dim", None) or FULL_HEAD}
    few = getattr(config, "num_global_key_value_heads", None)
    if few is not None and config.attention_k_eq_v:
        full["num_key_value_heads"] = few
    return [full if kind == FULL else {} for kind in kinds]
