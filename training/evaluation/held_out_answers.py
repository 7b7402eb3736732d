"""A few held-out questions: what the base model says, what the tuned one says, and what is right."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

from ..config.results import Answer, Reply, Verdict
from ..data.chat_template.question_text import question_frame
from ..data.cleaning.untrusted_text import safe_line
from ..data.tokens.example import Example
from ..engine.loaded_model import LoadedModel
from ..events import Phase, Report, ShouldStop, throttled
from .judge import MOST_ROWS, allowed_s
from .other_questions import Answered, last_answer

QUESTIONS = 3
LONGEST_PROMPT = 512
"""Tokens of a question that is asked, with the turns before it."""
LEAST_TOKENS, MOST_TOKENS = 16, 64
"""Of each answer; between them, half as many more as the longest right answer has."""
SHOWN_CHARACTERS = 400


def with_answers(
    verdict: Verdict,
    model: LoadedModel,
    tokenizer: Any,
    held_out: Sequence[Example],
    positions: int | None,
    seconds: float,
    report: Report,
    should_stop: ShouldStop,
) -> Verdict:
    """The verdict with the answers of both models, or with the reason why there are none.

    Args:
        positions: tokens of the model's context; None if it does not say.
        seconds: of the training; what a verdict may take of them and has not taken is for the answers.
    """
    started = time.monotonic()
    end = started + allowed_s(seconds) - verdict.seconds

    def stopped() -> bool:
        return time.monotonic() > end or should_stop()

    asked = _asked(held_out[:MOST_ROWS], positions)
    answers = _answers(model, tokenizer, asked, throttled(report), stopped) if asked else []
    reason = None
    if not asked:
        reason = "no held-out row has a short question"
    elif not answers:
        reason = "they would take more than a tenth of the training's time"
    taken = round(verdict.seconds + time.monotonic() - started, 2)
    return verdict.model_copy(update={"untrusted_answers": answers, "no_answers": reason, "seconds": taken})


def _answers(
    model: LoadedModel, tokenizer: Any, asked: Sequence[Answered], report: Report, stopped: ShouldStop
) -> list[Answer]:
    """The answers to all questions; none if there was no time for them."""
    rows, length = [one.prompt for one in asked], _length(asked)

    def said(*, adapter: bool) -> list[Reply]:
        if stopped():
            return []
        told = partial(_tell, report, len(rows), length, adapter)
        told(0, 0)
        return model.continuations(rows, tokenizer, length, stopped, told, adapter=adapter)

    before, after = said(adapter=False), said(adapter=True)
    if len(after) < len(asked):
        return []
    frame = question_frame(tokenizer)
    return [
        Answer(
            question=_shown(frame.question(tokenizer.decode(one.prompt))),
            expected=_shown(tokenizer.decode(one.answer, skip_special_tokens=True)),
            before=_shown(old.text),
            after=_shown(new.text),
        )
        for one, old, new in zip(asked, before, after, strict=True)
    ]


def _tell(report: Report, questions: int, length: int, tuned: bool, answered: int, tokens: int) -> None:
    """How far a model is: the base model answers first.

    Args:
        length: tokens of an answer at most.
        tokens: of each of the answers that are being made, after `answered` ones.
    """
    share = (answered + tokens / length) / questions
    by = "the tuned model" if tuned else "the base model"
    message = f"{answered} of {questions} held-out questions answered by {by}, {tokens} tokens of the next"
    report(Phase(phase="judging", message=message, fraction=(tuned + share) / 2))


def _asked(held_out: Sequence[Example], positions: int | None) -> list[Answered]:
    """The first rows whose question is short enough."""
    longest = min(LONGEST_PROMPT, (positions or LONGEST_PROMPT + MOST_TOKENS) - MOST_TOKENS)
    found = (one for one in map(last_answer, held_out) if one is not None and len(one.prompt) <= longest)
    return list(islice(found, QUESTIONS))


def _length(asked: Sequence[Answered]) -> int:
    return min(MOST_TOKENS, max(LEAST_TOKENS, max(len(one.answer) for one in asked) * 3 // 2))


def _shown(text: str) -> str:
    return safe_line(text, SHOWN_CHARACTERS)
