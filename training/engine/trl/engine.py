"""The TRL engine: `SFTTrainer`, fed with our own `input_ids` and `labels`, reporting our own events.

It has no checkpoints of ours: a run that was interrupted begins again.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from ...data.tokens.example import Example
from ...errors import TrainingError
from ...events import Epoch, Phase, Report, ShouldStop, Step, Warned
from ...files.atomic_folder import write_files
from ...models.tokenizer import load_tokenizer
from ..autograd.engine import load_autograd_step
from ..loaded_model import StepModel
from ..loop.checkpoints import Checkpoints
from ..loop.example_losses import ExampleLoss
from ..loop.lr_schedule import warmup_steps
from ..loop.metrics import StepClock, evaluated, evaluation_progress, timed
from ..loop.packing import is_worth_evaluating_before, step_order, total_steps
from ..out_of_memory import memory_errors
from ..peft_adapter import adapter_files
from ..plan import Data, Outcome, Plan

TOGETHER = 32
"""Held-out rows between two looks at whether to stop."""


def open_trl(plan: Plan, report: Report) -> TrlModel:
    """The model of `plan` with a new LoRA, or the one that it continues from.

    Raises:
        ModelLoadError: the model cannot be loaded.
        InputError: the adapter to continue from does not fit, or a target module does not exist.
        GpuOutOfMemoryError: it does not fit into memory.
    """
    return TrlModel(load_autograd_step(plan), plan, load_autograd_step, report)


class TrlModel(StepModel):
    """The autograd engine's model, trained by TRL's loop."""

    def train(self, data: Data, report: Report, should_stop: ShouldStop, checkpoints: Checkpoints) -> Outcome:
        if self.plan.resume:
            report(Warned(message="TRL's engine keeps no checkpoints: the run begins again."))
        if self.plan.evaluation.patience is not None:
            report(Warned(message="TRL's engine does not stop early: patience is not used."))
        if self.plan.training.checkpoint_every_steps is not None:
            report(Warned(message="TRL's engine keeps no checkpoints: checkpoint_every_steps is not used."))
        with (
            memory_errors(self.plan, "training"),
            tempfile.TemporaryDirectory(prefix="backpropagate-") as scratch,
        ):
            return self._train(data, report, should_stop, Path(scratch))

    def _train(self, data: Data, report: Report, should_stop: ShouldStop, scratch: Path) -> Outcome:
        plan, model = self.plan, self.step.peft_model()
        self.holds_training_memory = True
        started = time.perf_counter()
        model.config.use_cache = False
        order = step_order(plan, [len(e.input_ids) for e in data.train])
        steps = total_steps(plan, order)
        # TRL's own evaluation is a mean of its batches' means, and so depends on batch_size.
        held_out = partial(self._held_out_loss, data.held_out, report, should_stop)
        every = plan.evaluation.eval_every if len(data.held_out) else None
        observer = _Observer(steps, report, should_stop, held_out, every)
        trainer = _trainer(plan, steps, model, data, observer, scratch)
        if is_worth_evaluating_before(data, order, steps):
            observer.evaluate("evaluating the model as it is")
        if not observer.stopped:
            report(Phase(phase="training", message="training"))
            trainer.train()  # pyright: ignore[reportUnknownMemberType]
        if len(data.held_out) and not observer.stopped and observer.evaluated != observer.step:
            observer.evaluate()
        # What it wrapped around the model's forward pass would keep casting in losses and answers.
        accelerator: Any = trainer.accelerator  # half typed
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        write_files(plan.adapter, adapter_files(self.step.lora, self.step.adapter))
        seconds = time.perf_counter() - started - observer.waited
        return Outcome(
            status="cancelled" if observer.stopped else "completed",
            engine="trl",
            reason=plan.reason,
            adapter=plan.adapter,
            steps=observer.step,
            total_steps=steps,
            train_loss=observer.loss,
            eval_loss=None if observer.stopped or not observer.evaluated else observer.eval_loss,
            eval_loss_before=observer.eval_loss_before,
            tokens=observer.tokens,
            seconds=seconds,
            tokens_per_s=observer.tokens / seconds,
        )

    def _held_out_loss(
        self, examples: Sequence[Example], report: Report, should_stop: ShouldStop, doing: str
    ) -> float | None:
        """The mean per label token, in smaller parts if memory runs out; None if told to stop.

        Args:
            doing: what users are told that the training does meanwhile.
        """
        at, at_once = evaluation_progress(report, doing, "rows"), self.measured_at_once.tokens
        losses: list[ExampleLoss] = []
        for start in range(0, len(examples), TOGETHER):
            if should_stop():
                return None
            at(start, len(examples))
            losses += self.losses(examples[start : start + TOGETHER])
        if self.measured_at_once.tokens < at_once:
            report(_in_smaller_parts(self.measured_at_once.tokens))
        return sum(loss.total for loss in losses) / max(1, sum(loss.label_tokens for loss in losses))


def _in_smaller_parts(tokens: int) -> Warned:
    return Warned(
        message=f"Memory ran out while evaluating: held-out rows go on with at most {tokens} tokens at once, "
        "with the same result."
    )


def _batch(plan: Plan, examples: int) -> int:
    return min(plan.batch_size, examples)


def _accumulation(plan: Plan) -> int:
    return plan.training.gradient_accumulation_steps


def _trainer(
    plan: Plan, steps: int, model: Any, data: Data, observer: _Observer, scratch: Path
) -> SFTTrainer:
    trainer = SFTTrainer(
        model=model,
        args=_arguments(plan, steps, data, scratch),
        train_dataset=_dataset(data.train),
        processing_class=load_tokenizer(plan.model),
        callbacks=[observer],
    )
    if plan.data.order != "shuffled":
        sampler: Any = SequentialSampler(data.train)
        trainer._get_train_sampler = MethodType(lambda *_: sampler, trainer)  # pyright: ignore[reportPrivateUsage, reportUnknownLambdaType]
    # Both print to stdout.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _dataset(examples: Sequence[Example]) -> Dataset:
    columns = {"input_ids": [e.input_ids for e in examples], "labels": [e.labels for e in examples]}
    return Dataset.from_dict(columns)  # pyright: ignore[reportUnknownMemberType]


def _arguments(plan: Plan, steps: int, data: Data, scratch: Path) -> SFTConfig:
    on_gpu, examples = plan.device == "cuda", len(data.train)
    schedule = plan.training.lr_scheduler
    return SFTConfig(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=_batch(plan, examples),
        gradient_accumulation_steps=_accumulation(plan),
        learning_rate=plan.learning_rate,
        lr_scheduler_type="constant_with_warmup" if schedule == "constant" else schedule,
        warmup_steps=min(warmup_steps(plan, steps), steps - 1),
        weight_decay=plan.training.weight_decay,
        max_grad_norm=plan.training.max_grad_norm,
        optim="adamw_torch_fused",
        seed=plan.training.seed,
        data_seed=plan.training.seed,
        # SFTConfig turns both on, also where they only cost time.
        bf16=on_gpu,
        gradient_checkpointing=on_gpu and plan.training.recompute != "nothing",
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would show a diverged loss as 0
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class _Observer(TrainerCallback):
    """Reports each step, and stops within one."""

    def __init__(
        self,
        total: int,
        report: Report,
        should_stop: ShouldStop,
        held_out_loss: Callable[[str], float | None],
        evaluate_every: int | None,
    ) -> None:
        self._report = report
        self._held_out_loss = held_out_loss
        self._evaluate_every = evaluate_every
        self._should_stop = should_stop
        self._total = total
        self._clock = StepClock(total)
        self.step = 0
        self.tokens = 0
        self.stopped = False
        self.waited = 0.0
        self.loss: float | None = None
        self.eval_loss: float | None = None
        self.eval_loss_before: float | None = None
        self.evaluated = 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.step = state.global_step
        stop, waited = timed(self._should_stop)
        self._leave_out(waited)
        if stop and self.step < self._total:
            self.stopped = True
            control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._report(Epoch(epoch=round(state.epoch or 0), step=state.global_step))

    def evaluate(self, doing: str = "evaluating") -> None:
        """Measure the held-out loss now, unless told to stop; step 0 is the model as it came."""
        started = time.perf_counter()
        loss = self._held_out_loss(doing)
        self._leave_out(time.perf_counter() - started)
        if loss is None:
            self.stopped = True
            return
        self.evaluated, self.eval_loss = self.step, loss
        if not self.step:
            self.eval_loss_before = loss
        self._report(evaluated(self.step, loss))

    def _leave_out(self, seconds: float) -> None:
        """So much time was not spent on training."""
        self._clock.leave_out(seconds)
        self.waited += seconds

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        self.loss = round(float(logs["loss"]), 6)
        if not math.isfinite(self.loss):
            raise TrainingError(
                f"The loss of step {state.global_step} is {self.loss}.",
                hint="Use a lower learning_rate, more warmup_steps, or max_grad_norm=1.",
            )
        self.tokens = int(logs.get("num_tokens", 0))
        tokens_per_s, eta_s = self._clock.tick(state.global_step, self.tokens)
        self._report(
            Step(
                step=state.global_step,
                total_steps=self._total,
                loss=self.loss,
                learning_rate=logs.get("learning_rate"),
                grad_norm=logs.get("grad_norm"),
                tokens_per_s=tokens_per_s,
                eta_s=eta_s,
            )
        )
        if self._evaluate_every and self.step % self._evaluate_every == 0 and not self.stopped:
            self.evaluate()
            control.should_training_stop = control.should_training_stop or self.stopped
            if self.step < self._total and not self.stopped:
                self._report(Phase(phase="training", message="training"))
