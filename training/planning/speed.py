"""How long a step takes, from the model's sizes and what the card can do.

    products          FLOP / (what the card reaches of its data sheet), less with narrow models and few tokens
    element-wise      bytes that norms, rotation, SwiGLU and the LoRA's small products move / memory bandwidth
    expanding         stored weights read, whole weights written, forward and backward, once a micro-batch
    launching         a layer's kernels, where steps are no CUDA graphs: only if it takes longer than all that
    copying           weights that stream, twice a micro-batch, while it computes: only the longer one counts;
                      sharded ones as if all came from the host, an allowance that is not measured

The shares below were fitted once to 23 speeds measured on H100 and H200 with 0.5B to 70B; the formula is
within 14 % of each, and of 20 that were measured later (benchmarks/README.md). For other cards they are
scaled by their data sheets. On a CPU the products decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ..config.fields import EngineName, Recompute
from .decoder_shape import DecoderShape
from .gpu_cards import Card

PRODUCTS, NARROW, FEW_TOKENS = 0.72, 500, 100
"""Share of the data sheet that wide products of many tokens reach; hidden size and tokens that halve it."""
BANDWIDTH = 0.6
ATTENTION = 0.35
WITHOUT_FLASH = 4.0
"""Time of attention with heads that FlashAttention does not take, to that with others; not measured."""
SHARE_OF_LABELS = 0.5
USUAL_SEEN = 350
"""Tokens that a token attends to, where no lengths are known."""
FP8 = 1.8
"""Speed of a layer's products in FP8 to that in bf16, of cards that have it."""
CPU_FLOPS = 64e9
"""Of one core with AVX2 in fp32; measured with SmolLM2 on an EPYC."""
CPU_LAYER_S = 2e-3
"""Of a layer, forward and backward, whatever its size; measured with a model of two tiny layers."""
LAUNCHED_S = 68e-6
"""To launch a kernel; a 0.5B without graphs on an H100 made 49,937 tokens per second."""
KERNELS, EXPANDING = 50, 30
"""Of a layer and micro-batch, and more where its weights are made just before they are used."""
COMPUTED_AGAIN: dict[Recompute, int] = {"nothing": 0, "gate_up": 8, "everything": 25}
"""Likewise."""
TO_PACKED: dict[EngineName, float] = {"packed": 1.0, "autograd": 0.35, "unsloth": 0.75, "trl": 0.15}
"""Speed of the other engines to ours with a 7B on one H100, and on one H200 that of Unsloth; it differs with
model, data and host."""


@dataclass(frozen=True)
class Work:
    """What decides the time of a micro-batch.

    Args:
        resident: layers whose weights stay on the GPU; None is all.
        tokens: of a micro-batch, on the mean.
        seen: tokens that a token attends to, on the mean; None: not known.
        labels: share of the tokens with a loss; None: not known.
        stored: bytes of a layer's weights where they are kept.
        sharded: whether each GPU keeps a shard of each layer.
        graphed: whether steps of so small a model become CUDA graphs: those with dropout do not.
    """

    shape: DecoderShape
    engine: EngineName
    in_4bit: bool
    recompute: Recompute
    resident: int | None
    tokens: float
    seen: float | None
    labels: float | None
    stored: int
    sharded: bool = False
    in_fp8: bool = False
    graphed: bool = True


def tokens_per_s(work: Work, card: Card | None, threads: int = 1) -> float:
    """Args:
    card: None is a CPU with so many threads.
    """
    seconds = _on_cpu(work, threads) if card is None else _on_gpu(work, card)
    return work.tokens / seconds * TO_PACKED[work.engine]


def _on_cpu(work: Work, threads: int) -> float:
    computing = work.tokens * (_products(work) + _attention(work)) / (CPU_FLOPS * threads)
    return computing + work.shape.num_layers * CPU_LAYER_S


def _on_gpu(work: Work, card: Card) -> float:
    shape, peak = work.shape, card.tflops * 1e12
    width = shape.hidden_size / (shape.hidden_size + NARROW)
    many = work.tokens / (work.tokens + FEW_TOKENS)
    products = work.tokens * _products(work) / (PRODUCTS * width * many * peak)
    attention = work.tokens * _attention(work) / (ATTENTION * peak)
    moved = work.tokens * _moved(work) + _expanded(work)
    computing = products + attention + moved / (BANDWIDTH * card.memory_tb_s * 1e12)
    graphed = work.engine == "packed" and work.resident is None and shape.graphed and work.graphed
    launching = 0.0 if graphed else launching_s(work)
    return max(computing, _copied(work) / (card.link_gb_s * 1e9), launching)


def launching_s(work: Work) -> float:
    """Seconds that the host takes to launch a micro-batch's kernels; a graph's are launched at once."""
    expands = work.in_4bit or work.resident is not None
    kernels = KERNELS + expands * EXPANDING + COMPUTED_AGAIN[work.recompute]
    return work.shape.num_layers * kernels * LAUNCHED_S


def _products(work: Work) -> float:
    """FLOP of a token: forward, backward to the activations, and what is computed again; in FP8 fewer by
    its speed."""
    shape = work.shape
    head = 4.0 * shape.matrix * (SHARE_OF_LABELS if work.labels is None else work.labels)
    layers = sum(kind.num_layers * _layer_products(kind, work.recompute) for kind in shape.kinds)
    return layers / (FP8 if work.in_fp8 else 1.0) + head


def _layer_products(shape: DecoderShape, recompute: Recompute) -> float:
    layer = 2.0 * shape.active_weights
    gate_up = 4.0 * shape.hidden_size * shape.mlp_width
    return 2 * layer + {"nothing": 0.0, "gate_up": gate_up, "everything": layer}[recompute]


def _attention(work: Work) -> float:
    """FLOP of a token: two products forward, five backward, and two again where the layer is."""
    seen = USUAL_SEEN if work.seen is None else work.seen
    passes = 3.5 + (work.recompute == "everything")
    return 4.0 * seen * passes * sum(_weighed_queries(kind) for kind in work.shape.kinds)


def _weighed_queries(shape: DecoderShape) -> float:
    """Numbers of a token's queries in all layers, more of those that FlashAttention does not take."""
    return shape.num_layers * shape.query * (1.0 if shape.takes_flash else WITHOUT_FLASH)


def _moved(work: Work) -> float:
    """Bytes of a token that kernels without products read and write, in bf16."""
    kinds = work.shape.kinds
    return 2.0 * sum(kind.num_layers * _layer_moved(kind, work.recompute, work.in_fp8) for kind in kinds)


def _layer_moved(shape: DecoderShape, recompute: Recompute, in_fp8: bool) -> float:
    """Numbers of a token and layer."""
    numbers = 26 * shape.hidden_size + 9 * shape.qkv + 20 * shape.mlp_width
    if shape.routed is not None:  # tokens that are spread to their experts and gathered again
        numbers += 8 * shape.routed.chosen * shape.hidden_size
    if recompute == "everything":
        numbers += 9 * shape.hidden_size + 3 * shape.qkv + 3 * shape.mlp_width
    if in_fp8:  # inputs and gradients are quantised, and the LoRA's parts added beside attention
        inputs = 2 * shape.hidden_size + shape.query + shape.mlp_width
        gradients = shape.qkv + 2 * shape.hidden_size + 2 * shape.mlp_width
        numbers += 1.5 * (inputs + gradients) + 2 * (shape.qkv + shape.query)
    return numbers


def _expanded(work: Work) -> float:
    """Bytes of a micro-batch to make weights in bf16 of those that are stored otherwise or elsewhere."""
    if not work.in_4bit and work.resident is None:
        return 0.0
    whole = sum(kind.num_layers * kind.layer_weights for kind in work.shape.kinds)
    return 2.0 * (work.shape.num_layers * work.stored + 2 * whole)


def _copied(work: Work) -> float:
    """Bytes of a micro-batch that come from the host or other GPUs: forward and backward."""
    if work.resident is None:
        return 0.0
    resident = 0 if work.sharded else work.resident
    return 2.0 * (work.shape.num_layers - resident) * work.stored


def duration(steps: int, tokens_per_step: float, rate: float) -> float:
    """Seconds of so many optimizer steps."""
    return ceil(steps * tokens_per_step / rate) if rate else 0.0
