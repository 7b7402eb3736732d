"""Executes a request for answers: load the model once, ask it with the adapter and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.results import GeneratedAnswer, GenerateResult, Reply
from ..config.specs import GenerateSpec, ModelReference
from ..errors import InputError
from ..events import Phase, throttled
from ..models.presets import classify_model
from ..next_step import Next, then
from ..untrusted import shown_path
from .context import RunContext, WaitForDevice, use_threads
from .export_ahead import why_no_gguf
from .said import told
from .trained_base import require_base_of_adapter

if TYPE_CHECKING:
    from ..engine.tuned_model import TunedModel

BETWEEN = 8
"""Prompts that are answered with and without the adapter before the answers are kept."""


def run(context: RunContext, wait_for_device: WaitForDevice) -> TunedModel:
    """Answer the prompts, and record the result; returns the model, for a next run.

    Raises:
        InputError: the adapter cannot be used, or a prompt is too long.
        ModelLoadError: the model cannot be loaded.
        GpuOutOfMemoryError: it does not fit into memory.
    """
    spec = context.run.spec()
    assert isinstance(spec, GenerateSpec)
    if spec.adapter:
        context.permit_links(Path(spec.adapter), "source")
    wait_for_device()
    model = load(context, spec, in_4bit(spec))
    answer(context, model)
    return model


def load(context: RunContext, meant: ModelReference, less: Next) -> TunedModel:
    """A model with its adapter; raises as `run`.

    Args:
        less: the request that needs less memory, if the base is not in 4 bits already.
    """
    base = context.model_folder(meant.model)
    require_base_of_adapter(context, meant, base)
    use_threads(None)
    context.recorder.phase("loading", f"loading {shown_path(meant.model.name)}")
    from ..engine.tuned_model import load_tuned_model, memory_errors

    with memory_errors("loading the model", None if meant.model.load_in_4bit else less):
        adapter = Path(meant.adapter) if meant.adapter else None
        model = load_tuned_model(base, adapter, load_in_4bit=meant.model.load_in_4bit)
    context.require_permitted()
    context.stop_if_asked()
    return model


def permit_again(context: RunContext, spec: GenerateSpec) -> None:
    """The checks of a run whose model is in memory already.

    Raises:
        PathForbiddenError: this run may not read it.
    """
    if spec.adapter:
        context.permit_links(Path(spec.adapter), "source")
    source = classify_model(spec.model.name)
    if source.kind == "folder":
        context.permit_links(Path(source.location), "model")


def answer(context: RunContext, model: TunedModel, *, warm: bool = False) -> None:
    """Answer the prompts of a run with a model that is loaded, and record the result.

    Args:
        warm: whether an earlier run has loaded it.

    Raises:
        InputError: a prompt is too long, or the chat template refuses it.
        GpuOutOfMemoryError: an answer does not fit into memory.
    """
    from ..engine.tuned_model import memory_errors

    spec = context.run.spec()
    assert isinstance(spec, GenerateSpec)
    asking = _Asking(context, spec, model, warm)
    less = spec.max_new_tokens // 2
    with memory_errors("answering", _again(spec, max_new_tokens=less) if less else None):
        result = asking.result()
    if len(result.answers) < len(spec.prompts):
        context.recorder.cancelled(result)
    else:
        context.recorder.completed(result)


def in_4bit(spec: GenerateSpec) -> Next:
    """The same request with the base in 4 bits."""
    return _again(spec, load_in_4bit=True)


def _again(spec: GenerateSpec, **changed: object) -> Next:
    return then("generate", source=spec.run or spec.adapter or spec.model.name, prompts=..., **changed)


@dataclass(frozen=True)
class _Asking:
    """The prompts of a run, on their way through the model."""

    context: RunContext
    spec: GenerateSpec
    model: TunedModel
    warm: bool

    def result(self) -> GenerateResult:
        """The answers; those that are done are kept in the run's state as well."""
        clock = self.context.recorder.working_s
        started = clock()
        rows = self._rows()
        answers: list[GeneratedAnswer] = []
        while len(answers) < len(rows):
            some = self._answers(rows[len(answers) :][:BETWEEN], len(answers))
            answers += some
            result = self._result(answers, clock() - started)
            if not some:
                return result
            self.context.recorder.keep(result)
        return self._result(answers, clock() - started)

    def _rows(self) -> list[list[int]]:
        from ..engine.questions import as_prompt

        self._look_for_template()
        spec, tokenizer = self.spec, self.model.tokenizer
        earlier = [turn.model_dump() for turn in spec.earlier]
        return self.model.encoded(
            [as_prompt(prompt, spec.system, tokenizer, earlier) for prompt in spec.prompts]
        )

    def _look_for_template(self) -> None:
        """Warn of a missing one; raises InputError where a conversation needs it."""
        if self.model.tokenizer.chat_template:
            return
        if self.spec.earlier:
            raise InputError(
                "The model has no chat template: it can be asked one user message, and no conversation.",
                hint="Send only one user message; it is continued as plain text.",
            )
        warning = "The model has no chat template: each prompt is continued as plain text"
        ignored = "; the system message is not used" if self.spec.system else ""
        self.context.recorder.warn(f"{warning}{ignored}.")

    def _answers(self, rows: list[list[int]], before: int) -> list[GeneratedAnswer]:
        """Answers to these rows, the first of which is the prompt with the number `before`."""
        asked = self.spec.prompts[before:][: len(rows)]
        base: Sequence[Reply | None] = [None] * len(rows)
        tuned: Sequence[Reply | None] = [None] * len(rows)
        if self.model.has_adapter:
            tuned = self._replies(rows, before, adapter=True)
        if self.spec.compare_base or not self.model.has_adapter:
            base = self._replies(rows, before, adapter=False)
        return [
            GeneratedAnswer(prompt=prompt, prompt_tokens=len(row), base=without, tuned=with_it)
            for prompt, row, without, with_it in zip(asked, rows, base, tuned, strict=False)
        ]

    def _replies(self, rows: list[list[int]], before: int, *, adapter: bool) -> list[Reply]:
        from ..engine.generate import Sampling

        spec, report = self.spec, throttled(self.context.report)
        which = "" if adapter or not self.model.has_adapter else " by the base model"
        total = len(spec.prompts)

        def on_tokens(answered: int, tokens: int) -> None:
            said = f"{before + answered} of {total} prompts answered{which}, {tokens} tokens of the next"
            done = (before + answered) / total
            report(Phase(phase="generating", message=said, fraction=min(done, 0.999)))

        on_tokens(0, 0)
        sampling = Sampling(self._room(rows), spec.temperature, spec.top_p, spec.seed + before, spec.stop)
        on_text = told(self.context.report) if spec.stream and not before else None
        stop = self.context.should_stop
        return self.model.replies(rows, sampling, on_tokens, stop, adapter=adapter, on_text=on_text)

    def _room(self, rows: list[list[int]]) -> int:
        """max_new_tokens, or what the model's context has room for."""
        wanted = self.spec.max_new_tokens
        room = self.model.room(rows, wanted)
        if room < wanted:
            self.context.recorder.warn(
                f"Answers have at most {room} tokens, not max_new_tokens={wanted}: the longest prompt has "
                f"{max(map(len, rows))}, and the model's context {self.model.positions}."
            )
        return room

    def _result(self, answers: list[GeneratedAnswer], seconds: float) -> GenerateResult:
        found = result_of(answers, len(self.spec.prompts), seconds, self.model)
        return found.model_copy(update={"warm": self.warm})


def result_of(
    answers: list[GeneratedAnswer], prompts: int, seconds: float, model: TunedModel
) -> GenerateResult:
    """The result of answers of this model to `prompts` prompts."""
    tokens = sum(reply.tokens for each in answers for reply in each.replies)
    return GenerateResult(
        summary=_summary(answers, prompts, tokens, seconds),
        answers=list(answers),
        tokens=tokens,
        seconds=round(seconds, 3),
        tokens_per_s=round(tokens / seconds, 1) if seconds else 0.0,
        device=model.device,
        no_gguf=why_no_gguf(model.base),
    )


def _summary(answers: list[GeneratedAnswer], prompts: int, tokens: int, seconds: float) -> str:
    both = any(len(each.replies) == 2 for each in answers)
    how = " without the adapter (before) and with it (after)" if both else ""
    cut = [place for place, each in enumerate(answers, 1) if not all(one.stopped for one in each.replies)]
    ended = f" Cut at the maximum length: prompt {', '.join(map(str, cut))}." if cut else ""
    return f"{len(answers)} of {prompts} prompts answered{how}: {tokens} tokens in {seconds:.1f} s.{ended}"
