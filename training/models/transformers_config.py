"""The configuration of a model folder, as transformers reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from ..errors import ModelLoadError

FIXED = {"swiglu_alpha": 1.702, "swiglu_limit": 7.0}
"""What older versions of transformers compute gpt-oss with, whatever its config says."""


def transformers_config(folder: Path) -> Any:
    """Without the network and without code of the folder; raises what transformers raises.

    Attention with soft caps is written out: before version 5.18 transformers leaves them out of Gemma 2's.

    Raises:
        ModelLoadError: the installed version of transformers would compute something else.
    """
    from transformers import AutoConfig

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = cast("Any", AutoConfig).from_pretrained(folder, **local)
    _require_read(config)
    if getattr(config.get_text_config(), "attn_logit_softcapping", None):
        config._attn_implementation = "eager"
    return config


def _require_read(config: Any) -> None:
    if config.model_type != "gpt_oss":
        return
    for name, fixed in FIXED.items():
        given = getattr(config, name, fixed)
        if given != fixed and not hasattr(config.__class__, name):
            from transformers import __version__

            raise ModelLoadError(
                f"config.json has {name} = {given}, and transformers {__version__} computes with {fixed}.",
                hint='Update it: pip install "transformers>=5.23".',
            )
