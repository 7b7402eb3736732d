"""How torch's allocator is set for a training: before CUDA is used, through the environment."""

from __future__ import annotations

import os
import sys

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Its variables, the second under its older name."""


def allocator_environment() -> dict[str, str]:
    """What to set, unless the user has set something: steps differ in size, and without segments that grow
    torch may hold twice the memory that its tensors need. Windows has none."""
    if sys.platform == "win32" or any(name in os.environ for name in ALLOCATOR):
        return {}
    return {ALLOCATOR[0]: "expandable_segments:True"}
