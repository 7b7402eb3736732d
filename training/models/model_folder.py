"""What a folder contains: a whole model, a LoRA adapter, or neither. Looks at names only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..errors import InputError, ModelLoadError
from ..files.atomic_json import JSON_BYTES
from ..untrusted import short_name, shown_path
from .safetensors_files import INDEX, WHOLE, weight_files

FolderForm = Literal["adapter", "merged"]
READ_WHOLE = (
    *("config.json", "generation_config.json", "adapter_config.json", INDEX),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "chat_template.jinja"),
)
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def folder_form(folder: Path) -> FolderForm:
    """What the folder holds.

    Raises:
        InputError: neither an adapter nor a merged model, or one that is not whole.
    """
    if (folder / ADAPTER_FILES[0]).is_file():
        if not (folder / ADAPTER_FILES[1]).is_file():
            raise InputError(
                f"{shown_path(folder)} lacks {ADAPTER_FILES[1]}.",
                hint="Give the folder of a finished adapter.",
            )
        return "adapter"
    missing = missing_from(folder) if folder.is_dir() else "everything: it is not a folder"
    if missing:
        raise InputError(
            f"{shown_path(folder)} lacks {missing}.",
            hint="Give a run's id, or the folder of an adapter or a model.",
        )
    return "merged"


def require_small_files(folder: Path) -> None:
    """Check the files of a folder that are read whole, by us or by transformers, before one is parsed.

    Raises:
        ModelLoadError: one is larger than `JSON_BYTES`.
    """
    for name in READ_WHOLE:
        size = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if size > JSON_BYTES:
            raise ModelLoadError(
                f"{shown_path(folder / name)} has {size:,} bytes; the limit is {JSON_BYTES:,}.",
                hint="Download the model again.",
            )


def missing_from(folder: Path, *, weights: bool = True) -> str | None:
    """What a folder lacks to be a loadable model, for people, or None."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            return "config.json: it contains a LoRA adapter, not a whole model"
        return "config.json"
    if not weights:
        return None
    try:
        files = weight_files(folder)
    except ModelLoadError:
        return f"a readable {INDEX}"
    if files == [folder / WHOLE] and not files[0].is_file():
        return "weights in .safetensors files (pickle files are not loaded)"
    return next((short_name(path.name) for path in files if not path.is_file()), None)
