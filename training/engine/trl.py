"""The TRL engine: `SFTTrainer`, fed with our own `input_ids` and `labels`, reporting our own events."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from ..data import Example
from ..errors import GpuOutOfMemoryError
from ..runs.journal import StepClock
from .load import add_lora, load_model
from .plan import Outcome, Plan, Report
from .tokenizer import load_tokenizer


def run(plan: Plan, examples: Sequence[Example], report: Report, should_stop: Callable[[], bool]) -> Outcome:
    """Train as planned with TRL's loop. See `plan.Engine`."""
    report("phase", phase="loading", message=f"loading {plan.model_path.name}")
    try:
        model = add_lora(load_model(plan), plan)
        with tempfile.TemporaryDirectory(prefix="backpropagate-") as scratch:
            observer = _Observer(plan, report, should_stop)
            trainer = _trainer(plan, model, examples, observer, Path(scratch))
            report("phase", phase="training", message="training")
            trainer.train()  # pyright: ignore[reportUnknownMemberType]
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(plan, error) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise _out_of_memory(plan, error) from error
    return Outcome(
        steps=observer.step,
        stopped=observer.stopped,
        first_loss=observer.losses[0] if observer.losses else None,
        final_loss=observer.losses[-1] if observer.losses else None,
        save_adapter=partial(_save, model),
        model=model,
    )


def _trainer(
    plan: Plan, model: Any, examples: Sequence[Example], observer: _Observer, scratch: Path
) -> SFTTrainer:
    dataset = Dataset.from_dict(  # pyright: ignore[reportUnknownMemberType]
        {"input_ids": [e.input_ids for e in examples], "labels": [e.labels for e in examples]}
    )
    trainer = SFTTrainer(
        model=model,
        args=_arguments(plan, scratch),
        train_dataset=dataset,
        processing_class=load_tokenizer(plan.model_path),
        callbacks=[observer],
    )
    # Both print to stdout.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _arguments(plan: Plan, scratch: Path) -> SFTConfig:
    on_gpu = plan.device == "cuda"
    return SFTConfig(
        output_dir=str(scratch),
        max_steps=plan.total_steps,
        per_device_train_batch_size=plan.batch_size,
        gradient_accumulation_steps=plan.gradient_accumulation_steps,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=plan.lr_scheduler if plan.lr_scheduler != "constant" else "constant_with_warmup",
        warmup_steps=plan.warmup_steps,
        weight_decay=plan.weight_decay,
        max_grad_norm=plan.max_grad_norm,
        optim="adamw_torch_fused",
        seed=plan.seed,
        data_seed=plan.seed,
        # SFTConfig turns both on, also where they only cost time.
        bf16=on_gpu,
        gradient_checkpointing=plan.gradient_checkpointing,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class _Observer(TrainerCallback):
    """Reports each step, and stops within one."""

    def __init__(self, plan: Plan, report: Report, should_stop: Callable[[], bool]) -> None:
        self._report = report
        self._should_stop = should_stop
        self._total = plan.total_steps
        self._clock = StepClock(plan.total_steps)
        self.step = 0
        self.stopped = False
        self.losses: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.step = state.global_step
        if self._should_stop() and self.step < self._total:
            self.stopped = True
            control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._report("epoch", epoch=round(state.epoch or 0), step=state.global_step)

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
        loss = round(float(logs["loss"]), 6)
        self.losses.append(loss)
        self._report(
            "step",
            step=state.global_step,
            total_steps=self._total,
            loss=loss,
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            **self._clock.tick(state.global_step, int(logs.get("num_tokens", 0))),
        )


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)


def _out_of_memory(plan: Plan, error: BaseException) -> GpuOutOfMemoryError:
    return GpuOutOfMemoryError(
        f"The {plan.device} ran out of memory with batch_size {plan.batch_size}.",
        hint=f"Try batch_size={max(1, plan.batch_size // 2)}, a smaller max_seq_length, "
        "or load_in_4bit=true.",
        cause=error,
    )
