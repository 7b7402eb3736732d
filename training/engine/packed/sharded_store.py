"""The layers' frozen weights, sharded over the ranks of a host: each keeps an equal piece of each layer.

A shard is a piece of a layer's buffer of bytes, whatever weights it cuts through. Before a layer is used, its
shards are gathered into a slot of each rank while the layers before it are used, as ZeRO-3 and FSDP do
(Rajbhandari et al. 2020, arXiv:1910.02054; Zhao et al. 2023, arXiv:2304.11277). As the weights are frozen,
no gradient of them is ever reduced.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..parallel.ranks import Ranks
from .host_memory import host_buffer
from .layer_store import streamed_layers
from .passes import Passes
from .stored_weights import ALIGNMENT, LayerLayout, StoredWeight
from .weight_stream import WeightStream


class ShardedStore:
    """This rank's shards of all layers. They are filled layer by layer: see `keep`.

    Args:
        resident: number of layers whose shards stay on the device, spread evenly; those of the others lie in
            host memory.
    """

    def __init__(
        self, layouts: Sequence[LayerLayout], device: torch.device, resident: int, ranks: Ranks
    ) -> None:
        self._ranks, self._layouts = ranks, layouts
        self._sizes = [shard_bytes(layout.bytes, ranks.here) for layout in layouts]
        in_host = streamed_layers(len(layouts), resident)
        self._shards = [
            host_buffer(size, device)
            if layer in in_host
            else torch.empty(size, dtype=torch.uint8, device=device)
            for layer, size in enumerate(self._sizes)
        ]
        self.unpinned = [
            layer for layer in in_host if device.type == "cuda" and not self._shards[layer].is_pinned()
        ]
        """Layers whose shards could not be pinned in host memory: copying them holds up the host."""
        whole = max(self._sizes) * ranks.here
        self._stream = WeightStream(dict(enumerate(layouts)), self._fetch, whole, device)
        self.passes = Passes(len(layouts), ranks, self._stream.bring)
        self._set_views(torch.empty(whole, dtype=torch.uint8, device=device))

    def streams(self, layer: int) -> bool:
        """Every layer is gathered each time."""
        return True

    def kept(self, layer: int) -> dict[str, StoredWeight]:
        """A layer's weights, by module: to be filled before `keep` of this layer; later they tell shapes."""
        return self._views[layer]

    def keep(self, layer: int) -> None:
        """Take this rank's shard of what the layer was filled with. All layers are filled in one place."""
        self._shards[layer].copy_(self._place_of(layer, self._whole))

    def loaded(self) -> None:
        """Give back the place in which layers were filled."""
        if self._whole.is_cuda:
            torch.cuda.synchronize(self._whole.device)  # another stream reads the shards from now on
        self._set_views(torch.empty_like(self._whole, device="meta"))

    def on_device(self, layer: int) -> dict[str, StoredWeight]:
        """A layer's weights on the device, until those of another one are asked for; in a pass only."""
        self.passes.reach(layer)
        return self._stream.bring(layer)

    def _set_views(self, whole: Tensor) -> None:
        self._whole = whole
        self._views = [layout.views(whole) for layout in self._layouts]

    def _place_of(self, layer: int, whole: Tensor) -> Tensor:
        start = self._ranks.rank % self._ranks.here * self._sizes[layer]
        return whole[start : start + self._sizes[layer]]

    def _fetch(self, layer: int, slot: Tensor) -> None:
        shard = self._shards[layer]
        if shard.device != slot.device:
            shard = self._place_of(layer, slot).copy_(shard, non_blocking=True)
        self._ranks.gather(slot[: self._ranks.here * self._sizes[layer]], shard)


def shard_bytes(size: int, ranks: int) -> int:
    """Bytes of each of so many equal shards of `size` bytes; the last one may have a filled up end."""
    return -(-size // (ranks * ALIGNMENT)) * ALIGNMENT
