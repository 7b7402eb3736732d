"""Which models have a short name, and what kind of name a user gave. Cheap: no heavy library, no network."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import InputError
from ..files.paths import looks_like_path, without_uri
from ..nearest_name import nearest
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
    "phi4-mini-3.8b": Preset("microsoft/Phi-4-mini-instruct", 3.84),
    "gemma3-4b": Preset("google/gemma-3-4b-it", 3.88),
    "qwen3-4b": Preset("Qwen/Qwen3-4B", 4.02),
    "qwen3.5-4b": Preset("Qwen/Qwen3.5-4B", 4.2),
    "mistral-7b": Preset("mistralai/Mistral-7B-Instruct-v0.3", 7.25),
    "gemma4-e4b": Preset("google/gemma-4-E4B-it", 7.5),
    "qwen2.5-7b": Preset("Qwen/Qwen2.5-7B-Instruct", 7.62),
    "qwen3-8b": Preset("Qwen/Qwen3-8B", 8.19),
    "gpt-oss-20b": Preset("openai/gpt-oss-20b", 20.9),
    "mistral-small-24b": Preset("mistralai/Mistral-Small-24B-Instruct-2501", 23.6),
}
"""The smallest first. Of a model with a vision part, the size is that of its language model."""
SHOWN = ("smollm2-135m", "qwen3-0.6b", "llama3.2-3b", "qwen3-4b", "gemma3-4b", "mistral-7b", "qwen3-8b")
"""Some of them, where all would be too long."""
EARLIER_PRESETS = {
    "llama3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen2.5-14b": "Qwen/Qwen2.5-14B-Instruct",
    "qwen2.5-32b": "Qwen/Qwen2.5-32B-Instruct",
}
"""Presets of earlier versions that are no longer offered, but still known."""
AUTO = "auto"
"""The name that stands for a model that fits the machine; a spec never holds it."""
EXAMPLE = "qwen3-0.6b"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*[\w-]", re.ASCII)
HUB_ID_LENGTH = 96


SPELLING = re.compile(r"(?<=[a-z])-(?=\d)")

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


def hub_id_of(name: str) -> str | None:
    """The Hub id of a preset, in either spelling, or None.

    >>> hub_id_of("llama-3.2-3b") == hub_id_of("llama3.2-3b")
    True
    """
    given = SPELLING.sub("", name.lower())
    known = {preset: found.hub_id for preset, found in PRESETS.items()} | EARLIER_PRESETS
    return next((hub_id for preset, hub_id in known.items() if SPELLING.sub("", preset) == given), None)


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
    preset = hub_id_of(name)
    if preset:
        return ModelSource("preset", preset)
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
