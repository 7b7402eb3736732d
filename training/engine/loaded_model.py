"""A model that is loaded once: train it, measure it, ask it, read and set its adapter."""

from __future__ import annotations

import gc
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..config.results import Reply
from ..data.tokens.example import Example
from ..events import Phase, Report, ShouldStop, never_stop
from ..files.atomic_folder import write_files
from ..models.tokenizer import load_tokenizer
from .generate import Prompt, Sampling, generate, replies
from .loop.checkpoints import Checkpoints
from .loop.example_losses import ExampleLoss, example_losses
from .loop.fit import fit
from .loop.step import TrainingStep
from .out_of_memory import memory_errors
from .peft_adapter import adapter_files, named_matrices
from .plan import Data, Outcome, Plan


class UnavailableError(Exception):
    """Why an engine cannot train a run, as part of a sentence; another engine may."""


class LoadedModel(Protocol):
    """A base model with its adapter, in memory."""

    def train(self, data: Data, report: Report, should_stop: ShouldStop, checkpoints: Checkpoints) -> Outcome:
        """Train the adapter as planned and write it; afterwards the model's adapter is the one written.

        Raises:
            UnavailableError: this engine cannot train this run.
            GpuOutOfMemoryError, TrainingError, InputError, DiskFullError: as the engines say.
        """
        ...

    def losses(self, examples: Sequence[Example]) -> list[ExampleLoss]:
        """The loss of each example with the adapter as it is, without dropout."""
        ...

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, adapter: bool = True) -> list[str]:
        """Greedy answers, in the order of the prompts.

        Args:
            adapter: False gives the base model's answers.
        """
        ...

    def continuations(
        self,
        rows: Sequence[Sequence[int]],
        tokenizer: Any,
        max_new_tokens: int,
        should_stop: ShouldStop = never_stop,
        *,
        adapter: bool = True,
    ) -> list[Reply]:
        """The greedy answer to each row of input ids; fewer if asked to stop.

        Args:
            adapter: as for `generate`.
        """
        ...

    def adapter_values(self) -> Tensor:
        """A copy of all LoRA matrices end to end, (parameters,) in fp32, on the model's device."""
        ...

    def set_adapter_values(self, values: Tensor) -> None:
        """Take over LoRA matrices, laid out as `adapter_values` gives them."""
        ...


class ModelStep(TrainingStep, Protocol):
    """A step of our loop that can generate as well."""

    def peft_model(self) -> Any:
        """A transformers model with the same weights and the same LoRA, set to evaluate."""
        ...


class StepModel:
    """The loaded model of an engine that trains by a step in our loop."""

    def __init__(self, step: ModelStep, plan: Plan) -> None:
        self.step = step
        self.plan = plan
        self.holds_training_memory = False

    def train(self, data: Data, report: Report, should_stop: ShouldStop, checkpoints: Checkpoints) -> Outcome:
        report(Phase(phase="training", message="training"))
        self.holds_training_memory = True
        self.step.lora.gradients.zero_()  # a run before may have ended in the middle of a step
        with memory_errors(self.plan, "training"):
            return fit(self.step, self.plan, data, report, should_stop, checkpoints)

    def losses(self, examples: Sequence[Example]) -> list[ExampleLoss]:
        return example_losses(self.step, examples, self.plan.micro_batch_tokens)

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, adapter: bool = True) -> list[str]:
        with self._to_answer(adapter=adapter) as model:
            return generate(model, self._tokenizer, prompts, max_new_tokens)

    def continuations(
        self,
        rows: Sequence[Sequence[int]],
        tokenizer: Any,
        max_new_tokens: int,
        should_stop: ShouldStop = never_stop,
        *,
        adapter: bool = True,
    ) -> list[Reply]:
        with self._to_answer(adapter=adapter) as model:
            return replies(model, tokenizer, rows, Sampling(max_new_tokens), should_stop=should_stop)

    @contextmanager
    def _to_answer(self, *, adapter: bool) -> Generator[Any]:
        """The model of transformers while the context lasts, with its adapter or without."""
        if self.holds_training_memory:
            self._release()
        with memory_errors(self.plan, "answering"):
            model = self.step.peft_model()
            with nullcontext() if adapter else model.disable_adapter():
                yield model

    def adapter_values(self) -> Tensor:
        return self.step.lora.values.clone()

    def set_adapter_values(self, values: Tensor) -> None:
        self.step.lora.values.copy_(values)
        self.step.refresh()

    def planned(self, plan: Plan) -> StepModel:
        """The same model, to be trained by another plan of the same base, LoRA and device."""
        return StepModel(self.step, plan)

    def adapter_weights(self) -> dict[str, Tensor]:
        """A copy of the LoRA matrices on the CPU, under PEFT's names."""
        return {
            name: matrix.detach().cpu().clone() for name, matrix in named_matrices(self.step.lora).items()
        }

    def set_adapter_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over all LoRA matrices, named as `adapter_weights` names them."""
        for name, matrix in named_matrices(self.step.lora).items():
            matrix.copy_(weights[name])
        self.step.refresh()

    def write_adapter(self) -> Path:
        """Write the adapter as it is to the plan's folder."""
        write_files(self.plan.adapter, adapter_files(self.step.lora, self.step.adapter))
        return self.plan.adapter

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.plan.model)

    def _release(self) -> None:
        """Give back what a training has left: answers need memory for caches of their own."""
        self.holds_training_memory = False
        self.step.release()
        if self.step.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
