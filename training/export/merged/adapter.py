"""The adapter alone, in the form that PEFT loads: its two files, tokenizer, chat template and card."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ...errors import LoraExportError
from ...files.atomic_folder import require_space, write_new_folder
from ...models.safetensors_files import read_header
from ...untrusted import shown_path
from .safetensors import copy_tokenizer

FILES = ("adapter_config.json", "adapter_model.safetensors")


def write_lora(
    base: Path,
    adapter: Path,
    target: Path,
    card: str,
    *,
    writer: str = "",
    after_reading: Callable[[], object] = lambda: None,
) -> int:
    """Copy an adapter to the folder `target`, whole or not at all; returns the bytes of its weights.

    Args:
        base: where the tokenizer comes from if the adapter has none.
        card: the content of README.md.
        writer: see `part_of`.
        after_reading: called before the folder gets its name; raises if a file was exchanged.

    Raises:
        LoraExportError: a file of the adapter is missing.
        ModelLoadError: its weights are not a safetensors file, or truncated.
        DiskFullError: there is no space.
        OutputTakenError: there is something else at `target` now.
    """
    for name in FILES:
        if not (adapter / name).is_file():
            raise LoraExportError(
                f"{shown_path(adapter)} lacks {name}.", hint="Give the folder of a finished adapter."
            )
    read_header(adapter / FILES[1])
    size = (adapter / FILES[1]).stat().st_size
    require_space(target, size)

    def fill(folder: Path) -> None:
        for name in FILES:
            shutil.copyfile(adapter / name, folder / name)
        copy_tokenizer(base, adapter, folder)
        (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
        after_reading()

    write_new_folder(target, fill, writer)
    return size
