"""What a run can say of the export after it."""

from __future__ import annotations

from pathlib import Path

from ..errors import GgufExportError


def why_no_gguf(base: Path) -> str:
    """Why an export to GGUF would refuse this model; empty if it would not."""
    from ..export.gguf.model_config import model_config

    try:
        model_config(base)
    except GgufExportError as error:
        return error.message
    return ""
