"""A model and rows in a program's own memory, to look at and to go on with: nothing is recorded as a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config.settings import load_settings
from ..config.specs import ModelReference
from ..data.readers.rows import BadRow
from ..data.readers.sources import open_source
from ..errors import DatasetParseError, InputError
from ..files.paths import PathPolicy
from ..models.base_identity import BaseIdentity, difference_from
from ..models.presets import classify_model
from ..models.resolve import resolve_model
from ..requests.dataset_source import named_source, resolved_source
from ..requests.generate import reference_values
from ..requests.sources import export_source
from ..runs.store import RunStore
from ..untrusted import shown_path

ROWS_AT_MOST = 1_000_000


def load_model(
    source: str | Path,
    *,
    load_in_4bit: bool | None = None,
    allow_other_base: bool = False,
    home: Path | None = None,
) -> tuple[Any, Any]:
    """A model with its adapter, and its tokenizer, as transformers and PEFT load them.

    Args:
        source: a run's id, the path of an adapter or model folder, or a model's name.
        load_in_4bit: load the base in 4 bits; None: as it was trained.
        allow_other_base: accept a base model that is no longer the one that was trained on.
        home: the home folder with the runs. Default: from the settings.

    Returns:
        A PeftModel, or without an adapter a model of transformers, in evaluation mode; and a tokenizer.

    Raises:
        InputError: the source does not exist, or its base has changed since the training.
        ModelLoadError: the model cannot be loaded.
        GpuOutOfMemoryError: it does not fit into memory.
    """
    home = home or load_settings().home
    store, paths = RunStore(home), PathPolicy.for_person(home)
    given = {"allow_other_base": allow_other_base} | (
        {} if load_in_4bit is None else {"load_in_4bit": load_in_4bit}
    )
    meant = export_source(str(source), store, paths)
    reference = ModelReference.model_validate(reference_values(meant, store, given))
    base = resolve_model(reference.model.name, reference.model.revision, home / "models")
    if classify_model(reference.model.name).kind == "folder":
        paths.permit_links(base, "source")
    adapter = Path(reference.adapter) if reference.adapter else None
    if adapter is not None and not allow_other_base:
        _require_trained_base(adapter, base)
    from ..engine.tuned_model import load_tuned_model, memory_errors

    with memory_errors("loading the model", None):
        loaded = load_tuned_model(base, adapter, load_in_4bit=reference.model.load_in_4bit)
    return loaded.model, loaded.tokenizer


def _require_trained_base(adapter: Path, base: Path) -> None:
    trained = BaseIdentity.of_adapter(adapter)
    changed = trained and difference_from(trained, base)
    if changed:
        raise InputError(
            f"The base model {shown_path(base)} is not the one that was trained on: its {changed} changed.",
            hint="Restore the base model of the training, or set allow_other_base=True.",
        )


def load_dataset(dataset: str | Path | Sequence[str | Path]) -> list[dict[str, Any]]:
    """The rows of a dataset as they stand in its files, to change them and to give them to `Trainer.train`.

    Args:
        dataset: a file, a pattern, a folder, a list of files, or a Hub dataset.

    Raises:
        DatasetError: it does not exist, or a row cannot be read; the message has its place.
        InputError: it has more than a million rows.
    """
    paths = PathPolicy.for_person(load_settings().home)
    rows: list[dict[str, Any]] = []
    for row in open_source(resolved_source(named_source(dataset), paths), permit=paths.permit):
        if isinstance(row, BadRow):
            raise DatasetParseError(f"{row.place}: {row.reason}.", untrusted=row.untrusted)
        if len(rows) == ROWS_AT_MOST:
            raise InputError(f"The dataset has more than {ROWS_AT_MOST:,} rows.", hint="Train on its path.")
        rows.append(row.value)
    return rows
