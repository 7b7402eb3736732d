"""Layers' weights on their way to the device, from host memory or other ranks, ahead of their use.

A pass goes through the layers up (forward) or down (backward), and turns where it ends. So while a layer is
in use, the next ones are fetched, by a stream of their own, into the slots of layers that were used. Events
keep both in order: a slot is read when it is `ready`, and overwritten when what read it is `done`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from ...planning.memory import SLOTS
from .stored_weights import LayerLayout, StoredWeight


class _Slot:
    """Room for the weights of one layer on the device."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.buffer = torch.empty(size, dtype=torch.uint8, device=device)
        self.layer: int | None = None
        self._views: dict[LayerLayout, dict[str, StoredWeight]] = {}

    @cached_property
    def ready(self) -> torch.cuda.Event:
        return torch.cuda.Event()

    @cached_property
    def done(self) -> torch.cuda.Event:
        return torch.cuda.Event()

    def views(self, layout: LayerLayout) -> dict[str, StoredWeight]:
        if layout not in self._views:
            self._views[layout] = layout.views(self.buffer)
        return self._views[layout]


class WeightStream:
    """The layers that stream.

    Args:
        layouts: of these layers.
        fetch: writes a layer's weights into the buffer of a slot, as work of the current stream.
        size: bytes of that buffer.
    """

    def __init__(
        self,
        layouts: Mapping[int, LayerLayout],
        fetch: Callable[[int, Tensor], None],
        size: int,
        device: torch.device,
    ) -> None:
        self._layouts, self._fill = layouts, fetch
        self._order = sorted(layouts)
        self._slots = [_Slot(size, device) for _ in range(min(SLOTS, len(layouts)))]
        self._at: _Slot | None = None
        # Of high priority: products that follow each other would let a gather's kernel wait for long.
        self._copies = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None

    def bring(self, layer: int) -> dict[str, StoredWeight]:
        """The layer's weights on the device, once the current stream gets there."""
        if self._at is None or self._at.layer != layer:
            self._at = self._move_to(layer, self._at)
        return self._at.views(self._layouts[layer])

    def _move_to(self, layer: int, left: _Slot | None) -> _Slot:
        last = -1 if left is None or left.layer is None else left.layer
        if left is not None and self._copies is not None:
            left.done.record()
        wanted = [layer, *self._after(layer, up=layer > last)][: len(self._slots)]
        held = {slot.layer for slot in self._slots}
        free = iter([slot for slot in self._slots if slot.layer not in wanted])
        for one in wanted:
            if one not in held:
                self._fetch(one, next(free))
        found = next(slot for slot in self._slots if slot.layer == layer)
        if self._copies is not None:
            found.ready.wait()
        return found

    def _after(self, layer: int, *, up: bool) -> list[int]:
        """The layers in the order in which they come, if the pass turns at its end."""
        place = self._order.index(layer)
        above, below = self._order[place + 1 :], self._order[:place][::-1]
        return above + below if up else below + above

    def _fetch(self, layer: int, slot: _Slot) -> None:
        slot.layer = layer
        if self._copies is None:
            self._fill(layer, slot.buffer)
            return
        with torch.cuda.stream(self._copies):
            slot.done.wait(self._copies)  # at once, where it was never used
            self._fill(layer, slot.buffer)
            slot.ready.record(self._copies)
