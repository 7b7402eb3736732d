"""What a folder contains: a whole model, a LoRA adapter, or neither. Looks at names only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..errors import InputError, ModelLoadError
from ..untrusted import short_name, shown_path
from .safetensors_files import INDEX, WHOLE, weight_files

FolderForm = Literal["adapter", "merged"]
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


def missing_from(folder: Path) -> str | None:
    """What a folder lacks to be a loadable model, for people, or None."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            return "config.json: it contains a LoRA adapter, not a whole model"
        return "config.json"
    try:
        files = weight_files(folder)
    except ModelLoadError:
        return f"a readable {INDEX}"
    if files == [folder / WHOLE] and not files[0].is_file():
        return "weights in .safetensors files (pickle files are not loaded)"
    return next((short_name(path.name) for path in files if not path.is_file()), None)
