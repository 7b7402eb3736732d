"""Every error that a user can meet, in one tree.

    BackpropagateError
    ├── InputError (ValueError)               INPUT_VALIDATION_FAILED
    │   ├── DatasetError                      INPUT_DATASET_INVALID
    │   │   ├── DatasetNotFoundError (FileNotFoundError)
    │   │   ├── DatasetParseError
    │   │   ├── DatasetValidationError
    │   │   ├── DatasetFormatError
    │   │   └── ChatTemplateError
    │   ├── PathForbiddenError (PermissionError)
    │   ├── RunNotFoundError (LookupError)
    │   └── RequestKeyReusedError
    ├── ConfigError (ValueError)              CONFIG_INVALID
    │   └── InvalidSettingError
    ├── RuntimeFailure (RuntimeError)
    │   ├── TrainingError                     RUNTIME_TRAINING_FAILED
    │   ├── TrainingAbortedError
    │   ├── RunInterruptedError
    │   ├── ExportError                       RUNTIME_EXPORT_FAILED
    │   │   ├── GgufExportError               RUNTIME_GGUF_EXPORT_FAILED
    │   │   ├── MergeExportError              RUNTIME_MERGE_EXPORT_FAILED
    │   │   └── LoraExportError               RUNTIME_LORA_EXPORT_FAILED
    │   ├── QueueFullError
    │   ├── DiskFullError (OSError)
    │   └── GpuError                          RUNTIME_GPU_ERROR
    │       ├── GpuOutOfMemoryError (MemoryError)
    │       └── GpuMonitoringError
    ├── DependencyError                       DEP_…
    │   ├── ModelLoadError
    │   ├── HubPushError
    │   ├── GpuNotAvailableError
    │   ├── OllamaError                       DEP_OLLAMA_REGISTRATION_FAILED
    │   └── MissingExtraError (ImportError)
    └── StateError                            STATE_…
        ├── RunFolderError
        └── LockUnsupportedError

Each class carries its `code` and, where it refines a standard error, inherits that too, so
`except FileNotFoundError` goes on working. The code's first word decides the exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, ClassVar

from pydantic import BaseModel

from .next_step import Next, then

Words = Callable[[Next], str]
"""Words a next step in a surface's dialect."""


class ErrorRecord(BaseModel):
    """An error as it stands in a run folder and in results."""

    code: str
    message: str
    hint: str | None = None
    next: Next | None = None
    retryable: bool = False


class BackpropagateError(Exception):
    """Base of all errors that are meant for the user.

    Args:
        message: what was wrong, with the number, path or line that was wrong.
        hint: what helps, in words that fit every surface: no names of tools, commands or flags.
        next: the call that helps; each surface words it in its own dialect.
        cause: the error underneath, if any.
        retryable: whether the same request may succeed later, unchanged.
    """

    code: ClassVar[str] = "RUNTIME_ERROR"
    retryable_by_default: ClassVar[bool] = False
    default_hint: ClassVar[str | None] = None
    default_next: ClassVar[Next | None] = None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        next: Next | None = None,
        cause: BaseException | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or (None if next else self.default_hint)
        self.next = next or (None if hint else self.default_next)
        self.cause = cause
        self.retryable = self.retryable_by_default if retryable is None else retryable
        if cause is not None:
            self.__cause__ = cause
        self.add_note(f"[{self.code}] {help_of(self.record(), Next.plainly)}".rstrip())  # in stack traces

    def __str__(self) -> str:
        return self.message

    def sentence(self, words: Words = Next.plainly) -> str:
        """The whole error in one line; see `describe`."""
        return describe(self.record(), words)

    def record(self) -> ErrorRecord:
        return ErrorRecord(
            code=self.code, message=self.message, hint=self.hint, next=self.next, retryable=self.retryable
        )

    @property
    def exit_code(self) -> int:
        return exit_code(self.code)


class InputError(BackpropagateError, ValueError):
    """An argument is not what was expected."""

    code = "INPUT_VALIDATION_FAILED"


class DatasetError(InputError):
    """The dataset cannot be used for training."""

    code = "INPUT_DATASET_INVALID"
    default_next = then("inspect", dataset=...)


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no dataset at this path or under this name."""

    code = "INPUT_DATASET_NOT_FOUND"
    default_hint = "Give the absolute path of a file, a pattern, a folder, or a Hub dataset as owner/name."


class DatasetParseError(DatasetError):
    """A line of the dataset is not valid in its file format."""

    code = "INPUT_DATASET_PARSE_FAILED"


class DatasetValidationError(DatasetError):
    """A row can be read, but cannot be trained on."""

    code = "INPUT_DATASET_VALIDATION_FAILED"


class DatasetFormatError(DatasetError):
    """The file type or the row format is not one that is supported."""

    code = "INPUT_DATASET_FORMAT_UNSUPPORTED"


class ChatTemplateError(DatasetError):
    """The model's chat template cannot tell exactly which tokens the assistant wrote."""

    code = "INPUT_DATASET_TEMPLATE_UNSUPPORTED"


class PathForbiddenError(InputError, PermissionError):
    """A path lies outside the folders that may be read or written."""

    code = "INPUT_PATH_FORBIDDEN"


class RunNotFoundError(InputError, LookupError):
    """No run, or more than one, has this id."""

    code = "INPUT_RUN_NOT_FOUND"


class RequestKeyReusedError(InputError):
    """A request key was used before with other arguments."""

    code = "INPUT_REQUEST_KEY_REUSED"


class ConfigError(BackpropagateError, ValueError):
    """The configuration cannot be used."""

    code = "CONFIG_INVALID"


class InvalidSettingError(ConfigError):
    """One setting is unknown or out of bounds."""

    code = "CONFIG_INVALID_SETTING"


class RuntimeFailure(BackpropagateError, RuntimeError):
    """Something failed while working, not in what was asked."""

    code = "RUNTIME_ERROR"


class TrainingError(RuntimeFailure):
    """The training failed."""

    code = "RUNTIME_TRAINING_FAILED"


class TrainingAbortedError(RuntimeFailure):
    """The training was stopped before its end."""

    code = "RUNTIME_TRAINING_ABORTED"


class RunInterruptedError(RuntimeFailure):
    """The run's worker process ended without a word: killed, out of memory, or a power cut."""

    code = "RUNTIME_RUN_INTERRUPTED"
    retryable_by_default = True


class ExportError(RuntimeFailure):
    """A model could not be exported."""

    code = "RUNTIME_EXPORT_FAILED"


class GgufExportError(ExportError):
    """A GGUF file could not be made, or is not the trained model."""

    code = "RUNTIME_GGUF_EXPORT_FAILED"


class MergeExportError(ExportError):
    """The merged model could not be written."""

    code = "RUNTIME_MERGE_EXPORT_FAILED"


class LoraExportError(ExportError):
    """The adapter could not be copied."""

    code = "RUNTIME_LORA_EXPORT_FAILED"


class QueueFullError(RuntimeFailure):
    """As many runs as are allowed wait already."""

    code = "RUNTIME_QUEUE_FULL"
    retryable_by_default = True


class DiskFullError(RuntimeFailure, OSError):
    """There is no space left on the disk."""

    code = "RUNTIME_DISK_FULL"
    retryable_by_default = True


class GpuError(RuntimeFailure):
    """The GPU or its driver reported an error."""

    code = "RUNTIME_GPU_ERROR"


class GpuOutOfMemoryError(GpuError, MemoryError):
    """The model, its activations or its batch do not fit into memory."""

    code = "RUNTIME_GPU_OOM"


class GpuMonitoringError(GpuError):
    """The GPU's readings could not be taken."""

    code = "RUNTIME_GPU_MONITORING_FAILED"


class DependencyError(BackpropagateError):
    """Something outside this program is missing or refused."""

    code = "DEP_ERROR"


class ModelLoadError(DependencyError):
    """The model could not be found, downloaded or loaded."""

    code = "DEP_MODEL_LOAD_FAILED"
    default_hint = "Check the model's name; a Hub model needs the network once, and HF_TOKEN if it is gated."


class HubPushError(DependencyError):
    """The Hub did not take what was to be published."""

    code = "DEP_HUB_PUSH_FAILED"
    default_hint = "Set HF_TOKEN to a token with write permission, or log in with `hf auth login`."


class GpuNotAvailableError(DependencyError):
    """A GPU is needed and there is none that can be used."""

    code = "DEP_GPU_NOT_AVAILABLE"


class OllamaError(DependencyError):
    """The model could not be registered with Ollama."""

    code = "DEP_OLLAMA_REGISTRATION_FAILED"


class MissingExtraError(DependencyError, ImportError):
    """An optional part of the installation is missing."""

    code = "DEP_EXTRA_MISSING"


class StateError(BackpropagateError):
    """What lies in the home folder cannot be used."""

    code = "STATE_ERROR"


class RunFolderError(StateError):
    """A run folder cannot be read."""

    code = "STATE_RUN_UNREADABLE"


class LockUnsupportedError(StateError):
    """The file system has no real locks."""

    code = "STATE_LOCK_UNSUPPORTED"


EXIT_CODES = {"INPUT": 1, "CONFIG": 1, "PARTIAL": 3}


def exit_code(code: str) -> int:
    """The process exit code for an error code: 1 input or configuration, 2 run-time, 3 partly done."""
    return EXIT_CODES.get(code.split("_", 1)[0], 2)


def describe(record: ErrorRecord, words: Words = Next.plainly) -> str:
    """`[CODE] message — help`, the form in which every surface shows an error.

    Args:
        words: how the surface words a next step.
    """
    helps = help_of(record, words)
    return f"[{record.code}] {record.message}" + (f" — {helps}" if helps else "")


def help_of(record: ErrorRecord, words: Words) -> str:
    """Hint and next step of an error in one line; empty if it has neither."""
    step = words(record.next) if record.next else ""
    return " ".join(filter(None, [record.hint, f"Next: {step}" if step else ""]))


def error_classes() -> Iterator[type[BackpropagateError]]:
    """Every error class, parents before children."""
    waiting: list[type[BackpropagateError]] = [BackpropagateError]
    while waiting:
        current = waiting.pop(0)
        yield current
        waiting.extend(current.__subclasses__())


def catalogue() -> list[dict[str, Any]]:
    """One row per error code, made from the classes: code, meaning, exit code, whether to retry."""
    rows: dict[str, dict[str, Any]] = {}
    for error in error_classes():
        rows.setdefault(
            error.code,
            {
                "code": error.code,
                "meaning": (error.__doc__ or "").strip().splitlines()[0],
                "exit_code": exit_code(error.code),
                "retryable": error.retryable_by_default,
            },
        )
    return [rows[code] for code in sorted(rows)]


def from_record(record: ErrorRecord) -> BackpropagateError:
    """The error that another process wrote down, as an exception of the same class."""
    classes = {error.code: error for error in reversed(list(error_classes()))}
    error = classes.get(record.code, RuntimeFailure)
    return error(record.message, hint=record.hint, next=record.next, retryable=record.retryable)


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that is most like a mistyped one, or None."""
    found = get_close_matches(name, known, n=1, cutoff=0.5)
    return found[0] if found else None
