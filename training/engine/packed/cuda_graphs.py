"""A decoder's forward and backward as CUDA graphs: all kernels of all layers are launched by two calls.

A step of a small model has thousands of short kernels, and launching them one by one takes longer than they
run. A graph is made for a shape of batch when that comes for the second time (Gray 2019, "Getting started
with CUDA graphs"). The loss stays outside, since the number of label positions is different each time.

All graphs share one memory pool: what one saves for its backward is used up before another one runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...config.fields import Recompute
from ...planning.graphs import LARGEST_MODEL, MOST_GRAPHS, GraphKey, graph_key
from ..loop.batch import PackedBatch, Segments
from .attention import FlashOperator
from .decoder import PackedDecoder


def graphs_help(decoder: PackedDecoder) -> bool:
    """Whether this decoder can be graphed, and is small enough to gain by it."""
    return (
        all(isinstance(each, FlashOperator) for each in decoder.layer_pass.attentions.values())
        and not decoder.has_dropout
        and not decoder.streams  # copies by another stream cannot be part of a graph
        and decoder.config.experts is None  # on some cards grouped products wait for the host
        and decoder.config.parameters < LARGEST_MODEL
    )


class GraphedDecoder:
    """`forward_backward` of a decoder for which `graphs_help`."""

    def __init__(self, decoder: PackedDecoder) -> None:
        self.decoder = decoder
        self._seen: set[GraphKey] = set()
        self._graphs: dict[GraphKey, _Graphs] = {}
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._full = False

    def forward_backward(
        self, batch: PackedBatch, weight: Tensor, *, seed: int, recompute: Recompute
    ) -> Tensor:
        """As `PackedDecoder.forward_backward`."""
        graphs = self._graphs_for(batch, recompute)
        if graphs is None:
            return self.decoder.forward_backward(batch, weight, seed=seed, recompute=recompute)
        with torch.no_grad():
            graphs.take(batch)
            graphs.forward.replay()
            loss, d_hidden = self.decoder.loss_and_gradient(graphs.hidden, batch, weight)
            graphs.d_hidden.copy_(d_hidden)
            graphs.backward.replay()
            self.decoder.forget()  # shared buffers hold what the graph left there
        return loss

    def _graphs_for(self, batch: PackedBatch, recompute: Recompute) -> _Graphs | None:
        key = _key_of(batch)
        found = self._graphs.get(key)
        if found is not None or self._full:
            return found
        if key not in self._seen:  # once as usual: kernels are compiled, and rare shapes cost nothing
            self._seen.add(key)
            return None
        try:
            self._graphs[key] = _Graphs(self.decoder, key, recompute, self._pool)
        except torch.OutOfMemoryError:
            self._full = True
            return None
        self._full = len(self._graphs) >= MOST_GRAPHS
        return self._graphs[key]


class _Graphs:
    """The two graphs of one key, and the tensors that they read and write."""

    def __init__(self, decoder: PackedDecoder, key: GraphKey, recompute: Recompute, pool: Any) -> None:
        self._batch = _StaticBatch.of(key, decoder.device)
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        decoder.forget()  # so that the graph makes all that it uses
        try:
            self._capture(decoder, recompute, pool)
        finally:
            decoder.forget()  # nothing has run yet

    @torch.no_grad()
    def _capture(self, decoder: PackedDecoder, recompute: Recompute, pool: Any) -> None:
        # The prefetcher's thread pins memory meanwhile, which only concerns itself.
        with torch.cuda.graph(self.forward, pool=pool, capture_error_mode="thread_local"):
            self.hidden, saved, context = decoder.forward_keeping(self._batch, recompute)
        self.d_hidden = torch.zeros_like(self.hidden)
        with torch.cuda.graph(self.backward, pool=pool, capture_error_mode="thread_local"):
            decoder.backward_through(saved, self.d_hidden, context)

    def take(self, batch: PackedBatch) -> None:
        """Put a batch of this shape where the graphs read it."""
        self._batch.input_ids.copy_(batch.input_ids)
        self._batch.position_ids.copy_(batch.position_ids)
        cu_seqlens, used = self._batch.segments.cu_seqlens, batch.segments.cu_seqlens
        cu_seqlens.fill_(len(batch.input_ids))  # segments that are not used have no tokens
        cu_seqlens[: len(used)].copy_(used)


@dataclass(frozen=True)
class _StaticBatch:
    """The inputs of a forward pass, always at the same place."""

    input_ids: Tensor  # (tokens,)
    position_ids: Tensor  # (tokens,)
    segments: Segments

    @classmethod
    def of(cls, key: GraphKey, device: torch.device) -> _StaticBatch:
        cu_seqlens = torch.full((key.segments + 1,), key.tokens, dtype=torch.int32, device=device)
        cu_seqlens[0] = 0
        ids = torch.zeros(key.tokens, dtype=torch.int64, device=device)
        return cls(ids, ids.clone(), Segments((key.tokens,), cu_seqlens, key.max_seqlen))


def _key_of(batch: PackedBatch) -> GraphKey:
    return graph_key(len(batch.input_ids), len(batch.segments.lengths), batch.segments.max_seqlen)
