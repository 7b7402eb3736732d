"""A look at a dataset in the caller's own process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from .config.settings import load_settings
from .config.specs import TrainArguments
from .data.report.inspection import inspect
from .data.report.inspection_result import Inspection
from .models.resolve import resolve_model
from .requests.build import inspect_spec
from .requests.dataset_source import named_source


def inspect_dataset(
    dataset: str | Path | Sequence[str | Path],
    model: str | None = None,
    *,
    preview: int = 3,
    **settings: Unpack[TrainArguments],
) -> Inspection:
    """What is in a dataset, what is wrong with it line by line, and what the model will see.

    Args:
        dataset: a file, a pattern, a folder, a list of files, or a Hub dataset.
        model: counts tokens with this model's tokenizer, and shows rows in its chat template; None: neither.
        preview: how many rows to show.
        settings: data settings by their flat names, e.g. `max_seq_length=1024`.

    Raises:
        InputError: the dataset or a setting is not what was expected.
        DatasetError: the dataset cannot be read at all; bad rows are findings.
        ModelLoadError: the model's tokenizer cannot be had.
    """
    defaults = load_settings()
    arguments: dict[str, Any] = {**settings, "dataset": named_source(dataset), "model": model}
    spec = inspect_spec(defaults, arguments=arguments, preview=preview)
    tokenizer = None
    if model is not None:
        from .models.tokenizer import load_tokenizer

        models = defaults.home / "models"
        folder = resolve_model(spec.model.name, spec.model.revision, models, weights=False)
        tokenizer = load_tokenizer(folder)
    return inspect(spec.data, tokenizer, preview=preview)
