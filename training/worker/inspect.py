"""A look at a dataset, carried out by a worker of the short lane: it needs the model's tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..data.report.inspection import inspect
from ..data.tokens.tokenizer_files import TokenizerFiles
from ..errors import ModelLoadError
from .context import Work, use_threads


def carry_out(work: Work, take_turn: Callable[[], None]) -> None:
    """Inspect the run's dataset; the result is what `Inspection.as_dict` gives.

    Raises:
        DatasetError: the dataset cannot be read at all. Bad rows are findings.
    """
    spec = work.run.spec()
    assert spec.kind == "inspect"
    take_turn()
    tokenizer, missing = _tokenizer(work)
    work.journal.phase("preparing", "inspecting the dataset")
    result = inspect(
        spec.data,
        tokenizer,
        preview=spec.preview,
        cache=work.home / "cache" / "inspections",
        permit=work.permit,
        report=work.report,
        should_stop=work.should_stop,
    )
    found = result.as_dict()
    if missing:
        note = f"Tokens are not counted and nothing is previewed: {missing.message}"
        found["notes"] = [note, *found["notes"]]
        found["remedy"] = found["remedy"] or (missing.hint or "Give another model").rstrip(".")
    work.journal.completed(found)


def _tokenizer(work: Work) -> tuple[Any, ModelLoadError | None]:
    """The model's tokenizer; or None and the reason, where it can be done without."""
    use_threads(None)
    try:
        path = work.model_folder(weights=False)
    except ModelLoadError as error:
        return None, error
    work.journal.phase("loading", "loading the tokenizer")
    try:
        return TokenizerFiles(path), None
    except ModelLoadError:  # no tokenizer.json: an older form, which transformers converts
        from ..models.tokenizer import load_tokenizer

        return load_tokenizer(path), None
