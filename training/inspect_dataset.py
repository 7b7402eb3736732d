"""Inspects a dataset in the caller's process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from .config.arguments import TrainArguments
from .config.settings import load_settings
from .data.report.inspection import inspect
from .data.report.inspection_result import Inspection
from .events import never_stop, no_report
from .files.paths import PathPolicy
from .files.permitted_folders import PermittedFolders
from .models.model_folder import require_small_files
from .models.presets import classify_model
from .models.resolve import resolve_model
from .models.token_limits import TokenLimits, token_limits
from .models.tokenizer import load_tokenizer
from .requests.dataset_source import named_source, resolved_source
from .requests.inspect import inspect_spec
from .requests.rows_in_memory import as_file


def inspect_dataset(
    dataset: str | Path | Sequence[str | Path] | Sequence[Mapping[str, Any]] | Any,
    model: str | None = None,
    *,
    preview: int = 3,
    **settings: Unpack[TrainArguments],
) -> Inspection:
    """Inspects a dataset: its content, its problems by line, and what the model will see.

    Args:
        dataset: a file, a pattern, a folder, a list of files, a Hub dataset, a list of dicts, or a dataset
            of the library `datasets`.
        model: its tokenizer and chat template give token counts and the preview; None: neither.
        preview: number of rows to show.
        settings: data settings by their flat names, e.g. `max_seq_length=1024`.

    Raises:
        InputError: the dataset or a setting is not valid.
        PathForbiddenError: a file is in a system folder or in a folder of credentials.
        DatasetError: the dataset cannot be read. Bad rows are findings.
        ModelLoadError: the model's tokenizer cannot be loaded.
    """
    defaults = load_settings()
    paths = PathPolicy.for_person(defaults.home)
    source = resolved_source(named_source(as_file(dataset, defaults.home)), paths)
    arguments: dict[str, Any] = {**settings, "dataset": source, "model": model}
    spec = inspect_spec(defaults, arguments=arguments, preview=preview)
    tokenizer, limits = None, TokenLimits()
    if model is not None:
        folder = resolve_model(
            spec.model.name,
            spec.model.revision,
            defaults.home / "models",
            no_report,
            never_stop,
            weights=False,
        )
        permitted = PermittedFolders(paths)
        if classify_model(spec.model.name).kind == "folder":
            permitted.permit(folder, "model")
        require_small_files(folder)
        tokenizer, limits = load_tokenizer(folder), token_limits(folder)
        permitted.require_unchanged()
    return inspect(spec.data, tokenizer, preview=preview, limits=limits, permit=paths.permit)
