"""The adapter folder: what plain PEFT loads, written whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import TrainSpec
from .engine.plan import Plan
from .models.presets import classify_model
from .runs.durable import disk_full, is_disk_full, read_json, sync_file, sync_folder, write_json

CARD = """\
---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags:
- lora
- backpropagate
---

# LoRA adapter for {base}

Trained with backpropagate {version}: {steps} steps of {batch} examples, learning rate {rate:g}, rank {rank}.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({base!r})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```
"""


def save_adapter(
    target: Path, write: Callable[[Path], None], tokenizer: Any, spec: TrainSpec, plan: Plan
) -> None:
    """Write the adapter with tokenizer, chat template and card to `target`; replaces an older one.

    Args:
        write: writes adapter_model.safetensors and adapter_config.json into a folder.

    Raises:
        DiskFullError: there is no space; `target` is what it was before.
    """
    base = _base_model(spec, plan)

    def fill(folder: Path) -> None:
        write(folder)
        tokenizer.save_pretrained(folder)
        config = read_json(folder / "adapter_config.json")
        write_json(folder / "adapter_config.json", config | {"base_model_name_or_path": base})
        (folder / "README.md").write_text(_card(base, plan), encoding="utf-8")

    _write_folder(target, fill)


def copy_adapter(adapter: Path, output: str | None) -> str | None:
    """Copy the adapter to where the user wants it as well; returns where that is."""
    if output is None:
        return None
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_folder(target, lambda folder: shutil.copytree(adapter, folder, dirs_exist_ok=True))
    return str(target)


def _write_folder(target: Path, fill: Callable[[Path], Any]) -> None:
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        fill(part)
        for file in part.rglob("*"):
            if file.is_file():
                sync_file(file)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
        sync_folder(target.parent)
    except Exception as error:
        shutil.rmtree(part, ignore_errors=True)
        if is_disk_full(error) or "No space left" in str(error):  # safetensors has an error of its own
            raise disk_full(target, OSError(str(error))) from error
        raise


def _base_model(spec: TrainSpec, plan: Plan) -> str:
    """The name under which plain PEFT finds the base: its Hub id, or the folder it was loaded from."""
    source = classify_model(spec.model.name)
    return str(plan.model_path) if source.kind == "folder" else source.location


def _card(base: str, plan: Plan) -> str:
    from .. import __version__

    return CARD.format(
        base=base,
        version=__version__,
        steps=plan.total_steps,
        batch=plan.batch_size * plan.gradient_accumulation_steps,
        rate=plan.learning_rate,
        rank=plan.lora.r,
    )
