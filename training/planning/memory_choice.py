"""What of a training lies on the GPU, so that it fits: weights, activations, and tokens at a time.

The first that fits, the fastest first. Streaming weights of 4 bits costs less than recomputing anything.
Those of 16 bits stream more slowly than they are computed with: they do so only where nothing else fits.
How much fewer tokens at a time cost depends on model, data and card: where the formula of `speed` promises
more of a later one that fits, that is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..config.fields import EngineName, Recompute, Weights
from ..config.specs import LoraGroup, TrainingSpec
from .batches import MicroBatch, RunBatches
from .decoder_shape import DecoderShape
from .memory import GIB, MIB, TrainingMemory, autograd_memory, packed_memory

TOKENS = (8192, 4096, 2048)
"""At a time, where no number is given. Fewer make weights that stream the slowest part."""
MODES: tuple[Recompute, ...] = ("nothing", "gate_up", "everything")
AUTOGRAD_MODES: tuple[Recompute, ...] = ("nothing", "everything")
"""Transformers checkpoints whole layers or nothing."""
FASTER = 1.05
"""By how much the formula has to promise more; it is not that exact."""
Speed = Callable[[Recompute, int, "int | None"], float]
"""Tokens per second, by what is computed again, tokens at a time, and layers that stay on the GPU."""
RESERVE = GIB // 2
"""Kernels, and what else is on the GPU and not torch's."""
SLACK = 0.04
"""Of the peak: gaps between tensors."""
RESERVE_FOR_ANSWERS = 3 * GIB
CPU_SLACK = 0.06
PROCESS = 640 * MIB
"""Main memory of a worker with its libraries. Of five peaks with SmolLM2 all this was within 6 %."""


@dataclass(frozen=True)
class MemoryChoice:
    """What was chosen, and why.

    Args:
        micro_batch_tokens: most tokens that go through the model at a time.
        resident_layers: layers whose weights, or shards of them, stay on the GPU; None is all, whole.
        batch: the largest that does go through the model.
        peak: bytes of torch's tensors at most; on a CPU, of the whole process.
        fits: whether the peak, with what is not torch's, is free.
        reasons: by the name of the setting.
        before_graphs: micro-batches that are launched kernel by kernel, where later ones are CUDA graphs.
    """

    recompute: Recompute
    micro_batch_tokens: int
    resident_layers: int | None
    batch: MicroBatch
    peak: int | None
    fits: bool
    reasons: dict[str, str]
    before_graphs: int = 0


def training_memory(
    shape: DecoderShape,
    lora: LoraGroup,
    engine: EngineName,
    *,
    in_4bit: bool,
    layer: int | None = None,
    on_gpu: bool = True,
    shards: int = 1,
) -> TrainingMemory:
    """The memory by part, for the engine that trains.

    Args:
        layer: stored bytes of a layer's weights, where they are known.
        shards: GPUs of a host that train together.
    """
    item = 2 if on_gpu else 4
    if engine == "packed":
        return packed_memory(shape, lora, in_4bit=in_4bit, layer=layer, item=item, shards=shards)
    return autograd_memory(shape, lora, in_4bit=in_4bit, item=item)


def choose_memory(
    spec: TrainingSpec,
    memory: TrainingMemory,
    batches: RunBatches,
    *,
    free: int,
    host: int = 0,
    held: str = "",
    speed: Speed | None = None,
) -> MemoryChoice:
    """What fits into a GPU.

    Args:
        free: bytes of the GPU, after CUDA itself has started.
        host: bytes of main memory that are free for each process; 0 where nobody asked.
        held: by whom memory of it is held, if it is.
        speed: None where nothing is known of the card.
    """
    choice = _Choice(spec, memory, batches, free, host)
    mode, tokens, resident = choice.made(speed)
    return choice.described(mode, tokens, resident, f"; {held}" if held else "")


def on_cpu(spec: TrainingSpec, memory: TrainingMemory, batches: RunBatches, *, free: int) -> MemoryChoice:
    """What fits into main memory. Smaller parts of a step cost a CPU nothing, recomputing does.

    Args:
        free: bytes of main memory; 0 where nobody asked: all fits.
    """
    asked, given = spec.training.recompute, spec.training.micro_batch_tokens
    modes: tuple[Recompute, ...] = MODES if asked == "auto" else (asked,)
    amounts = TOKENS if given is None else (given,)
    ways = [*_by_speed_on_cpu(modes, amounts), *_one_at_a_time(modes, given, batches)]
    resident = resident_on_cpu(memory, spec.training.weights)

    def needed(mode: Recompute, tokens: int) -> int:
        evaluated = batches.evaluated(tokens)
        evaluating = memory.evaluating(resident, *evaluated) if evaluated.tokens else 0
        peak = max(memory.peak(resident, mode, *batches.largest(tokens)), evaluating)
        return round(peak * (1 + CPU_SLACK)) + PROCESS

    fitting = [way for way in ways if not free or needed(*way) <= free]
    recompute, tokens = fitting[0] if fitting else ways[-1]
    why = "main memory holds the activations of a CPU's batches"
    if asked != "auto":
        why = "as asked"
    elif recompute != "nothing" or not fitting:
        why = f"only {free / GIB:.1f} GiB of main memory are free"
    reasons = {"recompute": why}
    if resident is not None:
        reasons["weights"] = placed(memory, resident, "processes")
    elif spec.training.weights != "auto":
        reasons["weights"] = "not used: a CPU has only the host's memory"
    peak = needed(recompute, tokens)
    return MemoryChoice(recompute, tokens, resident, batches.largest(tokens), peak, bool(fitting), reasons)


def resident_on_cpu(memory: TrainingMemory, weights: Weights) -> int | None:
    """None: each process has whole weights; else all of them are sharded."""
    return memory.layers if weights == "sharded" and memory.shards > 1 else None


def placed(memory: TrainingMemory, resident: int, what: str = "GPUs") -> str:
    """Where weights are that are not all whole on the GPU.

    Args:
        what: shares them, where they are sharded.
    """
    elsewhere = f"{memory.layers - resident} of {memory.layers} layers"
    if memory.shards == 1:
        return f"the weights of {elsewhere} stream from host memory"
    sharded = f"sharded over {memory.shards} {what}"
    return sharded if resident == memory.layers else f"{sharded}, with shards of {elsewhere} in host memory"


def _by_speed_on_cpu(
    modes: tuple[Recompute, ...], amounts: tuple[int, ...]
) -> Iterator[tuple[Recompute, int]]:
    for tokens in amounts:
        yield modes[0], tokens
    for mode in modes[1:]:
        yield mode, amounts[-1]


def _one_at_a_time(
    modes: tuple[Recompute, ...], asked: int | None, batches: RunBatches
) -> Iterator[tuple[Recompute, int]]:
    """The last way, where examples are shorter than the fewest tokens."""
    if asked is None and batches.longest is not None and batches.longest < TOKENS[-1]:
        yield modes[-1], batches.longest


def room_in(free: int) -> int:
    """Bytes for torch's tensors."""
    return int((free - RESERVE) / (1 + SLACK))


class _Choice:
    """The memory of one GPU."""

    def __init__(
        self, spec: TrainingSpec, memory: TrainingMemory, batches: RunBatches, free: int, host: int
    ) -> None:
        self._training, self._memory, self._batches = spec.training, memory, batches
        self._free, self._host = free, host
        self._room = room_in(free)
        asked = spec.training.recompute
        modes = MODES if memory.exact else AUTOGRAD_MODES
        self._modes: tuple[Recompute, ...] = modes if asked == "auto" else (asked,)

    def made(self, speed: Speed | None) -> tuple[Recompute, int, int | None]:
        """Recomputation, tokens at a time, and the layers that stay on the GPU."""
        ways = list(self._by_speed())
        placed = [self._placed(*way) for way in ways if self._fits(*way)]
        found = [way for way in placed if self._has_host_memory(way[2])] or placed
        if not found:
            return self._placed(*ways[-1])
        chosen = found[0]
        if speed is None or not self._memory.exact:
            return chosen
        if chosen[2] is None and not self._memory.expands:  # 16 bits stream only where nothing else fits
            found = [way for way in found if way[2] is None]
        best = max(found, key=lambda way: speed(*way))
        return best if speed(*best) > FASTER * speed(*chosen) else chosen

    def _fits(self, mode: Recompute, tokens: int, on_gpu: bool) -> bool:
        return self._peak(None if on_gpu else 0, mode, tokens) <= self._room

    def _has_host_memory(self, resident: int | None) -> bool:
        return not self._host or self._memory.on_host(resident) <= self._host

    def _placed(self, mode: Recompute, tokens: int, on_gpu: bool) -> tuple[Recompute, int, int | None]:
        layers = None if on_gpu else self._layers(mode, tokens)
        if layers is None and not on_gpu and self._peak(None, mode, tokens) > self._room:
            layers = self._memory.layers - 1  # all would fit, but not with their CUDA graphs
        return mode, tokens, layers

    def _by_speed(self) -> Iterator[tuple[Recompute, int, bool]]:
        """Recomputation, tokens at a time, and whether all weights stay on the GPU."""
        asked = self._training.micro_batch_tokens
        asked_place = self._training.weights_place
        if asked_place == "sharded" and self._memory.shards == 1:
            asked_place = "auto"
        places = {"gpu": [True], "auto": [True, False]}.get(asked_place, [False])
        if not self._memory.exact:
            places = [True]  # those of transformers do not stream
        amounts = TOKENS if asked is None else (asked,)
        # Groups of places among which recomputing nothing comes first.
        for group in [places] if self._memory.expands else [[place] for place in places]:
            for mode in self._modes:
                for place in group:
                    yield mode, amounts[0], place
        for tokens in amounts[1:]:
            for mode in self._modes:
                yield mode, tokens, places[-1]
        for mode, tokens in _one_at_a_time(self._modes, asked, self._batches):
            yield mode, tokens, places[-1]

    def _layers(self, mode: Recompute, tokens: int) -> int | None:
        """Layers that stay on the GPU."""
        if self._training.weights == "host":
            return 0
        beside = self._peak(0, mode, tokens) - self._memory.weights(0)
        return self._memory.most_resident(self._room - beside)

    def _peak(self, resident: int | None, mode: Recompute, tokens: int) -> int:
        memory, evaluated = self._memory, self._batches.evaluated(tokens)
        training = memory.peak(resident, mode, *self._batches.largest(tokens))
        graphs = memory.graph * self._batches.graph_tokens(tokens) if self._graphed(resident) else 0
        evaluating = memory.evaluating(resident, *evaluated) if evaluated.tokens else 0
        return graphs + max(training, evaluating)

    def _graphed(self, resident: int | None) -> bool:
        return resident is None and self._memory.graph > 0

    def described(self, mode: Recompute, tokens: int, resident: int | None, held: str) -> MemoryChoice:
        memory = self._memory
        weights, peak = memory.weights(resident), self._peak(resident, mode, tokens)
        where = f"{weights / GIB:.1f} GiB of weights, LoRA and optimizer on the GPU"
        if resident is not None:
            where += f"; {placed(memory, resident)}"
        elif self._training.weights in ("host", "sharded") and not memory.exact:
            where += f'; weights="{self._training.weights}" is not used: only the packed engine streams'
        if self._training.weights == "sharded" and memory.shards == 1 and memory.exact:
            where += "; not sharded: this host has one GPU for the run"
        fits = peak <= self._room
        sizes = f"{peak / GIB:.1f} of {self._free / GIB:.1f} GiB of GPU memory"
        needed = f"{sizes} for {tokens} tokens at a time"
        needed += "" if fits else ": more than is free, so steps may have to be split"
        why = "as asked" if self._training.recompute != "auto" else f"{needed}{held}"
        reasons = {"recompute": why, "weights": where}
        batch = self._batches.largest(tokens)
        first = self._batches.before_graphs(tokens) if self._graphed(resident) else 0
        return MemoryChoice(mode, tokens, resident, batch, peak, fits, reasons, first)


def resident_for_answers(shape: DecoderShape, *, in_4bit: bool, free: int) -> int | None:
    """Layers of a model that is only asked whose weights stay on the GPU; None is all, also on a CPU.

    Args:
        free: bytes of the GPU, 0 without one.
    """
    if not free:
        return None
    weights = packed_memory(shape, LoraGroup(r=1, target_modules=[]), in_4bit=in_4bit)
    return weights.most_resident(free - RESERVE_FOR_ANSWERS)
