"""Writes the adapter folder atomically, in the format of PEFT."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.specs import TrainSpec
from ..engine.plan import Plan
from ..files.atomic_folder import write_folder, write_new_folder
from ..files.atomic_json import patiently, read_json, write_json
from ..files.output_folder import check_output
from ..models.base_identity import BaseIdentity
from ..models.presets import classify_model
from ..runs.folder import RunFolder

CARD = "README.md"


@dataclass(frozen=True)
class TrainedBase:
    """The base as an adapter names it, and what it was.

    Args:
        name: a Hub id, or the folder of this machine.
        revision: the commit of a Hub model.
        identity: None for a run of a version that did not record it.
    """

    name: str
    revision: str | None
    identity: BaseIdentity | None

    @classmethod
    def of(cls, plan: Plan, run: RunFolder) -> TrainedBase:
        """The base of a planned run."""
        return cls(plan.base_model_name, run.base_revision(), BaseIdentity.from_record(run.trained_model()))


def finish_adapter(written: Path, target: Path, tokenizer: Any, base: TrainedBase, card: str) -> None:
    """Move an engine's adapter to `target`, with tokenizer, chat template and card; replaces an older one.

    Args:
        written: folder with adapter_model.safetensors and adapter_config.json; removed afterwards.
        card: text of README.md.

    Raises:
        DiskFullError: the disk is full; `target` is unchanged.
    """

    def fill(folder: Path) -> None:
        shutil.copytree(written, folder, dirs_exist_ok=True)
        tokenizer.save_pretrained(folder)
        config = read_json(folder / "adapter_config.json")
        named = {"base_model_name_or_path": base.name, "revision": base.revision}
        write_json(folder / "adapter_config.json", config | named)
        if base.identity:
            _add_metadata(folder / "adapter_model.safetensors", base.identity.record())
        (folder / CARD).write_text(card, encoding="utf-8", newline="\n")

    write_folder(target, fill)
    shutil.rmtree(written)


def _add_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Name the base in the header of a safetensors file: its length in 8 bytes, JSON, then the tensors.

    The library writes metadata in another order in each process; equal trainings shall give equal files.
    """
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    named = {**header.pop("__metadata__", {}), **metadata}
    text = json.dumps({"__metadata__": dict(sorted(named.items())), **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def replace_card(adapter: Path, card: str) -> None:
    """Replace the model card of an adapter; the old card is kept if the disk is full."""
    part = adapter / f".{CARD}.part"
    part.write_text(card, encoding="utf-8", newline="\n")
    patiently(lambda: part.replace(adapter / CARD))


def base_model_name(spec: TrainSpec, model: Path) -> str:
    """The name under which PEFT finds the base model: its Hub id, or the folder it was loaded from."""
    source = classify_model(spec.model.name)
    return str(model) if source.kind == "folder" else source.location


def copy_adapter_folder(adapter: Path, output: str, *, overwrite: bool = False) -> str:
    """Copy the adapter of a run to the user's output folder; returns its path.

    Args:
        overwrite: replace an adapter that is there; nothing else is ever replaced.

    Raises:
        InputError: there is something at `output`.
    """
    target, run_id = Path(output), adapter.parent.name

    def fill(folder: Path) -> None:
        shutil.copytree(adapter, folder, dirs_exist_ok=True)

    if overwrite and (target / "adapter_config.json").is_file() and not target.is_symlink():
        write_folder(target, fill, run_id)
        return output
    check_output(output)  # checked again, since training may have taken hours
    target.parent.mkdir(parents=True, exist_ok=True)
    write_new_folder(target, fill, run_id)
    return output
