"""Where the layers' frozen weights are kept: on the device, or in host memory from which they stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .host_memory import host_buffer
from .stored_weights import LayerLayout, StoredWeight
from .weight_stream import WeightStream


class LayerStore:
    """The stored weights of all layers.

    Args:
        resident: number of layers whose weights stay on the device, spread evenly; None is all. The others
            lie in host memory.
    """

    def __init__(
        self, layouts: Sequence[LayerLayout], device: torch.device, resident: int | None = None
    ) -> None:
        streamed = streamed_layers(len(layouts), resident)
        self._buffers = [
            host_buffer(layout.bytes, device)
            if layer in streamed
            else torch.empty(layout.bytes, dtype=torch.uint8, device=device)
            for layer, layout in enumerate(layouts)
        ]
        self._kept = [layout.views(buffer) for layout, buffer in zip(layouts, self._buffers, strict=True)]
        host = {layer: layouts[layer] for layer in streamed}
        size = max((layout.bytes for layout in host.values()), default=0)
        self._stream = WeightStream(host, self._fetch, size, device) if host else None
        self._streamed = frozenset(streamed)
        self.unpinned = [
            layer for layer in streamed if device.type == "cuda" and not self._buffers[layer].is_pinned()
        ]
        """Layers in host memory that could not be pinned: copying them holds up the host."""

    def streams(self, layer: int) -> bool:
        """Whether a layer's weights come from host memory each time."""
        return layer in self._streamed

    def kept(self, layer: int) -> dict[str, StoredWeight]:
        """A layer's weights where they are kept, by module."""
        return self._kept[layer]

    def on_device(self, layer: int) -> dict[str, StoredWeight]:
        """A layer's weights on the device, until those of another one are asked for."""
        if self._stream is None or layer not in self._streamed:
            return self._kept[layer]
        return self._stream.bring(layer)

    def _fetch(self, layer: int, slot: Tensor) -> None:
        buffer = self._buffers[layer]
        slot[: len(buffer)].copy_(buffer, non_blocking=True)


def streamed_layers(layers: int, resident: int | None) -> list[int]:
    """Which layers stream: evenly spread, so that there is most time to bring each of them."""
    count = 0 if resident is None else max(0, layers - resident)
    return [(2 * place + 1) * layers // (2 * count) for place in range(count)]
