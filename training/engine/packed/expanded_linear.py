"""Linear layers whose weights are stored in another form or place, and expanded just before they are used.

All layers share one fused buffer for each kind of linear (see `lora_linear`), which holds one layer's weight
with its LoRA at a time. Expanding a weight of a 7B costs about a tenth of its product with 4,000 tokens, and
nothing where the same layer's linear is used again, as in a backward pass that recomputes the layer. All
experts of a layer are expanded together: with some thousand tokens nearly every one of them is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..lora_parameters import LoraModule
from .decoder_config import ExpertLinearSizes
from .expert_linear import ExpertLinear
from .layer_store import LayerStore
from .lora_linear import FusedLoraLinear, Masks
from .sharded_store import ShardedStore
from .stored_weights import StoredWeight, WholeWeight, expand, layer_and_module

Store = LayerStore | ShardedStore
"""Where the layers' weights are."""


class Workspace:
    """A buffer to compute with, and the linear whose weights are in it."""

    buffer: Tensor | None = None
    holds: ExpandedLoraLinear | ExpandedExpertLinear | None = None


class ExpandedLinears:
    """Makes the linear layers of a decoder whose weights are in `store`; a `MakeLinear`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._workspaces: dict[object, Workspace] = {}

    def __call__(self, modules: Sequence[LoraModule], **settings: Any) -> ExpandedLoraLinear:
        # In some models linears of one name differ in size from layer to layer.
        kind = tuple((layer_and_module(m.name)[1], m.in_features, m.out_features) for m in modules)
        workspace = self._workspaces.setdefault(kind, Workspace())
        return ExpandedLoraLinear(modules, store=self._store, workspace=workspace, **settings)

    def experts(self, sizes: ExpertLinearSizes, layer: str, **settings: Any) -> ExpandedExpertLinear:
        """A `MakeExpertLinear`."""
        workspace = self._workspaces.setdefault(sizes.name, Workspace())
        return ExpandedExpertLinear(sizes, layer, store=self._store, workspace=workspace, **settings)


class ExpandedLoraLinear(FusedLoraLinear):
    """As `FusedLoraLinear`, in a buffer that it shares with the same linears of other layers."""

    def __init__(
        self, modules: Sequence[LoraModule], *, store: Store, workspace: Workspace, **settings: Any
    ) -> None:
        super().__init__(modules, fused=workspace.buffer, **settings)
        workspace.buffer = self.fused
        self.kept_a, self.kept_b = torch.zeros_like(self.a), torch.zeros_like(self.b)
        self._store, self._workspace = store, workspace
        self._layer = layer_and_module(modules[0].name)[0]
        self.streams = store.streams(self._layer)
        self._parts = [(layer_and_module(m.name)[1], self.weight[self.rows_of(m)]) for m in modules]

    def stored(self, module: LoraModule) -> StoredWeight:
        """The module's weight where it is kept."""
        return self._store.kept(self._layer)[layer_and_module(module.name)[1]]

    def place_of(self, module: LoraModule) -> Tensor | None:
        stored = self.stored(module)
        return stored.matrix if isinstance(stored, WholeWeight) else None

    def forget(self) -> None:
        """Expand again before the next use."""
        self._workspace.holds = None

    def expanded(self, module: LoraModule) -> Tensor:
        """The module's weight, (out_features, K), until another layer's is expanded."""
        self._expand()
        return self.weight[self.rows_of(module)]

    def forward(self, x: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        self._expand()
        return super().forward(x, masks)

    def backward(self, dy: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        self._expand()
        return super().backward(dy, masks)

    def _expand(self) -> None:
        if self._workspace.holds is self:
            return
        self._workspace.holds = None  # should memory run out, the buffer is of neither
        stored = self._store.on_device(self._layer)
        for name, place in self._parts:
            expand(stored[name], place)
        self.a.copy_(self.kept_a)
        self.b.copy_(self.kept_b)
        self._workspace.holds = self


class ExpandedExpertLinear(ExpertLinear):
    """As `ExpertLinear`, with a weight that it shares with the experts of other layers."""

    def __init__(
        self,
        sizes: ExpertLinearSizes,
        layer: str,
        *,
        store: Store,
        workspace: Workspace,
        **settings: Any,
    ) -> None:
        super().__init__(sizes, layer, weight=workspace.buffer, **settings)
        workspace.buffer = self.weight
        self._store, self._workspace = store, workspace
        self._layer = layer_and_module(self.name)[0]
        self.streams = store.streams(self._layer)

    @property
    def stored(self) -> StoredWeight:
        """The weight where it is kept, as one matrix (experts · N, K)."""
        return self._store.kept(self._layer)[self.sizes.name]

    def place(self) -> Tensor | None:
        stored = self.stored
        return stored.matrix.view(self.weight.shape) if isinstance(stored, WholeWeight) else None

    def forget(self) -> None:
        self._workspace.holds = None

    def expand(self) -> None:
        if self._workspace.holds is not self:
            self._workspace.holds = None
            expand(self._store.on_device(self._layer)[self.sizes.name], self.weight.flatten(0, 1))
            self._workspace.holds = self
