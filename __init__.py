"""backpropagate: fine-tune language models from an AI client, from Python, or from the command line.

The public names are loaded when they are first used, so that importing the package costs nothing and
brings in no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .training.version import __version__

if TYPE_CHECKING:
    from .training.config.arguments import TrainArguments as TrainArguments
    from .training.config.ledger import Ledger as Ledger
    from .training.config.results import EvaluateResult as EvaluateResult
    from .training.config.results import GeneratedAnswer as GeneratedAnswer
    from .training.config.results import MultiRunResult as MultiRunResult
    from .training.config.results import Reply as Reply
    from .training.config.results import TrainResult as TrainResult
    from .training.config.settings import Settings as Settings
    from .training.config.specs import EvaluateSpec as EvaluateSpec
    from .training.config.specs import ExportSpec as ExportSpec
    from .training.config.specs import GenerateSpec as GenerateSpec
    from .training.config.specs import InspectSpec as InspectSpec
    from .training.config.specs import MultiRunSpec as MultiRunSpec
    from .training.config.specs import PushSpec as PushSpec
    from .training.config.specs import RegisterSpec as RegisterSpec
    from .training.config.specs import TrainSpec as TrainSpec
    from .training.data.report.inspection_result import Inspection as Inspection
    from .training.errors import BackpropagateError as BackpropagateError
    from .training.errors import ErrorRecord as ErrorRecord
    from .training.events import Event as Event
    from .training.export.ollama.effective_template import EffectiveTemplate as EffectiveTemplate
    from .training.export.ollama.question import Question as Question
    from .training.export.ollama.registration import Registration as Registration
    from .training.inspect_dataset import inspect_dataset as inspect_dataset
    from .training.merging.algebra import merge_lora_weights as merge_lora_weights
    from .training.merging.algebra import orthogonal_init_A as orthogonal_init_A
    from .training.merging.algebra import time_aware_scale as time_aware_scale
    from .training.merging.slao import MergeResult as MergeResult
    from .training.merging.slao import SLAOConfig as SLAOConfig
    from .training.merging.slao import SLAOMerger as SLAOMerger
    from .training.next_step import Next as Next
    from .training.register_with_ollama import register_with_ollama as register_with_ollama
    from .training.runs.folder import Status as Status
    from .training.runs.view import RunView as RunView
    from .training.service import Submission as Submission
    from .training.service import TrainingService as TrainingService
    from .training.trainer import Callbacks as Callbacks
    from .training.trainer import Export as Export
    from .training.trainer import MultiRun as MultiRun
    from .training.trainer import Trainer as Trainer
    from .training.trainer import TrainingRun as TrainingRun

_PUBLIC = {
    "BackpropagateError": ".training.errors",
    "Callbacks": ".training.trainer",
    "EffectiveTemplate": ".training.export.ollama.effective_template",
    "ErrorRecord": ".training.errors",
    "EvaluateResult": ".training.config.results",
    "EvaluateSpec": ".training.config.specs",
    "Event": ".training.events",
    "Export": ".training.trainer",
    "ExportSpec": ".training.config.specs",
    "GenerateSpec": ".training.config.specs",
    "GeneratedAnswer": ".training.config.results",
    "InspectSpec": ".training.config.specs",
    "Inspection": ".training.data.report.inspection_result",
    "Ledger": ".training.config.ledger",
    "MergeResult": ".training.merging.slao",
    "MultiRun": ".training.trainer",
    "MultiRunResult": ".training.config.results",
    "MultiRunSpec": ".training.config.specs",
    "Next": ".training.next_step",
    "PushSpec": ".training.config.specs",
    "Question": ".training.export.ollama.question",
    "RegisterSpec": ".training.config.specs",
    "Registration": ".training.export.ollama.registration",
    "Reply": ".training.config.results",
    "RunView": ".training.runs.view",
    "SLAOConfig": ".training.merging.slao",
    "SLAOMerger": ".training.merging.slao",
    "Settings": ".training.config.settings",
    "Status": ".training.runs.folder",
    "Submission": ".training.service",
    "TrainArguments": ".training.config.arguments",
    "TrainResult": ".training.config.results",
    "TrainSpec": ".training.config.specs",
    "Trainer": ".training.trainer",
    "TrainingRun": ".training.trainer",
    "TrainingService": ".training.service",
    "inspect_dataset": ".training.inspect_dataset",
    "merge_lora_weights": ".training.merging.algebra",
    "orthogonal_init_A": ".training.merging.algebra",
    "register_with_ollama": ".training.register_with_ollama",
    "time_aware_scale": ".training.merging.algebra",
}

__all__ = [
    "BackpropagateError",
    "Callbacks",
    "EffectiveTemplate",
    "ErrorRecord",
    "EvaluateResult",
    "EvaluateSpec",
    "Event",
    "Export",
    "ExportSpec",
    "GenerateSpec",
    "GeneratedAnswer",
    "InspectSpec",
    "Inspection",
    "Ledger",
    "MergeResult",
    "MultiRun",
    "MultiRunResult",
    "MultiRunSpec",
    "Next",
    "PushSpec",
    "Question",
    "RegisterSpec",
    "Registration",
    "Reply",
    "RunView",
    "SLAOConfig",
    "SLAOMerger",
    "Settings",
    "Status",
    "Submission",
    "TrainArguments",
    "TrainResult",
    "TrainSpec",
    "Trainer",
    "TrainingRun",
    "TrainingService",
    "__version__",
    "inspect_dataset",
    "merge_lora_weights",
    "orthogonal_init_A",
    "register_with_ollama",
    "time_aware_scale",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
