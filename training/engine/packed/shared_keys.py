"""Keys and values that later layers use too, instead of own ones (Brandon et al. 2024, arXiv:2405.12981)."""

from __future__ import annotations

from torch import Tensor

from ...models.attention_heads import Heads

KeysValues = tuple[Tensor, Tensor]
"""Each (tokens, num_kv_heads, head_dim), as attention reads them."""


class SharedKeys:
    """Those of one micro-batch, from a layer's forward to its backward, with the sums of their gradients.

    Args:
        heads: of each layer.
    """

    def __init__(self, heads: tuple[Heads, ...]) -> None:
        self._used_later = {each.keys_of for each in heads}
        self._kept: dict[int, KeysValues] = {}
        self._gradients: dict[int, KeysValues] = {}

    def of(self, layer: int, heads: Heads, qkv: Tensor) -> KeysValues:
        """What a layer attends to: its own, which are in `qkv`, or an earlier layer's."""
        if heads.keys_of is not None:
            return self._kept[heads.keys_of]
        found = qkv[:, heads.num_heads : heads.turned], qkv[:, heads.turned :]
        if layer in self._used_later:
            self._kept[layer] = found
        return found

    def own_gradients(self, layer: int, heads: Heads, dk: Tensor, dv: Tensor) -> KeysValues:
        """The gradients of a layer's own keys and values, of no heads where it has none.

        Args:
            dk, dv: of what the layer attends to.
        """
        if heads.keys_of is not None:
            self._gradients[heads.keys_of] = self._with_later(heads.keys_of, dk, dv)
            return dk[:, :0], dv[:, :0]
        self._kept.pop(layer, None)
        return self._with_later(layer, dk, dv)

    def _with_later(self, layer: int, dk: Tensor, dv: Tensor) -> KeysValues:
        later = self._gradients.pop(layer, None)
        return (dk, dv) if later is None else (dk + later[0], dv + later[1])
