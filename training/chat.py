"""Talks with a model in the caller's process, and records the conversation as a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .config.results import GeneratedAnswer, GenerateResult, Reply
from .config.specs import GenerateSpec
from .events import Report, ShouldStop, no_report
from .runs.kinds import device_request
from .runs.store import RunStore
from .worker.context import RunContext, WaitForDevice
from .worker.generate import in_4bit, load, result_of
from .worker.in_process import run_in_process

if TYPE_CHECKING:
    from .engine.tuned_model import TunedModel

Turn = dict[str, str]


class Conversation:
    """A conversation with a loaded model, and one with its base beside it; each sees its own answers."""

    def __init__(self, model: TunedModel, spec: GenerateSpec, should_stop: ShouldStop) -> None:
        self._model, self._spec, self._should_stop = model, spec, should_stop
        self.has_template = bool(model.tokenizer.chat_template)
        self.answers: list[GeneratedAnswer] = []
        self._turns: dict[bool, list[Turn]] = {}
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        system = self._spec.system
        for adapter in (False, True):
            self._turns[adapter] = [] if system is None else [{"role": "system", "content": system}]

    def say(self, text: str) -> GeneratedAnswer:
        """What the model answers, and its base.

        Raises:
            InputError: the conversation is longer than the model's context, or its template refuses it.
        """
        tuned = self._reply(text, adapter=True) if self._model.has_adapter else None
        beside = self._spec.compare_base or not self._model.has_adapter
        base = self._reply(text, adapter=False) if beside else None
        answer = GeneratedAnswer(prompt=text, base=base, tuned=tuned)
        self.answers.append(answer)
        return answer

    def _reply(self, text: str, *, adapter: bool) -> Reply | None:
        from .engine.generate import Sampling

        spec = self._spec
        turns = [*self._turns[adapter], {"role": "user", "content": text}]
        rows = self._model.encoded([turns if self.has_template else text])
        room = self._model.room(rows, spec.max_new_tokens)
        sampling = Sampling(room, spec.temperature, spec.top_p, spec.seed + len(self.answers))
        found = self._model.replies(
            rows, sampling, lambda answered, tokens: None, self._should_stop, adapter=adapter
        )
        if found:
            self._turns[adapter] = [*turns, {"role": "assistant", "content": found[0].text}]
        return found[0] if found else None


def chat(
    spec: GenerateSpec,
    store: RunStore,
    runtime_folder: Path | None,
    talk: Callable[[Conversation], None],
    listener: Report = no_report,
) -> None:
    """Load the model of `spec`, and let `talk` lead the conversation, which becomes the run's result.

    Args:
        spec: its first prompt is the first thing that is said.
        runtime_folder: folder of the device queue; None: the user's default.
        listener: called with each event until the model is loaded.

    Raises:
        BackpropagateError: the model cannot be loaded.
    """
    device_request(spec)  # raises before the run is created if the requested GPU is missing

    def converse(context: RunContext, wait_for_device: WaitForDevice) -> None:
        wait_for_device()
        model = load(context, spec, in_4bit(spec))
        conversation = Conversation(model, spec, context.should_stop)
        started = context.recorder.working_s()
        talk(conversation)
        seconds = context.recorder.working_s() - started
        context.recorder.completed(_result(conversation, model, seconds))

    run_in_process(converse, store.create(spec), store, runtime_folder, listener)


def _result(conversation: Conversation, model: TunedModel, seconds: float) -> GenerateResult:
    answers = conversation.answers
    return result_of(answers, len(answers), seconds, model)
