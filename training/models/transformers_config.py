"""The configuration of a model folder, as transformers reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast


def transformers_config(folder: Path) -> Any:
    """Without the network and without code of the folder; raises what transformers raises.

    Attention with soft caps is written out: before version 5.18 transformers leaves them out of Gemma 2's.
    """
    from transformers import AutoConfig

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = cast("Any", AutoConfig).from_pretrained(folder, **local)
    if getattr(config.get_text_config(), "attn_logit_softcapping", None):
        config._attn_implementation = "eager"
    return config
