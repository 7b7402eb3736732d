"""Our packed engine with random weights, timed as it runs: the real loop with everything in it."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from workload import make_importable

make_importable()

from backpropagate.training.config.specs import LoraGroup  # noqa: E402
from backpropagate.training.engine.loop.batch import PackedBatch  # noqa: E402
from backpropagate.training.engine.loop.checkpoints import Checkpoints  # noqa: E402
from backpropagate.training.engine.loop.fit import fit  # noqa: E402
from backpropagate.training.engine.loop.packing import step_order  # noqa: E402
from backpropagate.training.engine.packed.decoder import PackedDecoder  # noqa: E402
from backpropagate.training.engine.packed.decoder_config import read_decoder_config  # noqa: E402
from backpropagate.training.engine.packed.engine import PackedStep  # noqa: E402
from backpropagate.training.engine.packed.fp8_linear import Fp8LoraLinear, fp8_linears  # noqa: E402
from backpropagate.training.engine.packed.load_weights import destinations, nf4_weights, spread_qk_norms  # noqa: E402
from backpropagate.training.engine.packed.open_decoder import make_decoder  # noqa: E402
from backpropagate.training.engine.packed.weight_layouts import layer_layouts  # noqa: E402
from backpropagate.training.engine.plan import Data, Plan  # noqa: E402
from backpropagate.training.events import no_report  # noqa: E402
from backpropagate.training.planning.memory_choice import TOKENS  # noqa: E402


class TimedStep(PackedStep):
    """Counts the useful tokens of each optimizer step; the loop refreshes once after each."""

    def __init__(self, decoder: PackedDecoder, plan: Plan, after_step: Callable[[int], bool]) -> None:
        super().__init__(decoder, plan)
        self.after_step = after_step
        self.stop = False
        self.tokens = 0

    def forward_backward(self, batch: PackedBatch, weight: torch.Tensor, *, seed: int) -> torch.Tensor:
        self.tokens += batch.useful_tokens
        return super().forward_backward(batch, weight, seed=seed)

    def refresh(self) -> None:
        super().refresh()
        if self.tokens:
            self.stop = self.after_step(self.tokens)
            self.tokens = 0


def plan_of(device: str, precision: Any, recompute: Any = "nothing", **settings: Any) -> Plan:
    folder = Path(tempfile.mkdtemp())
    chosen: dict[str, Any] = dict(
        model=folder,
        adapter=folder / "adapter",
        engine="packed",
        lora=LoraGroup(r=16, alpha=32),
        device=device,
        precision=precision,
        recompute=recompute,
        steps=100_000,
        learning_rate=2e-4,
        micro_batch_tokens=TOKENS[0],
        checkpoint_every_s=math.inf,
    )
    return Plan.from_record({**chosen, **settings})


def random_decoder(config: Any, plan: Plan) -> PackedDecoder:
    """A decoder of this config with random weights, made where it is used."""
    dtype = getattr(torch, plan.precision)
    sizes, device = read_decoder_config(config), torch.device(plan.device)

    def random(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device=device).normal_(0, 0.02)

    if plan.training.in_fp8:
        decoder = PackedDecoder(sizes, plan.lora, dtype, device, Fp8LoraLinear)
    else:
        expands = plan.load_in_4bit or plan.resident_layers is not None
        layouts = layer_layouts(sizes, dtype, in_4bit=plan.load_in_4bit, stored={}) if expands else None
        decoder = make_decoder(sizes, plan.lora, dtype, device, layouts, plan.resident_layers)
    for weight in nf4_weights(decoder).values():
        weight.take(random(weight.shape.rows, weight.shape.columns))
    for linear in fp8_linears(decoder.layers):
        linear.weight.take(random(linear.outputs, linear.inputs))
    for name, place in destinations(decoder).items():
        if "norm" in name:
            place.fill_(1.0)
        elif name.endswith("bias"):
            place.zero_()
        else:
            place.copy_(random(*place.shape))
    spread_qk_norms(decoder)
    decoder.lora.initialise(plan.training.seed)
    return decoder


def train(
    decoder: PackedDecoder, plan: Plan, examples: Sequence[Any], after_step: Callable[[int], bool]
) -> None:
    """Run the loop until `after_step` says True."""
    step = TimedStep(decoder, plan, after_step)
    checkpoints = Checkpoints(plan.model / "checkpoints")
    fit(step, plan, Data(examples), no_report, lambda: step.stop, checkpoints)


def in_step_order(examples: Sequence[Any], plan: Plan) -> list[Any]:
    """The examples as dictionaries, one after the other as the loop's steps take them, for the other side."""
    order = step_order(plan, [len(example.input_ids) for example in examples])
    return [examples[i]._asdict() for step in range(order.steps_per_epoch) for i in order.examples(step)]


@dataclass
class HostProfile:
    """Call `tick` after each optimizer step until `done`, then print `result`.

    The steps timed come first, because the profiler itself slows the host down. The host's time for a step
    ends when the device has been given the step, so it is below the step's time only if the device is slower.
    """

    cuda: bool
    warmup_steps: int = 30
    timed_steps: int = 30
    profiled_steps: int = 5
    done: bool = False
    _step: int = 0
    _since: float = 0.0
    _host_s: float = 0.0
    _wall_s: float = 0.0
    _profile: Any = None

    def tick(self, tokens: int) -> None:
        """An optimizer step has been given to the device."""
        self._step += 1
        step = self._step - self.warmup_steps
        if step == 0:
            self._wait()
            self._since = time.perf_counter()
        elif step == self.timed_steps:
            self._host_s = time.perf_counter() - self._since
            self._wait()
            self._wall_s = time.perf_counter() - self._since
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self.cuda
            self._profile = profile(activities=activities)
            self._profile.__enter__()
        elif step == self.timed_steps + self.profiled_steps:
            self._wait()
            self._profile.__exit__(None, None, None)
            self.done = True

    def result(self) -> str:
        events = self._profile.key_averages()
        per_step = 1 / self.profiled_steps
        launches = sum(e.count for e in events if "Launch" in e.key) * per_step
        operators = sum(e.count for e in events if e.key.startswith("aten::")) * per_step
        kernels = [e for e in events if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
        device_ms = sum(e.self_device_time_total for e in kernels) * per_step / 1e3
        return "\n".join(
            [
                f"ms a step: {self._wall_s / self.timed_steps * 1e3:.1f}, of which the host issued for"
                f" {self._host_s / self.timed_steps * 1e3:.1f}; the device was busy for {device_ms:.1f}",
                f"a step launches {launches:.0f} kernels in {operators:.0f} operators",
                events.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=70),
                events.table(sort_by="self_device_time_total", row_limit=25, max_name_column_width=70)
                if self.cuda
                else "",
            ]
        )

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
