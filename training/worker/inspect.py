"""Executes the inspection of a dataset, in the short queue, since it needs only the model's tokenizer."""

from __future__ import annotations

from typing import Any

from ..config.results import InspectResult
from ..data.report.inspection import inspect
from ..data.tokens.tokenizer_files import TokenizerFiles
from ..errors import ModelLoadError
from ..models.token_limits import TokenLimits, token_limits
from .context import RunContext, WaitForDevice, use_threads


def run(context: RunContext, wait_for_device: WaitForDevice) -> None:
    """Inspect the run's dataset; the result is `Inspection.as_dict`.

    Raises:
        DatasetError: the dataset cannot be read. Bad rows are findings, not errors.
    """
    spec = context.run.spec()
    assert spec.kind == "inspect"
    wait_for_device()
    tokenizer, limits, missing = _tokenizer(context)
    context.require_permitted()
    context.recorder.phase("preparing", "inspecting the dataset")
    result = inspect(
        spec.data,
        tokenizer,
        preview=spec.preview,
        cache=context.home / "cache" / "inspections",
        permit=context.permit,
        report=context.report,
        should_stop=context.should_stop,
        limits=limits,
    )
    found = InspectResult.model_validate(result.as_dict())
    if missing:
        note = f"Tokens are not counted and there is no preview: {missing.message}"
        remedy = found.remedy or (missing.hint or "Give another model").rstrip(".")
        found = found.model_copy(update={"notes": [note, *found.notes], "remedy": remedy})
    context.recorder.completed(found)


def _tokenizer(context: RunContext) -> tuple[Any, TokenLimits, ModelLoadError | None]:
    """The model's tokenizer and limits; or None and the error, since an inspection works without them."""
    use_threads(None)
    try:
        path = context.model_folder(weights=False)
    except ModelLoadError as error:
        return None, TokenLimits(), error
    context.recorder.phase("loading", "loading the tokenizer")
    try:
        return TokenizerFiles(path), token_limits(path), None
    except ModelLoadError:  # no tokenizer.json: an older format, which transformers converts
        from ..models.tokenizer import load_tokenizer

        return load_tokenizer(path), token_limits(path), None
