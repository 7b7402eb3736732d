"""The Unsloth engine: Unsloth trains in the Python of another environment, and this process passes it on.

Unsloth wants other versions of our libraries and patches them for a whole process, so it gets a process and
an environment of its own (BACKPROPAGATE_UNSLOTH__PYTHON). It is given the same `input_ids` and `labels` as
every engine, in the same order. Where it cannot train it raises UnavailableError. It has no checkpoints of
ours: a run that was interrupted begins again.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load

from ...errors import GpuOutOfMemoryError, InputError, TrainingError
from ...events import Epoch, Phase, Report, ShouldStop, Step, Warned
from ...planning.step_order import StepOrder
from ...untrusted import quoted, short_name, shown_path
from ..autograd.engine import open_autograd
from ..loaded_model import DelegatingModel, StepModel, UnavailableError
from ..loop.checkpoints import Checkpoints
from ..loop.metrics import StepClock, evaluated, evaluation_progress, timed
from ..loop.packing import step_order, total_steps
from ..out_of_memory import out_of_memory
from ..packed.engine import open_packed
from ..peft_adapter import WEIGHTS, load_into_buffer
from ..plan import Data, Outcome, Plan
from ..select_engine import select_engine
from .process import UnslothProcess, interpreter, write_job


def open_unsloth(plan: Plan, report: Report) -> UnslothModel:
    """Loads nothing: Unsloth's process does, when it trains."""
    return UnslothModel(plan, report)


class UnslothModel(DelegatingModel):
    """Trained by Unsloth in its own process; measured and asked here, by our own engine's model."""

    def __init__(self, plan: Plan, report: Report) -> None:
        self._plan = plan
        self._report = report
        self._adapter: bytes | None = None

    def train(self, data: Data, report: Report, should_stop: ShouldStop, checkpoints: Checkpoints) -> Outcome:
        """Train with Unsloth.

        Raises:
            UnavailableError: Unsloth cannot train this run.
            InputError: there are no examples.
            TrainingError: a loss is not finite, or Unsloth failed after it had begun.
            GpuOutOfMemoryError: a step does not fit into memory.
        """
        if not data.train:
            raise InputError("There are no examples to train on.")
        if self._plan.resume and checkpoints.steps():
            raise UnavailableError("this run's checkpoints are our own engine's")
        outcome = _train(self._plan, data, report, should_stop)
        # Held in memory: the folder is moved once the run is over.
        self._adapter = (outcome.adapter / WEIGHTS).read_bytes()
        self.__dict__.pop("_ours", None)
        return outcome

    def inner(self) -> StepModel:
        return self._ours

    @cached_property
    def _ours(self) -> StepModel:
        """Our own engine's model with the adapter that Unsloth has trained."""
        plan = self._plan
        engine, _ = select_engine(
            plan.model, plan.lora, load_in_4bit=plan.load_in_4bit, max_seq_length=plan.data.max_seq_length
        )
        plan = plan.changed(engine=engine)
        open_it = open_packed if engine == "packed" else open_autograd
        model = open_it(plan, self._report)
        if self._adapter is not None:
            load_into_buffer(plan.adapter, load(self._adapter), model.step.lora)
            model.step.refresh()
        return model


def _train(plan: Plan, data: Data, report: Report, should_stop: ShouldStop) -> Outcome:
    report(Phase(phase="loading", message=f"loading {shown_path(plan.model.name)} with Unsloth"))
    if plan.resume:
        report(Warned(message="Unsloth's engine keeps no checkpoints: the run begins again."))
    if plan.evaluation.patience is not None:
        report(Warned(message="Unsloth's trainer does not stop early: patience is not used."))
    if plan.training.checkpoint_every_steps is not None:
        report(Warned(message="Unsloth's engine keeps no checkpoints: checkpoint_every_steps is not used."))
    python = interpreter()
    shutil.rmtree(plan.adapter, ignore_errors=True)
    order = step_order(plan, [len(example.input_ids) for example in data.train])
    follower = _Follower(plan, order, report)
    with _scratch(plan) as folder, UnslothProcess(python, write_job(folder, plan, data, order)) as process:
        for message in process.messages():
            follower.take(message)
            if message["kind"] in ("step", "evaluating"):
                process.answer(not follower.told_to_stop(should_stop))
        follower.require_done(process)
    return follower.outcome()


@contextmanager
def _scratch(plan: Plan) -> Generator[Path]:
    """A folder for the job beside the adapter: examples may be larger than the folder for temporary files."""
    folder = plan.adapter.with_name(".unsloth")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Follower:
    """Turns what the process tells into events, and into the outcome at the end."""

    plan: Plan
    order: StepOrder
    report: Report
    version: str | None = None
    done: dict[str, Any] | None = None
    step: int = 0
    tokens: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    eval_loss_before: float | None = None
    evaluating_since: float | None = None  # also of an evaluation that was told to stop
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.total_steps = total_steps(self.plan, self.order)
        self.clock = StepClock(self.total_steps)
        self.at = evaluation_progress(self.report, "evaluating", "rows")
        self.at_first = evaluation_progress(self.report, "evaluating the model as it is", "rows")

    def take(self, message: dict[str, Any]) -> None:
        """Raises UnavailableError, TrainingError or GpuOutOfMemoryError if that is what is told."""
        match message["kind"]:
            case "unavailable":
                said = quoted(message["reason"])
                raise UnavailableError(f"in its environment it said {said}; the log of the run has all of it")
            case "ready":
                self._ready(message)
            case "step":
                self._step(message)
            case "evaluating":
                self.evaluating_since = self.evaluating_since or time.perf_counter()
                (self.at if message["step"] else self.at_first)(message["done"], message["total"])
            case "eval":
                self._evaluated(message)
            case "failed":
                raise _failure(self.plan, message, evaluating=self.evaluating_since is not None)
            case _:
                self.done = message

    def told_to_stop(self, should_stop: ShouldStop) -> bool:
        stop, waited = timed(should_stop)
        if self.evaluating_since is None:  # or it is left out with the evaluation
            self._leave_out(waited)
        return stop

    def _leave_out(self, seconds: float) -> None:
        """So much time was not spent on training."""
        self.clock.leave_out(seconds)
        self.started += seconds

    def _evaluated(self, message: dict[str, Any]) -> None:
        self.eval_loss = message["loss"]
        if not message["step"]:
            self.eval_loss_before = self.eval_loss
        if self.evaluating_since is not None:
            self._leave_out(time.perf_counter() - self.evaluating_since)
            self.evaluating_since = None
        self.report(evaluated(message["step"], message["loss"]))

    def _ready(self, message: dict[str, Any]) -> None:
        self.version = message["version"]
        self.clock = StepClock(self.total_steps)
        self.started = time.perf_counter()
        self.report(Phase(phase="training", message=f"training with Unsloth {short_name(self.version)}"))

    def _step(self, message: dict[str, Any]) -> None:
        self.step, self.loss = message["step"], float(message["loss"])
        self.tokens += sum(self.order.lengths[row] for row in self.order.examples(self.step - 1))
        if not math.isfinite(self.loss):
            raise TrainingError(f"The loss of step {self.step} is {self.loss}.", hint="Lower learning_rate.")
        tokens_per_s, eta_s = self.clock.tick(self.step, self.tokens)
        self.report(
            Step(
                step=self.step,
                total_steps=self.total_steps,
                loss=self.loss,
                learning_rate=message["learning_rate"],
                grad_norm=message["grad_norm"],
                tokens_per_s=tokens_per_s,
                eta_s=eta_s,
            )
        )
        epoch, rest = divmod(self.step, self.order.steps_per_epoch)
        if not rest:
            self.report(Epoch(epoch=epoch, step=self.step))

    def require_done(self, process: UnslothProcess) -> None:
        """Raises if the process ended without a word."""
        if self.done is not None:
            return
        end = f"its process ended with exit code {process.exit_code()}; the log of the run says more"
        if self.version is None:
            raise UnavailableError(end)
        raise TrainingError(f"Unsloth failed after step {self.step}: {end}.", hint='Try engine="auto".')

    def outcome(self) -> Outcome:
        assert self.done is not None
        seconds = time.perf_counter() - self.started
        batches = "padded batches" if self.done["padded"] else "batches without padding"
        whole = self.step >= self.total_steps and self.evaluating_since is None  # nor stopped in the last one
        return Outcome(
            status="completed" if whole else "cancelled",
            engine="unsloth",
            reason=f"{self.plan.reason}; Unsloth {short_name(self.version)}, {batches}",
            adapter=self.plan.adapter,
            steps=self.step,
            total_steps=self.total_steps,
            train_loss=self.loss,
            eval_loss=self.eval_loss,
            eval_loss_before=self.eval_loss_before,
            tokens=self.tokens,
            seconds=seconds,
            tokens_per_s=self.tokens / seconds,
            peak_memory_mib=self.done["peak_memory_mib"],
        )


def _failure(plan: Plan, message: dict[str, Any], *, evaluating: bool) -> TrainingError | GpuOutOfMemoryError:
    if not message["out_of_memory"]:
        return TrainingError("Unsloth failed.", hint='Try engine="auto".', untrusted=message["reason"])
    if evaluating:
        said = "Unsloth ran out of memory over a held-out row."
        return out_of_memory(plan, "evaluating", said, message["reason"])
    said = f"Unsloth ran out of memory with batch_size {plan.batch_size}."
    return out_of_memory(plan, "training", said, message["reason"])
