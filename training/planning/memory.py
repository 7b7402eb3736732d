"""How much of a GPU's memory a training takes, by part.

What lies there all the time: frozen weights, the LoRA with its gradients and optimizer, buffers. Beside it
come the activations that are kept from forward to backward, and the most that is in use for a moment. That
moment is the backward of one layer's MLP or attention, or the logits of the head.

The packed engine's own tensors are counted one by one (`packed/decoder_layer.py`, `lora_linear.py`,
`fused_cross_entropy.py`); `benchmarks/README.md` compares them with measured peaks. For models of
transformers and PEFT, where autograd keeps what it likes, the numbers are estimates. Those of models with
experts (`packed/sparse_mlp.py`) are counted, but have not been measured on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..config.fields import Recompute
from ..config.specs import LoraGroup
from .decoder_shape import MXFP4_BYTES, DecoderShape, Linear, targeted

MIB, GIB = 2**20, 2**30
SLOTS = 3
"""Layers on the GPU of those that stream: one in use and two on their way."""
ALIGNMENT = 8
"""LoRA columns are filled up to a multiple of this, which tensor cores want."""
CUDA_LOGITS, CPU_LOGITS = 1 << 27, 1 << 23
"""Numbers of the logits that exist at a time."""
CUBLAS_WORKSPACE = 32 * MIB
"""What torch gives cuBLAS on a Hopper; a quarter of it on older cards."""
MOST_FUSED_RANK = 64
"""Of a LoRA whose gradients the kernel of the MLP's activation makes; of more its sums overflow registers."""
PARTED_COLUMNS = 1056 * 128
"""Of all parts of the tokens that this kernel sums apart: enough for a large card's multiprocessors."""
FP32_LORA = 4
MOMENTS = 8
NF4_BYTES = 1 / 2 + 1 / 64 + 1 / 64 / 64
"""Of a weight: half a byte, and its share of the magnitudes of blocks."""
AUTOGRAD_FACTOR = 2.4
"""What autograd keeps of a layer, to what our own backward keeps: PEFT keeps inputs in two types and casts
them, and norms are computed in fp32. From TRL's peak with a 7B: 126.7 GiB without checkpointing."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training's parts.

    Args:
        fused: a layer's weights as they are computed with, the LoRA beside them; the mean of all layers.
        workspace: these of one layer, where linears of all layers share it; of all sizes that there are.
        layer: a layer's weights as they are stored; the mean of all layers.
        largest: those of the largest layer.
        copies: of a layer's LoRA in the type of the weights, where those are stored elsewhere; the mean.
        matrix: the embedding, or the head, which is as large.
        table: embeddings of tokens for each layer.
        expands: whether weights are expanded even if all of them stay on the GPU.
        values, gradients, moments: of all LoRA matrices.
        buffers: what is there in any case.
        kept: of a token and layer from forward to backward, by how much is computed again.
        backward: of a token, while the last layer's backward runs, by the same.
        forward: of a token, while a layer is computed without keeping anything.
        per_token: of a token, for the whole step.
        label: of a label token at the head, beside the logits.
        logits: of a label token.
        chunk: most bytes of logits at a time; 0 is no limit.
        graph: of a token of each CUDA graph: what it reads and writes; 0 where steps are not graphed.
        sums: that a layer's backward makes in parts, whatever the tokens.
        shards: GPUs over which layers are sharded, where not all of them stay whole on each.
        exact: whether the parts are counted; else they are an estimate.
    """

    layers: int
    fused: int
    workspace: int
    layer: int
    largest: int
    copies: int
    matrix: int
    table: int
    tied: bool
    expands: bool
    values: int
    gradients: int
    moments: int
    buffers: int
    kept: Mapping[Recompute, int]
    backward: Mapping[Recompute, int]
    forward: int
    per_token: int
    label: int
    logits: int
    chunk: int
    graph: int = 0
    sums: int = 0
    shards: int = 1
    exact: bool = True

    def parts(
        self, resident: int | None, recompute: Recompute, tokens: int, labels: int | None = None
    ) -> dict[str, int]:
        """The peak by part, while it trains on so many tokens at a time.

        Args:
            resident: layers whose weights, or shards of them, stay on the GPU; None is all, whole.
            labels: of the tokens, those with a loss; None is all of them.
        """
        kept = tokens * (self.layers * self.kept[recompute] + self.per_token)
        logits = self._head(tokens if labels is None else labels)
        working = max(tokens * self.backward[recompute] + self.sums, logits)
        return {**self._fixed(resident), "activations": kept, "backward_or_logits": working}

    def peak(self, resident: int | None, recompute: Recompute, tokens: int, labels: int | None = None) -> int:
        """The most while it trains on so many tokens at a time."""
        return sum(self.parts(resident, recompute, tokens, labels).values())

    def evaluating(self, resident: int | None, tokens: int, labels: int | None = None) -> int:
        """The most while so many tokens are evaluated at a time."""
        logits = self._head(tokens if labels is None else labels)
        return self.weights(resident) + tokens * self.per_token + max(tokens * self.forward, logits)

    def weights(self, resident: int | None) -> int:
        """What lies on the GPU all the time with so many layers there; None is all of them."""
        return sum(self._fixed(resident).values())

    def most_resident(self, room: int) -> int | None:
        """The most layers with which the weights fit into `room` bytes; None is all, 0 also if none does.

        Of sharded ones, all is their number.
        """
        if self.shards == 1 and self.weights(None) <= room:
            return None
        counts = reversed(range(1, self.layers + (self.shards > 1)))
        return next((count for count in counts if self.weights(count) <= room), 0)

    @property
    def shard(self) -> int:
        """What each GPU keeps of a layer that is not whole there."""
        return -(-self.layer // self.shards)

    def on_host(self, resident: int | None) -> int:
        """Main memory of each process for weights that are not on its GPU."""
        if resident is None:
            return 0
        return (self.layers - resident) * self.shard + (0 if self.tied else self.matrix) + self.table

    def _fixed(self, resident: int | None) -> dict[str, int]:
        whole = resident is None and not self.expands
        there = self.layers if resident is None else resident
        streamed = 0 if resident is None else self.layers if self.shards > 1 else self.layers - resident
        slots = min(SLOTS, streamed)
        matrices = 1 if self.tied or resident is not None else 2
        kept = self.layer if resident is None else self.shard
        stored = self.layers * self.fused if whole else there * kept + self.layers * self.copies
        return {
            "weights": stored,
            "embedding_and_head": matrices * self.matrix + (self.table if resident is None else 0),
            "lora": self.values,
            "gradients": self.gradients,
            "optimizer": self.moments,
            "buffers": self.buffers + slots * self.largest + (0 if whole else self.workspace),
        }

    def _head(self, labels: int) -> int:
        """Logits and their gradient; the first chunk's gradient is still there while a second is made."""
        rows = max(16, self.chunk // self.logits) if self.chunk else labels
        first, second = min(labels, rows), min(max(0, labels - rows), rows)
        return labels * self.label + max(2 * first, first + 2 * second) * self.logits


class LayerMemory(NamedTuple):
    """Of one layer of a kind; as in `TrainingMemory`."""

    layers: int
    fused: int
    layer: int
    copies: int
    norms: int
    kept: Mapping[Recompute, int]
    backward: Mapping[Recompute, int]
    forward: int


def packed_memory(
    shape: DecoderShape,
    lora: LoraGroup,
    *,
    in_4bit: bool,
    layer: int | None = None,
    item: int = 2,
    shards: int = 1,
) -> TrainingMemory:
    """Of our own decoder.

    Weights in FP8 are kept twice, which takes what bf16 takes (`packed/fp8.py`).

    Args:
        layer: stored bytes of a layer's weights, where a checkpoint tells them; None: by `in_4bit`.
        item: bytes of a number: 2 in bf16 on a GPU, 4 in fp32 on a CPU.
        shards: GPUs of a host that train together.
    """
    expands = in_4bit or shape.stored_4bit
    kinds = [_layer_memory(kind, lora, expands, item) for kind in shape.kinds]
    parameters, on_gpu = shape.lora_parameters(lora), item == 2
    norms = sum(kind.layers * kind.norms for kind in kinds)
    return TrainingMemory(
        layers=shape.num_layers,
        fused=_mean(kinds, [kind.fused for kind in kinds]),
        workspace=_workspace(shape, lora, item),
        layer=layer or _mean(kinds, [kind.layer for kind in kinds]),
        largest=layer or max(kind.layer for kind in kinds),
        copies=_mean(kinds, [kind.copies for kind in kinds]),
        matrix=item * shape.matrix,
        table=item * shape.per_layer_embedding,
        tied=shape.tied,
        expands=expands,
        values=FP32_LORA * parameters,
        gradients=(FP32_LORA + item) * parameters,  # of the step, and of one micro-batch
        moments=MOMENTS * parameters,
        buffers=norms + _model_linears(shape, lora, item) + (CUBLAS_WORKSPACE if on_gpu else 0),
        kept={mode: _mean(kinds, [kind.kept[mode] for kind in kinds]) for mode in kinds[0].kept},
        backward={mode: max(kind.backward[mode] for kind in kinds) for mode in kinds[0].backward},
        forward=max(kind.forward for kind in kinds),
        per_token=_per_token(shape, lora, item),
        label=3 * item * shape.hidden_size,
        logits=item * shape.vocab_size,
        chunk=item * (CUDA_LOGITS if on_gpu else CPU_LOGITS),
        graph=2 * item * shape.hidden_size + 16 if on_gpu and shape.graphed and not lora.dropout else 0,
        sums=_sums(shape, lora) if on_gpu else 0,
        shards=shards,
    )


def _layer_memory(shape: DecoderShape, lora: LoraGroup, expands: bool, item: int) -> LayerMemory:
    pairs = _with_columns(shape.linears, lora, targeted(lora, shape.family))
    columns = sum(r for _, r in pairs) + _expert_columns(shape, lora)
    experts = item * _expert_copies(shape, lora)
    norms = sum(name is not None for name in shape.family.norms) + bool(shape.token_layer_size)
    norms += 5 * shape.has_sides
    return LayerMemory(
        layers=shape.num_layers,
        fused=_fused(pairs, item) + item * shape.expert_weights + experts,
        layer=_stored_in_4bit(shape, item) if expands else item * shape.layer_weights,
        copies=item * (sum(r * (linear.rows + linear.inputs) for linear, r in pairs)) + experts,
        norms=item * (norms * shape.hidden_size + shape.qkv),
        kept=_kept(shape, columns, item),
        backward=_backward(shape, columns, item, fused=item == 2 and _is_fused(shape, lora)),
        forward=item
        * (4 * shape.hidden_size + 2 * shape.qkv + shape.query + 3 * shape.mlp_width + 2 * _spread(shape)),
    )


def _mean(kinds: list[LayerMemory], bytes_of: list[int]) -> int:
    """Of all layers, rounded up."""
    total = sum(kind.layers * size for kind, size in zip(kinds, bytes_of, strict=True))
    return -(-total // sum(kind.layers for kind in kinds))


def _with_columns(
    linears: tuple[Linear, ...], lora: LoraGroup, targets: tuple[str, ...]
) -> list[tuple[Linear, int]]:
    return [(linear, _lora_columns(linear, lora, targets)) for linear in linears]


def _fused(pairs: list[tuple[Linear, int]], item: int) -> int:
    """Bytes of linears with their LoRA columns."""
    return item * sum((linear.rows + r) * (linear.inputs + r) for linear, r in pairs)


def _workspace(shape: DecoderShape, lora: LoraGroup, item: int) -> int:
    """Linears that are alike in all layers have one buffer."""
    different = {
        (linear.inputs, *linear.outputs.items()): linear for kind in shape.kinds for linear in kind.linears
    }
    pairs = _with_columns(tuple(different.values()), lora, targeted(lora, shape.family))
    return _fused(pairs, item) + item * (shape.expert_weights + _expert_copies(shape, lora))


def _model_linears(shape: DecoderShape, lora: LoraGroup, item: int) -> int:
    """Those outside of layers, which always stay whole on the GPU."""
    return _fused(_with_columns(shape.model_linears, lora, targeted(lora, shape.family)), item)


def _per_token(shape: DecoderShape, lora: LoraGroup, item: int) -> int:
    """Ids and positions, cos and sin of two rotations; and what layers hand to later ones.

    That are embeddings of each layer with their gradients, keys and values that later layers use with theirs.
    """
    angles = 8 * max(kind.heads.head_dim for kind in shape.kinds)
    embeddings = shape.num_layers * shape.token_layer_size
    columns = sum(r for _, r in _with_columns(shape.model_linears, lora, targeted(lora, shape.family)))
    return 16 + angles + item * (2 * embeddings + columns + 2 * shape.shared_keys)


def _stored_in_4bit(shape: DecoderShape, item: int) -> int:
    """Bytes of a layer; of MXFP4 checkpoints, what is no expert is stored whole."""
    if not shape.mxfp4:
        return round(NF4_BYTES * shape.layer_weights)
    return round(MXFP4_BYTES * shape.expert_weights) + item * (shape.layer_weights - shape.expert_weights)


def _spread(shape: DecoderShape) -> int:
    """Numbers of a token that goes to its experts, once for each."""
    return 0 if shape.routed is None else shape.routed.chosen * shape.hidden_size


def _expert_columns(shape: DecoderShape, lora: LoraGroup) -> int:
    """LoRA columns that a token meets in its experts."""
    targets = targeted(lora, shape.family)
    linears = [linear for linear in shape.expert_linears if set(linear.outputs) & set(targets)]
    rank = -(-lora.r // ALIGNMENT) * ALIGNMENT
    return 0 if shape.routed is None else shape.routed.chosen * rank * len(linears)


def _expert_copies(shape: DecoderShape, lora: LoraGroup) -> int:
    """Numbers of the LoRA of all experts of a layer, as it is computed with."""
    targets = targeted(lora, shape.family)
    linears = [linear for linear in shape.expert_linears if set(linear.outputs) & set(targets)]
    rank = -(-lora.r // ALIGNMENT) * ALIGNMENT
    sizes = sum(rank * (linear.inputs + linear.rows) for linear in linears)
    return 0 if shape.routed is None else shape.routed.count * sizes


def _kept(shape: DecoderShape, columns: int, item: int) -> dict[Recompute, int]:
    """Of a token and layer; `Saved` in `packed/decoder_layer.py` lists it."""
    hidden, inner = item * shape.hidden_size, item * shape.mlp_width
    qkv = item * (shape.qkv + shape.qk_norm * shape.projected)
    attended = item * shape.query + 4 * shape.heads.num_heads  # with the logarithm of its sum, fp32
    if item == 4 or not shape.takes_flash:  # torch's own keeps keys and values of each query head, its output
        attended += 3 * item * shape.query
    # What is normed after a branch is kept too; of a parallel layer only its input.
    after = shape.family.norms.after_attention, shape.family.norms.after_mlp
    streams = 2 - shape.family.parallel + sum(name is not None for name in after)
    streams += bool(shape.token_layer_size) + 2 * shape.has_sides
    without_mlp = streams * hidden + qkv + attended + item * columns + _routing(shape, item)
    return {"nothing": without_mlp + 2 * inner, "gate_up": without_mlp, "everything": hidden}


def _routing(shape: DecoderShape, item: int) -> int:
    """Of a token: logits, and of each choice its weight, token, expert and place; a gated shared output."""
    if shape.routed is None:
        return 0
    gated = shape.routed.family.shared_gate is not None
    return 4 * shape.routed.count + 28 * shape.routed.chosen + gated * item * shape.hidden_size


def _is_fused(shape: DecoderShape, lora: LoraGroup) -> bool:
    """Whether the backward of a dense MLP on a GPU is that of `packed/fused_mlp.py`."""
    _, _, *mlp = shape.linears
    names = {name for linear in mlp for name in linear.outputs}
    targets = set(targeted(lora, shape.family))
    return shape.routed is None and not lora.dropout and lora.r <= MOST_FUSED_RANK and names <= targets


def _sums(shape: DecoderShape, lora: LoraGroup) -> int:
    """What it adds up apart, in fp32."""
    widths = [kind.mlp_width for kind in shape.kinds if _is_fused(kind, lora)]
    return 3 * FP32_LORA * lora.r * (PARTED_COLUMNS + max(widths)) if widths else 0


def _backward(shape: DecoderShape, columns: int, item: int, *, fused: bool) -> dict[Recompute, int]:
    """Of a token: the residual stream with its gradient, and the wider of MLP and attention.

    In the MLP there are at once: the activation, unless it is fused, and its gradient, the gradients of gate
    and up, and, if they were not kept, gate and up themselves. FlashAttention sums dq in fp32, and dk and dv
    for each query head. Experts have a token's gradient once for each of them, and later that of their input,
    twice while summed.
    """
    hidden, inner = item * shape.hidden_size, item * shape.mlp_width
    kept = _kept(shape, columns, item)
    mlp = (3 if fused else 4) * inner
    if shape.routed is not None:
        spread = item * _spread(shape)
        mlp = max(spread + 5 * inner, 2 * spread + 2 * inner)
    attention = hidden + item * (shape.query + shape.qkv) + (4 + 2 * item) * shape.query
    wider = max(mlp, attention)
    again = hidden + kept["nothing"] - kept["everything"]  # the layer's norm, and all that it keeps
    return {
        "nothing": 2 * hidden + wider,
        "gate_up": 2 * hidden + max(hidden + mlp + 2 * inner, attention),
        "everything": 2 * hidden + again + wider,
    }


def _lora_columns(linear: Linear, lora: LoraGroup, targets: tuple[str, ...]) -> int:
    count = sum(name in targets for name in linear.outputs)
    return -(-lora.r * count // ALIGNMENT) * ALIGNMENT


def autograd_memory(shape: DecoderShape, lora: LoraGroup, *, in_4bit: bool, item: int = 2) -> TrainingMemory:
    """An estimate for a model of transformers with PEFT's LoRA, or for TRL and Unsloth."""
    packed = packed_memory(shape, lora, in_4bit=False, item=item)
    kept = round(AUTOGRAD_FACTOR * packed.kept["nothing"])
    stream = packed.kept["everything"]
    quantised = in_4bit or shape.stored_4bit
    weights = sum(kind.num_layers * kind.layer_weights for kind in shape.kinds) / shape.num_layers
    layer = round((NF4_BYTES if quantised else item) * weights)
    backward = packed.backward["nothing"]
    return TrainingMemory(
        layers=shape.num_layers,
        fused=layer,
        workspace=0,
        layer=layer,
        largest=layer,
        copies=0,
        matrix=packed.matrix,
        table=packed.table,
        tied=shape.tied,
        expands=False,
        values=packed.values,
        gradients=FP32_LORA * shape.lora_parameters(lora),
        moments=packed.moments,
        # A weight in 4 bits is expanded for each product, the largest of them is the head's neighbour.
        buffers=packed.buffers + item * (max(_largest(shape), 1) if quantised else 0),
        kept={"nothing": kept, "gate_up": stream, "everything": stream},
        backward={"nothing": backward, "gate_up": backward + kept, "everything": backward + kept},
        forward=2 * packed.forward,
        per_token=packed.per_token,
        label=2 * packed.label,
        logits=item * shape.vocab_size + 4 * shape.vocab_size,  # and once more in fp32
        chunk=0,
        exact=False,
    )


def _largest(shape: DecoderShape) -> int:
    """Numbers in the largest matrix of a layer."""
    linears = (linear for kind in shape.kinds for linear in kind.linears)
    return max(linear.inputs * max(linear.outputs.values()) for linear in linears)
