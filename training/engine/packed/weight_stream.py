"""Layers' weights on their way from host memory to the device, ahead of their use.

A pass goes through the layers up (forward) or down (backward), and turns where it ends. So while a layer is
in use, the next ones are copied, by a stream of their own, into the slots of layers that were used. Events
keep both in order: a slot is read when it is `ready`, and overwritten when what read it is `done`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """The layers that stream, each with its layout and its buffer in host memory."""

    def __init__(self, host: Mapping[int, tuple[LayerLayout, Tensor]], device: torch.device) -> None:
        self._host = host
        self._order = sorted(host)
        size = max(layout.bytes for layout, _ in host.values())
        self._slots = [_Slot(size, device) for _ in range(min(SLOTS, len(host)))]
        self._at: _Slot | None = None
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def bring(self, layer: int) -> dict[str, StoredWeight]:
        """The layer's weights on the device, once the current stream gets there."""
        if self._at is None or self._at.layer != layer:
            self._at = self._move_to(layer, self._at)
        return self._at.views(self._host[layer][0])

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
        layout, buffer = self._host[layer]
        slot.layer = layer
        if self._copies is None:
            slot.buffer[: layout.bytes].copy_(buffer)
            return
        with torch.cuda.stream(self._copies):
            slot.done.wait(self._copies)  # at once, where it was never used
            slot.buffer[: layout.bytes].copy_(buffer, non_blocking=True)
            slot.ready.record(self._copies)
