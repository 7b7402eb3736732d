"""Sizes and times of a model's files: a model that was written anew is another one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..config.specs import GenerateSpec, ModelReference
from ..models.presets import classify_model
from ..version import __version__

PATTERNS = ("*.safetensors", "*.json", "*.jinja")


def model_stamp(spec: ModelReference) -> str:
    """Of the adapter and of a local base; a Hub model is known by its revision."""
    source = classify_model(spec.model.name)
    folders = [Path(spec.adapter)] if spec.adapter else []
    if source.kind == "folder":
        folders.append(Path(source.location))
    files = sorted(file for folder in folders for pattern in PATTERNS for file in folder.glob(pattern))
    found = [(file, file.stat()) for file in files if file.is_file()]
    return " ".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in found)


def model_key(spec: GenerateSpec) -> str:
    """Names the model and the adapter that answer a request, on which kind of device, by which version."""
    parts = (__version__, spec.model.model_dump_json(), str(spec.adapter), spec.device, model_stamp(spec))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
