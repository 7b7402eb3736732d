"""Which models have a short name, and what kind of name a user gave. Cheap: no heavy library, no network."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import InputError, nearest
from ..files.paths import looks_like_path, without_uri
from ..untrusted import quoted, shown_path
from .model_folder import missing_from


class Preset(NamedTuple):
    """A model under a short name: its Hub id, and its size in billions of parameters."""

    hub_id: str
    billions: float


PRESETS: dict[str, Preset] = {
    "smollm2-135m": Preset("HuggingFaceTB/SmolLM2-135M-Instruct", 0.135),
    "qwen3-0.6b": Preset("Qwen/Qwen3-0.6B", 0.6),
    "llama3.2-1b": Preset("meta-llama/Llama-3.2-1B-Instruct", 1.24),
    "qwen3-1.7b": Preset("Qwen/Qwen3-1.7B", 1.72),
    "smollm3-3b": Preset("HuggingFaceTB/SmolLM3-3B", 3.08),
    "qwen2.5-3b": Preset("Qwen/Qwen2.5-3B-Instruct", 3.09),
    "llama3.2-3b": Preset("meta-llama/Llama-3.2-3B-Instruct", 3.21),
    "mistral-7b": Preset("mistralai/Mistral-7B-Instruct-v0.3", 7.25),
    "qwen2.5-7b": Preset("Qwen/Qwen2.5-7B-Instruct", 7.62),
}
AUTO = "auto"
"""The name that stands for a model that fits the machine; a spec never holds it."""
EXAMPLE = "qwen3-0.6b"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*[\w-]", re.ASCII)
HUB_ID_LENGTH = 96


BF16_BYTES = 2e9
"""Of a billion parameters."""


def smaller_preset(stored_bytes: int) -> str | None:
    """The largest preset of at most two thirds of a model with these weights; None if all are larger.

    Args:
        stored_bytes: of the weights in bf16, as most models are stored.
    """
    most = stored_bytes / BF16_BYTES * 2 / 3
    fitting = [name for name, preset in PRESETS.items() if preset.billions <= most]
    return max(fitting, key=lambda name: PRESETS[name].billions, default=None)


class ModelSource(NamedTuple):
    """Where a model comes from: a folder of this machine, or the Hub."""

    kind: Literal["preset", "hub", "folder"]
    location: str
    """The Hub id, or the absolute path of the folder."""


def classify_model(name: str) -> ModelSource:
    """What a model name means: a preset, a local folder, or a Hub id.

    Raises:
        InputError: it is none of these, or the folder lacks a file that a model needs.
    """
    preset = PRESETS.get(name.lower())
    if preset:
        return ModelSource("preset", preset.hub_id)
    if looks_like_path(name):
        return ModelSource("folder", str(_checked_folder(Path(os.path.expanduser(without_uri(name))))))
    if is_hub_id(name):
        return ModelSource("hub", name)
    close = nearest(name.lower(), list(PRESETS))
    raise InputError(
        f"{quoted(name)} is not a model name.",
        hint=(f"Did you mean {close}? " if close else "")
        + f"Give a preset ({', '.join(PRESETS)}), a Hub id such as {PRESETS[EXAMPLE].hub_id}, "
        "or the absolute path of a model folder.",
    )


def _checked_folder(folder: Path) -> Path:
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(
            f"The model folder {shown_path(folder)} {state}.",
            hint="Give the absolute path of a model folder.",
        )
    missing = missing_from(folder)
    if missing:
        raise InputError(
            f"The model folder {shown_path(folder)} lacks {missing}.",
            hint="A model folder holds config.json, the tokenizer and .safetensors weights.",
        )
    return folder.absolute()


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form of a repository of the Hub, `owner/name`."""
    well_formed = HUB_ID.fullmatch(name) and len(name) <= HUB_ID_LENGTH
    return bool(well_formed) and "--" not in name and ".." not in name
