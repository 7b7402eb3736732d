"""The questions of a run, answered by the base model and by the trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.results import Answer
from ..config.specs import EvaluationGroup
from ..events import Phase, Report, ShouldStop
from .generate import TOGETHER, Prompt
from .loaded_model import LoadedModel


def ask_before_and_after(
    model: LoadedModel,
    tokenizer: Any,
    evaluation: EvaluationGroup,
    report: Report,
    should_stop: ShouldStop,
) -> list[Answer]:
    """Answer each question twice: with the adapter off, which is the model before training, and on.

    Returns:
        One answer each; fewer when asked to stop.
    """
    answers: list[Answer] = []
    questions, longest = evaluation.questions, evaluation.max_new_tokens
    for start in range(0, len(questions), TOGETHER):
        if should_stop():
            break
        batch = questions[start : start + TOGETHER]
        prompts = [as_prompt(question, evaluation.system, tokenizer) for question in batch]
        last = start + len(batch)
        these = f"question {last}" if len(batch) == 1 else f"questions {start + 1} to {last}"
        asked = f"{these} of {len(questions)}"
        report(Phase(phase="answering", message=f"{asked}: answers before training"))
        before = model.generate(prompts, max_new_tokens=longest, adapter=False)
        report(Phase(phase="answering", message=f"{asked}: answers after training"))
        after = model.generate(prompts, max_new_tokens=longest)
        answers += [
            Answer(question=question, before=old, after=new)
            for question, old, new in zip(batch, before, after, strict=True)
        ]
    return answers


def as_prompt(
    question: str, system: str | None, tokenizer: Any, earlier: Sequence[Mapping[str, str]] = ()
) -> Prompt:
    """The question as a conversation, or as plain text for a model without a chat template.

    Args:
        earlier: turns before the question.
    """
    if not tokenizer.chat_template:
        return question
    turns = [] if system is None else [{"role": "system", "content": system}]
    return [*turns, *earlier, {"role": "user", "content": question}]
