"""The config.json of a model before anything else of it is downloaded: from a folder, a cache, the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.specs import ModelGroup
from ..errors import BackpropagateError, ModelLoadError
from ..files.atomic_json import read_json
from ..models.cached import cached_models
from ..models.causal import require_causal
from ..models.hub import hub_config
from ..models.model_folder import missing_from
from ..models.presets import PRESETS, classify_model
from ..models.safetensors_files import weight_files
from ..models.sizes_in_names import billions_in
from ..untrusted import shown_path
from .decoder_shape import DecoderShape, decoder_shape
from .known_shapes import KNOWN, usual_shape

Config = Mapping[str, Any]


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model.

    Args:
        config: the content of its config.json; None: only its size is known, by its name.
        folder: with all its files; None: they are not on this machine.
        stored: bytes of its weights in the files; of a model that is not here, what they usually take.
        how: where this comes from, as part of a sentence.
    """

    shape: DecoderShape
    config: Config | None
    folder: Path | None
    stored: int
    how: str

    @property
    def download(self) -> int:
        """Bytes that have to be downloaded."""
        return 0 if self.folder else self.stored


def model_facts(model: ModelGroup, models_folder: Path, *, ask_hub: bool) -> ModelFacts | None:
    """What is known of a model; None if nothing is.

    Args:
        models_folder: where models that had to be converted are kept.
        ask_hub: also download its config.json; takes some seconds at most.

    Raises:
        InputError: the name is not a model's, or the model is no causal language model.
        ModelLoadError: its config.json cannot be read, or describes no decoder.
    """
    source = classify_model(model.name, weights=False)
    if source.kind == "folder":
        return _in_folder(Path(source.location), "the config.json of its folder")
    for cached in cached_models(models_folder):
        if cached.hub_id == source.location:
            return _in_folder(cached.folder, "its config.json in the cache")
    if source.location in KNOWN and model.revision is None:
        return _not_here(KNOWN[source.location], "its known sizes")
    asked = hub_config(source.location, model.revision) if ask_hub else None
    if asked is not None:
        return _not_here(asked, "its config.json on the Hub")
    billions = billions_in(source.location)
    if billions is None:
        return None
    shape = usual_shape(billions)
    stored = round(billions * 2e9)
    return ModelFacts(shape, None, None, stored, f"its name: a usual model of {billions:g} billion weights")


def _in_folder(folder: Path, how: str) -> ModelFacts:
    path = folder / "config.json"
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{shown_path(path)} cannot be read: {type(error).__name__}.", cause=error, untrusted=str(error)
        ) from error
    if missing_from(folder):
        return _not_here(config, f"{how}, which has no weights")
    require_causal(config)
    stored = 0
    with suppress(BackpropagateError, OSError):
        stored = sum(file.stat().st_size for file in weight_files(folder))
    return ModelFacts(decoder_shape(config), config, folder, stored, how)


def _not_here(config: Config, how: str) -> ModelFacts:
    require_causal(config)
    shape = decoder_shape(config)
    return ModelFacts(shape, config, None, shape.stored_bytes, how)


def preset_shape(name: str) -> DecoderShape:
    """The sizes of a preset."""
    return decoder_shape(KNOWN[PRESETS[name].hub_id])
