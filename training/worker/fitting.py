"""Refuses a training that cannot fit this machine, before anything of its model is downloaded."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from ..config.specs import TrainingSpec
from ..data.tokens.tokenizer_files import TokenizerFiles
from ..errors import GpuMonitoringError, ModelLoadError
from ..planning.fits import require_fit
from ..planning.longest_example import Longest, longest_allowed, longest_found
from ..planning.machine import machine_for
from ..planning.model_facts import model_facts
from ..runs.kinds import gpus_of
from .context import RunContext
from .examples import examples


def require_room(context: RunContext, spec: TrainingSpec) -> None:
    """Looks at config.json: that of a folder, or the Hub's.

    Where `max_seq_length` tokens do not fit, it counts those of the rows. For this it needs the model's
    tokenizer, which is small.

    Raises:
        GpuOutOfMemoryError: no setting fits, with what would.
    """
    with suppress(ModelLoadError, GpuMonitoringError):  # the loading says so
        facts = model_facts(spec.model, context.home / "models", ask_hub=True)
        machine = machine_for(spec.training.device, "largest", gpus=gpus_of(spec))
        require_fit(spec, facts, machine, partial(_longest_example, context, spec))


def _longest_example(context: RunContext, spec: TrainingSpec) -> Longest:
    """The longest of the rows that are trained on, or what is allowed where they cannot be tokenised yet."""
    try:
        folder = context.model_folder(spec.model, weights=False)
        tokenizer = TokenizerFiles(folder)
    except ModelLoadError:
        return longest_allowed(spec)
    context.require_permitted()
    trainings = [spec.model_copy(update={"data": data}) for data in spec.datasets]
    prepared = [examples(context, training, tokenizer, folder).train for training in trainings]
    return longest_found(max((int(found.lengths().tokens.max()) for found in prepared), default=0))
