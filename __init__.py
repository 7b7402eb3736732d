"""backpropagate: fine-tune language models from an AI client, from Python, or from the command line.

The public names are loaded when they are first used, so that importing the package costs nothing and
brings in no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .training.version import __version__

if TYPE_CHECKING:
    from .training.errors import BackpropagateError as BackpropagateError
    from .training.export.ollama.registration import Registration as Registration
    from .training.inspect_dataset import inspect_dataset as inspect_dataset
    from .training.register_with_ollama import register_with_ollama as register_with_ollama
    from .training.service import TrainingService as TrainingService
    from .training.trainer import Callbacks as Callbacks
    from .training.trainer import Export as Export
    from .training.trainer import Trainer as Trainer
    from .training.trainer import TrainingRun as TrainingRun

_PUBLIC = {
    "BackpropagateError": ".training.errors",
    "Callbacks": ".training.trainer",
    "Export": ".training.trainer",
    "Registration": ".training.export.ollama.registration",
    "Trainer": ".training.trainer",
    "TrainingRun": ".training.trainer",
    "TrainingService": ".training.service",
    "inspect_dataset": ".training.inspect_dataset",
    "register_with_ollama": ".training.register_with_ollama",
}

__all__ = [
    "BackpropagateError",
    "Callbacks",
    "Export",
    "Registration",
    "Trainer",
    "TrainingRun",
    "TrainingService",
    "__version__",
    "inspect_dataset",
    "register_with_ollama",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
