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
    from .training.config.results import InspectResult as InspectResult
    from .training.config.results import MultiRunResult as MultiRunResult
    from .training.config.results import Reply as Reply
    from .training.config.results import TrainResult as TrainResult
    from .training.config.settings import Settings as Settings
    from .training.config.settings import load_settings as get_settings
    from .training.config.settings import load_settings as reload_settings
    from .training.config.specs import EvaluateSpec as EvaluateSpec
    from .training.config.specs import ExportSpec as ExportSpec
    from .training.config.specs import GenerateSpec as GenerateSpec
    from .training.config.specs import InspectSpec as InspectSpec
    from .training.config.specs import MultiRunSpec as MultiRunSpec
    from .training.config.specs import ProbeSpec as ProbeSpec
    from .training.config.specs import PushSpec as PushSpec
    from .training.config.specs import RegisterSpec as RegisterSpec
    from .training.config.specs import TrainSpec as TrainSpec
    from .training.config.training_plan import TrainingPlan as TrainingPlan
    from .training.data.report.inspection_result import Inspection as Inspection
    from .training.errors import AuthRequiredError as AuthRequiredError
    from .training.errors import BackpropagateError as BackpropagateError
    from .training.errors import ChatTemplateError as ChatTemplateError
    from .training.errors import ClusterError as ClusterError
    from .training.errors import ConfigError as ConfigError
    from .training.errors import ConfirmationNeededError as ConfirmationNeededError
    from .training.errors import DatasetError as DatasetError
    from .training.errors import DatasetFormatError as DatasetFormatError
    from .training.errors import DatasetNotFoundError as DatasetNotFoundError
    from .training.errors import DatasetParseError as DatasetParseError
    from .training.errors import DatasetValidationError as DatasetValidationError
    from .training.errors import DeclinedError as DeclinedError
    from .training.errors import DependencyError as DependencyError
    from .training.errors import DiskFullError as DiskFullError
    from .training.errors import ErrorRecord as ErrorRecord
    from .training.errors import ExportError as ExportError
    from .training.errors import ForeignOwnerError as ForeignOwnerError
    from .training.errors import GgufExportError as GgufExportError
    from .training.errors import GpuError as GpuError
    from .training.errors import GpuMonitoringError as GpuMonitoringError
    from .training.errors import GpuNotAvailableError as GpuNotAvailableError
    from .training.errors import GpuOutOfMemoryError as GpuOutOfMemoryError
    from .training.errors import GpuTemperatureCriticalError as GpuTemperatureCriticalError
    from .training.errors import HubPushError as HubPushError
    from .training.errors import InputError as InputError
    from .training.errors import InvalidSettingError as InvalidSettingError
    from .training.errors import LockHeldError as LockHeldError
    from .training.errors import LockUnsupportedError as LockUnsupportedError
    from .training.errors import LoraExportError as LoraExportError
    from .training.errors import MergeExportError as MergeExportError
    from .training.errors import MissingExtraError as MissingExtraError
    from .training.errors import ModelLoadError as ModelLoadError
    from .training.errors import NotWritableError as NotWritableError
    from .training.errors import OllamaError as OllamaError
    from .training.errors import OutputFolderForbiddenError as OutputFolderForbiddenError
    from .training.errors import OutputTakenError as OutputTakenError
    from .training.errors import PartialSuccessError as PartialSuccessError
    from .training.errors import PathForbiddenError as PathForbiddenError
    from .training.errors import QueueFullError as QueueFullError
    from .training.errors import RequestKeyReusedError as RequestKeyReusedError
    from .training.errors import RunFolderError as RunFolderError
    from .training.errors import RunInterruptedError as RunInterruptedError
    from .training.errors import RunNotFoundError as RunNotFoundError
    from .training.errors import RuntimeFailure as RuntimeFailure
    from .training.errors import SLAOCheckpointError as SLAOCheckpointError
    from .training.errors import SLAOError as SLAOError
    from .training.errors import SLAOMergeError as SLAOMergeError
    from .training.errors import StateError as StateError
    from .training.errors import TooManyCallsError as TooManyCallsError
    from .training.errors import TooManyFilesError as TooManyFilesError
    from .training.errors import TrainingAbortedError as TrainingAbortedError
    from .training.errors import TrainingError as TrainingError
    from .training.events import Event as Event
    from .training.export.ollama.effective_template import EffectiveTemplate as EffectiveTemplate
    from .training.export.ollama.question import Question as Question
    from .training.export.ollama.registration import Registration as Registration
    from .training.hardware.gpu import GpuReading as GpuReading
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
    from .training.runs.loss_curve import LossCurve as LossCurve
    from .training.runs.loss_curve import LossPoint as LossPoint
    from .training.runs.view import RunLine as RunLine
    from .training.runs.view import RunView as RunView
    from .training.service import Submission as Submission
    from .training.service import TrainingService as TrainingService
    from .training.trainer.callbacks import Callbacks as Callbacks
    from .training.trainer.ended import Export as Export
    from .training.trainer.ended import Export as ExportResult
    from .training.trainer.ended import MultiRun as MultiRun
    from .training.trainer.ended import TrainingRun as TrainingRun
    from .training.trainer.loaded import load_dataset as load_dataset
    from .training.trainer.loaded import load_model as load_model
    from .training.trainer.older_callbacks import TrainingCallback as TrainingCallback
    from .training.trainer.trainer import Trainer as Trainer

    settings: Settings

_PUBLIC = {
    "AuthRequiredError": ".training.errors",
    "BackpropagateError": ".training.errors",
    "Callbacks": ".training.trainer.callbacks",
    "ChatTemplateError": ".training.errors",
    "ClusterError": ".training.errors",
    "ConfigError": ".training.errors",
    "ConfirmationNeededError": ".training.errors",
    "DatasetError": ".training.errors",
    "DatasetFormatError": ".training.errors",
    "DatasetNotFoundError": ".training.errors",
    "DatasetParseError": ".training.errors",
    "DatasetValidationError": ".training.errors",
    "DeclinedError": ".training.errors",
    "DependencyError": ".training.errors",
    "DiskFullError": ".training.errors",
    "EffectiveTemplate": ".training.export.ollama.effective_template",
    "ErrorRecord": ".training.errors",
    "EvaluateResult": ".training.config.results",
    "EvaluateSpec": ".training.config.specs",
    "Event": ".training.events",
    "Export": ".training.trainer.ended",
    "ExportError": ".training.errors",
    "ExportResult": ".training.trainer.ended:Export",
    "ExportSpec": ".training.config.specs",
    "ForeignOwnerError": ".training.errors",
    "GenerateSpec": ".training.config.specs",
    "GeneratedAnswer": ".training.config.results",
    "GgufExportError": ".training.errors",
    "GpuError": ".training.errors",
    "GpuMonitoringError": ".training.errors",
    "GpuNotAvailableError": ".training.errors",
    "GpuOutOfMemoryError": ".training.errors",
    "GpuReading": ".training.hardware.gpu",
    "GpuTemperatureCriticalError": ".training.errors",
    "HubPushError": ".training.errors",
    "InputError": ".training.errors",
    "InspectResult": ".training.config.results",
    "InspectSpec": ".training.config.specs",
    "Inspection": ".training.data.report.inspection_result",
    "InvalidSettingError": ".training.errors",
    "Ledger": ".training.config.ledger",
    "LockHeldError": ".training.errors",
    "LockUnsupportedError": ".training.errors",
    "LoraExportError": ".training.errors",
    "LossCurve": ".training.runs.loss_curve",
    "LossPoint": ".training.runs.loss_curve",
    "MergeExportError": ".training.errors",
    "MergeResult": ".training.merging.slao",
    "MissingExtraError": ".training.errors",
    "ModelLoadError": ".training.errors",
    "MultiRun": ".training.trainer.ended",
    "MultiRunResult": ".training.config.results",
    "MultiRunSpec": ".training.config.specs",
    "Next": ".training.next_step",
    "NotWritableError": ".training.errors",
    "OllamaError": ".training.errors",
    "OutputFolderForbiddenError": ".training.errors",
    "OutputTakenError": ".training.errors",
    "PartialSuccessError": ".training.errors",
    "PathForbiddenError": ".training.errors",
    "ProbeSpec": ".training.config.specs",
    "PushSpec": ".training.config.specs",
    "Question": ".training.export.ollama.question",
    "QueueFullError": ".training.errors",
    "RegisterSpec": ".training.config.specs",
    "Registration": ".training.export.ollama.registration",
    "Reply": ".training.config.results",
    "RequestKeyReusedError": ".training.errors",
    "RunFolderError": ".training.errors",
    "RunInterruptedError": ".training.errors",
    "RunLine": ".training.runs.view",
    "RunNotFoundError": ".training.errors",
    "RunView": ".training.runs.view",
    "RuntimeFailure": ".training.errors",
    "SLAOCheckpointError": ".training.errors",
    "SLAOConfig": ".training.merging.slao",
    "SLAOError": ".training.errors",
    "SLAOMergeError": ".training.errors",
    "SLAOMerger": ".training.merging.slao",
    "Settings": ".training.config.settings",
    "StateError": ".training.errors",
    "Status": ".training.runs.folder",
    "Submission": ".training.service",
    "TooManyCallsError": ".training.errors",
    "TooManyFilesError": ".training.errors",
    "TrainArguments": ".training.config.arguments",
    "TrainResult": ".training.config.results",
    "TrainSpec": ".training.config.specs",
    "Trainer": ".training.trainer.trainer",
    "TrainingAbortedError": ".training.errors",
    "TrainingCallback": ".training.trainer.older_callbacks",
    "TrainingError": ".training.errors",
    "TrainingPlan": ".training.config.training_plan",
    "TrainingRun": ".training.trainer.ended",
    "TrainingService": ".training.service",
    "get_settings": ".training.config.settings:load_settings",
    "inspect_dataset": ".training.inspect_dataset",
    "load_dataset": ".training.trainer.loaded",
    "load_model": ".training.trainer.loaded",
    "merge_lora_weights": ".training.merging.algebra",
    "orthogonal_init_A": ".training.merging.algebra",
    "register_with_ollama": ".training.register_with_ollama",
    "reload_settings": ".training.config.settings:load_settings",
    "time_aware_scale": ".training.merging.algebra",
}
"""Public name → its module, and its name there if that is another."""

__all__ = [
    "AuthRequiredError",
    "BackpropagateError",
    "Callbacks",
    "ChatTemplateError",
    "ClusterError",
    "ConfigError",
    "ConfirmationNeededError",
    "DatasetError",
    "DatasetFormatError",
    "DatasetNotFoundError",
    "DatasetParseError",
    "DatasetValidationError",
    "DeclinedError",
    "DependencyError",
    "DiskFullError",
    "EffectiveTemplate",
    "ErrorRecord",
    "EvaluateResult",
    "EvaluateSpec",
    "Event",
    "Export",
    "ExportError",
    "ExportResult",
    "ExportSpec",
    "ForeignOwnerError",
    "GenerateSpec",
    "GeneratedAnswer",
    "GgufExportError",
    "GpuError",
    "GpuMonitoringError",
    "GpuNotAvailableError",
    "GpuOutOfMemoryError",
    "GpuReading",
    "GpuTemperatureCriticalError",
    "HubPushError",
    "InputError",
    "InspectResult",
    "InspectSpec",
    "Inspection",
    "InvalidSettingError",
    "Ledger",
    "LockHeldError",
    "LockUnsupportedError",
    "LoraExportError",
    "LossCurve",
    "LossPoint",
    "MergeExportError",
    "MergeResult",
    "MissingExtraError",
    "ModelLoadError",
    "MultiRun",
    "MultiRunResult",
    "MultiRunSpec",
    "Next",
    "NotWritableError",
    "OllamaError",
    "OutputFolderForbiddenError",
    "OutputTakenError",
    "PartialSuccessError",
    "PathForbiddenError",
    "ProbeSpec",
    "PushSpec",
    "Question",
    "QueueFullError",
    "RegisterSpec",
    "Registration",
    "Reply",
    "RequestKeyReusedError",
    "RunFolderError",
    "RunInterruptedError",
    "RunLine",
    "RunNotFoundError",
    "RunView",
    "RuntimeFailure",
    "SLAOCheckpointError",
    "SLAOConfig",
    "SLAOError",
    "SLAOMergeError",
    "SLAOMerger",
    "Settings",
    "StateError",
    "Status",
    "Submission",
    "TooManyCallsError",
    "TooManyFilesError",
    "TrainArguments",
    "TrainResult",
    "TrainSpec",
    "Trainer",
    "TrainingAbortedError",
    "TrainingCallback",
    "TrainingError",
    "TrainingPlan",
    "TrainingRun",
    "TrainingService",
    "__version__",
    "get_settings",
    "inspect_dataset",
    "load_dataset",
    "load_model",
    "merge_lora_weights",
    "orthogonal_init_A",
    "register_with_ollama",
    "reload_settings",
    "settings",
    "time_aware_scale",
]


def __getattr__(name: str) -> Any:
    if name == "settings":  # read anew each time, as every run does
        return import_module(".training.config.settings", __name__).load_settings()
    if name in _PUBLIC:
        module, _, own = _PUBLIC[name].partition(":")
        return getattr(import_module(module, __name__), own or name)
    from .training.trainer.older_names import ERRORS, instead_of

    if name in ERRORS:
        return __getattr__(ERRORS[name])
    if instead := instead_of(name):  # an AttributeError would lose its text in `from … import`
        raise ImportError(f"{__name__} has no {name}, which version 1 had. In its place: {instead}.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
