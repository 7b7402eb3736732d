"""What follows once an adapter is saved: a failure is a warning, since nothing of the training is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..config.results import Answer, TrainingResult
from ..config.specs import EvaluationGroup
from ..errors import RunInterruptedError, describe
from ..runs.recorder import as_record
from .context import RunContext
from .save_adapter import copy_adapter_folder

if TYPE_CHECKING:
    from ..engine.loaded_model import LoadedModel

R = TypeVar("R", bound=TrainingResult)


def carry_on(context: RunContext, result: R, later: Sequence[Callable[[R], R]]) -> R:
    """The result after some more steps, without those that failed.

    Raises:
        RunInterruptedError: another process that has a part of the model is gone.
    """
    for step in later:
        try:
            result = step(result)
        except RunInterruptedError:
            raise
        except Exception as error:
            record = as_record(error, context.run.log_path)
            context.recorder.warn(f"The adapter is saved; a later step failed: {describe(record)}")
    return result


def copied(context: RunContext, output: str | None, result: R) -> R:
    """The result with the path of the adapter's copy, if the request wants one."""
    if output is None:
        return result
    context.permit_output(Path(output))
    return result.model_copy(update={"output": copy_adapter_folder(context.run.adapter_path, output)})


def answers(
    context: RunContext, evaluation: EvaluationGroup, tokenizer: Any, model: LoadedModel
) -> list[Answer]:
    """To the user's questions, without the adapter and with it."""
    from ..engine.questions import ask_before_and_after

    context.recorder.phase("answering", f"questions to ask before and after: {len(evaluation.questions)}")
    return ask_before_and_after(model, tokenizer, evaluation, context.report, context.should_stop)


def card(context: RunContext, tokenizer: Any, result: TrainingResult) -> str:
    """The adapter's model card."""
    from ..export.hub.model_card import run_card
    from ..export.hub.run_facts import RunFacts

    return run_card(RunFacts.of(context.run, result), "adapter", chat=bool(tokenizer.chat_template))
