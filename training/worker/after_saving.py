"""What follows once an adapter is saved: a failure is a warning, since nothing of the training is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..config.results import TrainingResult
from ..errors import RunInterruptedError, describe
from ..runs.recorder import as_record
from .context import RunContext
from .save_adapter import copy_adapter_folder

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
