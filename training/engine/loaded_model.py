"""A model that is loaded once: train it, measure it, ask it, read and set its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from ..config.results import Reply
from ..data.tokens.example import Example
from ..errors import GpuOutOfMemoryError
from ..events import Phase, Report, ShouldStop, never_stop
from ..files.atomic_folder import write_files
from ..models.tokenizer import load_tokenizer
from .device import peak_memory_mib
from .generate import OnTokens, Prompt, Sampling, generate, replies, untold
from .lighter_plan import lighter_plan, said_of
from .load_together import load_together
from .loop.checkpoints import Checkpoints
from .loop.example_losses import ExampleLoss, TokenBudget, example_losses
from .loop.fit import fit
from .loop.step import TrainingStep
from .out_of_memory import Doing, empty_cache, memory_errors
from .parallel.orders import Order
from .parallel.ranks import ALONE, Ranks, is_sharded
from .peft_adapter import adapter_files, named_matrices
from .plan import Data, Outcome, Plan

T = TypeVar("T")


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
        on_tokens: OnTokens = untold,
        *,
        adapter: bool = True,
    ) -> list[Reply]:
        """The greedy answer to each row of input ids; fewer if asked to stop.

        Args:
            on_tokens: told of each token.
            adapter: as for `generate`.
        """
        ...

    def adapter_values(self) -> Tensor:
        """A copy of all LoRA matrices end to end, (parameters,) in fp32, on the model's device."""
        ...

    def set_adapter_values(self, values: Tensor) -> None:
        """Take over LoRA matrices, laid out as `adapter_values` gives them."""
        ...


class DelegatingModel:
    """A loaded model whose training is its own; measured and asked is another one."""

    def inner(self) -> LoadedModel:
        """The one that is measured and asked."""
        raise NotImplementedError

    def losses(self, examples: Sequence[Example]) -> list[ExampleLoss]:
        return self.inner().losses(examples)

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, adapter: bool = True) -> list[str]:
        return self.inner().generate(prompts, max_new_tokens=max_new_tokens, adapter=adapter)

    def continuations(
        self,
        rows: Sequence[Sequence[int]],
        tokenizer: Any,
        max_new_tokens: int,
        should_stop: ShouldStop = never_stop,
        on_tokens: OnTokens = untold,
        *,
        adapter: bool = True,
    ) -> list[Reply]:
        return self.inner().continuations(
            rows, tokenizer, max_new_tokens, should_stop, on_tokens, adapter=adapter
        )

    def adapter_values(self) -> Tensor:
        return self.inner().adapter_values()

    def set_adapter_values(self, values: Tensor) -> None:
        self.inner().set_adapter_values(values)


class ModelStep(TrainingStep, Protocol):
    """A step of our loop that can generate as well."""

    def peft_model(self) -> Any:
        """A transformers model with the same weights and the same LoRA, set to evaluate."""
        ...


class StepModel:
    """The loaded model of an engine that trains by a step in our loop.

    Where memory runs out although the parts are small, the model is loaded again in a way that takes less.

    Args:
        load: makes the step of a plan, with these processes.
        report: is told of that.
        ranks: the processes that share its first training, after which the others end, unless they have
            shards of the weights.
    """

    def __init__(
        self,
        step: ModelStep,
        plan: Plan,
        load: Callable[[Plan, Ranks], ModelStep],
        report: Report,
        ranks: Ranks = ALONE,
    ) -> None:
        self.step = step
        self.plan = plan
        self.ranks = ranks
        self.holds_training_memory = False
        self._load, self._report = load, report
        self.measured_at_once = TokenBudget(plan.micro_batch_tokens)

    def train(self, data: Data, report: Report, should_stop: ShouldStop, checkpoints: Checkpoints) -> Outcome:
        report(Phase(phase="training", message="training"))

        def trained() -> Outcome:
            self.holds_training_memory = True
            self.step.lora.gradients.zero_()  # a run before may have ended in the middle of a step
            return fit(self.step, self.plan, data, report, should_stop, checkpoints, self.ranks)

        outcome = self._in_memory("training", trained)
        self.ranks.say(Order.MEASURE)
        outcome.rank_peaks_mib = [peak for (peak,) in self.ranks.exchange(peak_memory_mib())]
        outcome.peak_memory_mib = max(outcome.rank_peaks_mib)
        if not is_sharded(self.plan, self.ranks):
            self.ranks.say(Order.END)
            self.ranks = ALONE  # what follows is this process's
        return outcome

    def losses(self, examples: Sequence[Example]) -> list[ExampleLoss]:
        return self._in_memory(
            "evaluating", lambda: example_losses(self.step, examples, self.measured_at_once)
        )

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, adapter: bool = True) -> list[str]:
        return self._answers(
            lambda model: generate(model, self._tokenizer, prompts, max_new_tokens), adapter=adapter
        )

    def continuations(
        self,
        rows: Sequence[Sequence[int]],
        tokenizer: Any,
        max_new_tokens: int,
        should_stop: ShouldStop = never_stop,
        on_tokens: OnTokens = untold,
        *,
        adapter: bool = True,
    ) -> list[Reply]:
        return self._answers(
            lambda model: replies(model, tokenizer, rows, Sampling(max_new_tokens), on_tokens, should_stop),
            adapter=adapter,
        )

    def _answers(self, ask: Callable[[Any], T], *, adapter: bool) -> T:
        """What the model of transformers answers, with its adapter or without."""

        def answered() -> T:
            model = self.step.peft_model()
            with nullcontext() if adapter else model.disable_adapter():
                return ask(model)

        if self.holds_training_memory:
            self._release()
        return self._in_memory("answering", answered)

    def _in_memory(self, doing: Doing, work: Callable[[], T]) -> T:
        """The work's result; with a lighter plan, and from its last checkpoint, each time memory runs out."""
        while True:
            try:
                with memory_errors(self.plan, doing):
                    return work()
            except GpuOutOfMemoryError as error:
                plan = lighter_plan(self.plan, doing)
                if plan is None:
                    raise
                self._report(said_of(error.message, self.plan, plan))
            # Outside the except clause: the error's traceback holds the step, and so its memory.
            self._load_again(replace(plan, resume=plan.resume or doing == "training"))

    def _load_again(self, plan: Plan) -> None:
        values = self.step.lora.values.cpu()
        device = self.step.device
        del self.step
        empty_cache(device.type)
        self.step, self.plan = load_together(plan, self._load, self.ranks), plan
        self.set_adapter_values(values.to(device))

    def adapter_values(self) -> Tensor:
        return self.step.lora.values.clone()

    def set_adapter_values(self, values: Tensor) -> None:
        self.step.lora.values.copy_(values)
        self.step.refresh()

    def take_plan(self, plan: Plan) -> None:
        """Train by another plan of the same base, LoRA and device from now on."""
        self.plan = plan

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
        empty_cache(self.step.device.type)
