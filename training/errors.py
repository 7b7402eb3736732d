"""All errors for users, in one tree.

    BackpropagateError
    ├── InputError (ValueError)               INPUT_VALIDATION_FAILED
    │   ├── DatasetError                      INPUT_DATASET_INVALID
    │   │   ├── DatasetNotFoundError (FileNotFoundError)
    │   │   ├── DatasetParseError
    │   │   ├── DatasetValidationError
    │   │   ├── DatasetFormatError
    │   │   └── ChatTemplateError
    │   ├── PathForbiddenError (PermissionError)
    │   │   └── OutputFolderForbiddenError    UI_OUTPUT_DIR_FORBIDDEN
    │   ├── OutputTakenError (FileExistsError)
    │   ├── RunNotFoundError (LookupError)
    │   ├── RequestKeyReusedError
    │   ├── AuthRequiredError                 INPUT_AUTH_REQUIRED
    │   ├── ConfirmationNeededError
    │   └── DeclinedError
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
    │   ├── SLAOError                         RUNTIME_SLAO_ERROR
    │   │   └── SLAOMergeError                RUNTIME_SLAO_MERGE_FAILED
    │   ├── QueueFullError
    │   ├── TooManyCallsError
    │   ├── DiskFullError (OSError)
    │   └── GpuError                          RUNTIME_GPU_ERROR
    │       ├── GpuOutOfMemoryError (MemoryError)
    │       ├── GpuMonitoringError
    │       └── GpuTemperatureCriticalError
    ├── DependencyError                       DEP_…
    │   ├── ModelLoadError
    │   ├── HubPushError
    │   ├── GpuNotAvailableError
    │   ├── ClusterError                      DEP_CLUSTER_FAILED
    │   ├── OllamaError                       DEP_OLLAMA_REGISTRATION_FAILED
    │   └── MissingExtraError (ImportError)
    ├── PartialSuccessError                   PARTIAL_SUCCESS
    └── StateError                            STATE_…
        ├── RunFolderError
        ├── ForeignOwnerError (PermissionError)
        ├── NotWritableError (PermissionError)
        ├── TooManyFilesError (OSError)
        ├── SLAOCheckpointError               STATE_SLAO_CHECKPOINT_INVALID
        ├── LockHeldError (TimeoutError)
        └── LockUnsupportedError

Each class has a `code`. A class that refines a standard error also inherits from it, so that
`except FileNotFoundError` works. The first word of the code decides the exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from pydantic import BaseModel

from .next_step import Next, then
from .untrusted import one_line

LONGEST_MESSAGE, LONGEST_DETAILS = 2_000, 1_000
"""Maximum characters of a message, and of what others said about the error."""

Words = Callable[[Next], str]
"""Describes a next step as one surface calls it: a tool call, a command line or Python."""


class ErrorRecord(BaseModel):
    """An error as run folders and results contain it."""

    code: str
    message: str
    hint: str | None = None
    next: Next | None = None
    retryable: bool = False
    untrusted_details: str | None = None


class BackpropagateError(Exception):
    """An error without a more specific code; the base class of all errors for users.

    Args:
        message: the problem, with the wrong number, path or line.
        hint: the remedy, valid on every surface: without names of tools, commands or flags.
        next: the call that helps; each surface describes it with its own names.
        cause: the original error, if any.
        retryable: whether the same request can succeed later.
        untrusted: what a file, a library or a server said about it. It stays out of the message.
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
        untrusted: str | None = None,
    ) -> None:
        super().__init__(message)
        # A name in it may contain line breaks, which would look like a line of ours.
        self.message = one_line(message, LONGEST_MESSAGE)
        self.hint = one_line(hint, LONGEST_MESSAGE) if hint else (None if next else self.default_hint)
        self.untrusted = one_line(untrusted, LONGEST_DETAILS) if untrusted else None
        self.next = next or (None if hint else self.default_next)
        self.cause = cause
        self.retryable = self.retryable_by_default if retryable is None else retryable
        if cause is not None:
            self.__cause__ = cause
        self.add_note(f"[{self.code}] {help_of(self.record(), Next.plainly)}".rstrip())  # in stack traces

    def __str__(self) -> str:
        return self.message

    def sentence(self, words: Words = Next.plainly) -> str:
        """The error in one line; see `describe`."""
        return describe(self.record(), words)

    def record(self) -> ErrorRecord:
        return ErrorRecord(
            code=self.code,
            message=self.message,
            hint=self.hint,
            next=self.next,
            retryable=self.retryable,
            untrusted_details=self.untrusted,
        )

    @property
    def exit_code(self) -> int:
        return exit_code(self.code)


class InputError(BackpropagateError, ValueError):
    """An argument is not valid."""

    code = "INPUT_VALIDATION_FAILED"


class DatasetError(InputError):
    """The dataset cannot be used for training."""

    code = "INPUT_DATASET_INVALID"
    default_next = then("inspect", dataset=...)


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """No dataset has this path or name."""

    code = "INPUT_DATASET_NOT_FOUND"
    default_hint = (
        "Give the absolute path of a file, a glob pattern, a folder, or a Hub dataset as owner/name."
    )


class DatasetParseError(DatasetError):
    """A line of the dataset is not valid in its file format."""

    code = "INPUT_DATASET_PARSE_FAILED"


class DatasetValidationError(DatasetError):
    """A row can be read, but not used for training."""

    code = "INPUT_DATASET_VALIDATION_FAILED"


class DatasetFormatError(DatasetError):
    """The file type or the row format is not supported."""

    code = "INPUT_DATASET_FORMAT_UNSUPPORTED"


class ChatTemplateError(DatasetError):
    """The chat template does not show exactly which tokens are the assistant's."""

    code = "INPUT_DATASET_TEMPLATE_UNSUPPORTED"


class PathForbiddenError(InputError, PermissionError):
    """A path is outside the folders that may be read or written."""

    code = "INPUT_PATH_FORBIDDEN"


class OutputFolderForbiddenError(PathForbiddenError):
    """The web page may not write there: it writes to its output folder only."""

    code = "UI_OUTPUT_DIR_FORBIDDEN"


class OutputTakenError(InputError, FileExistsError):
    """Somebody used the name of the output during the run; the result has another name."""

    code = "INPUT_OUTPUT_TAKEN"


class RunNotFoundError(InputError, LookupError):
    """No run, or more than one, matches this id."""

    code = "INPUT_RUN_NOT_FOUND"


class RequestKeyReusedError(InputError):
    """A request key was used before with other arguments."""

    code = "INPUT_REQUEST_KEY_REUSED"


class AuthRequiredError(InputError):
    """A page that others can reach needs a password."""

    code = "INPUT_AUTH_REQUIRED"


class ConfirmationNeededError(InputError):
    """The user has to agree first. The message is the question; `confirmed` consents."""

    code = "INPUT_CONFIRMATION_NEEDED"
    default_hint = "Ask the user."
    default_next = then("ask_again", confirmed=True)


class DeclinedError(InputError):
    """The user was asked, and said no."""

    code = "INPUT_DECLINED"
    default_hint = "Nothing was started or changed. Do not ask again unless the user does."


class ConfigError(BackpropagateError, ValueError):
    """The configuration cannot be used."""

    code = "CONFIG_INVALID"


class InvalidSettingError(ConfigError):
    """One setting is unknown or out of bounds."""

    code = "CONFIG_INVALID_SETTING"


class RuntimeFailure(BackpropagateError, RuntimeError):
    """A failure at run time; the request is valid."""

    code = "RUNTIME_ERROR"


class TrainingError(RuntimeFailure):
    """The training failed."""

    code = "RUNTIME_TRAINING_FAILED"


class TrainingAbortedError(RuntimeFailure):
    """The training was stopped before it was complete."""

    code = "RUNTIME_TRAINING_ABORTED"


class RunInterruptedError(RuntimeFailure):
    """The run's worker process exited unexpectedly: killed, out of memory, or a power failure."""

    code = "RUNTIME_RUN_INTERRUPTED"
    retryable_by_default = True


class ExportError(RuntimeFailure):
    """A model could not be exported."""

    code = "RUNTIME_EXPORT_FAILED"


class GgufExportError(ExportError):
    """A GGUF file could not be written, or differs from the trained model."""

    code = "RUNTIME_GGUF_EXPORT_FAILED"


class MergeExportError(ExportError):
    """The merged model could not be written."""

    code = "RUNTIME_MERGE_EXPORT_FAILED"


class LoraExportError(ExportError):
    """The adapter could not be copied."""

    code = "RUNTIME_LORA_EXPORT_FAILED"


class SLAOError(RuntimeFailure):
    """A merger of adapters is used in a way that has no meaning."""

    code = "RUNTIME_SLAO_ERROR"


class SLAOMergeError(SLAOError):
    """Adapters cannot be merged: their form differs, or a value is not finite."""

    code = "RUNTIME_SLAO_MERGE_FAILED"


class QueueFullError(RuntimeFailure):
    """The queue has its maximum number of waiting runs."""

    code = "RUNTIME_QUEUE_FULL"
    retryable_by_default = True


class TooManyCallsError(RuntimeFailure):
    """A caller has its maximum number of open calls."""

    code = "RUNTIME_TOO_MANY_CALLS"
    retryable_by_default = True


class DiskFullError(RuntimeFailure, OSError):
    """The disk is full."""

    code = "RUNTIME_DISK_FULL"
    retryable_by_default = True


class GpuError(RuntimeFailure):
    """The GPU or its driver reported an error."""

    code = "RUNTIME_GPU_ERROR"


class GpuOutOfMemoryError(GpuError, MemoryError):
    """The model, its activations or its batch do not fit in memory."""

    code = "RUNTIME_GPU_OOM"


class GpuMonitoringError(GpuError):
    """The GPU's sensors could not be read."""

    code = "RUNTIME_GPU_MONITORING_FAILED"


class GpuTemperatureCriticalError(GpuError):
    """The GPU became too hot, and the run was stopped; it can be resumed."""

    code = "RUNTIME_GPU_TEMPERATURE_CRITICAL"
    retryable_by_default = True


class DependencyError(BackpropagateError):
    """A model, service, device or library outside this program is missing or failed."""

    code = "DEP_ERROR"


class ModelLoadError(DependencyError):
    """The model could not be found, downloaded or loaded."""

    code = "DEP_MODEL_LOAD_FAILED"
    default_hint = "Check the model name. A Hub model needs the network once, and HF_TOKEN if it is gated."


class HubPushError(DependencyError):
    """A push to the Hub failed."""

    code = "DEP_HUB_PUSH_FAILED"
    default_hint = "Set HF_TOKEN to a token with write permission, or log in with `hf auth login`."


class GpuNotAvailableError(DependencyError):
    """A GPU is required, and none is usable."""

    code = "DEP_GPU_NOT_AVAILABLE"


class ClusterError(DependencyError):
    """A cluster refused a job, or could not be asked."""

    code = "DEP_CLUSTER_FAILED"


class OllamaError(DependencyError):
    """The model could not be registered with Ollama."""

    code = "DEP_OLLAMA_REGISTRATION_FAILED"


class MissingExtraError(DependencyError, ImportError):
    """An optional part of the installation is missing."""

    code = "DEP_EXTRA_MISSING"


class PartialSuccessError(BackpropagateError):
    """Some runs of a multi-run failed; the adapter of the others is kept."""

    code = "PARTIAL_SUCCESS"


class StateError(BackpropagateError):
    """The files in the home folder cannot be used."""

    code = "STATE_ERROR"


class RunFolderError(StateError):
    """A run folder cannot be read."""

    code = "STATE_RUN_UNREADABLE"


class ForeignOwnerError(StateError, PermissionError):
    """A folder or a lock belongs to another user of the machine."""

    code = "STATE_FOREIGN_OWNER"


class NotWritableError(StateError, PermissionError):
    """A file or folder of the home cannot be written."""

    code = "STATE_NOT_WRITABLE"
    default_hint = "Give this user the right to write there, or set BACKPROPAGATE_HOME to another folder."


class TooManyFilesError(StateError, OSError):
    """The process may not open another file."""

    code = "STATE_TOO_MANY_FILES"
    retryable_by_default = True
    default_hint = "Raise the limit of open files (`ulimit -n`) for this process, then try again."


class SLAOCheckpointError(StateError):
    """The saved state of a merger cannot be read."""

    code = "STATE_SLAO_CHECKPOINT_INVALID"


class LockHeldError(StateError, TimeoutError):
    """Another process holds a lock for longer than this one waits."""

    code = "STATE_LOCK_HELD"
    retryable_by_default = True


class LockUnsupportedError(StateError):
    """The file system has no file locks."""

    code = "STATE_LOCK_UNSUPPORTED"


EXIT_CODES = {"INPUT": 1, "UI": 1, "CONFIG": 1, "PARTIAL": 3}


def exit_code(code: str) -> int:
    """The exit code of the process for an error code: 1 input or configuration, 2 run time, 3 partly done."""
    return EXIT_CODES.get(code.split("_", 1)[0], 2)


def describe(record: ErrorRecord, words: Words = Next.plainly) -> str:
    """`[CODE] message — help`, the form of an error on every surface.

    Args:
        words: describes a next step with the surface's names.
    """
    helps = help_of(record, words)
    return f"[{record.code}] {record.message}" + (f" — {helps}" if helps else "")


def help_of(record: ErrorRecord, words: Words) -> str:
    """Hint and next step of an error in one line; empty without both."""
    step = words(record.next) if record.next else ""
    return " ".join(filter(None, [record.hint, f"Next: {step}" if step else ""]))


def error_classes() -> Iterator[type[BackpropagateError]]:
    """Every error class, parents before children."""
    waiting: list[type[BackpropagateError]] = [BackpropagateError]
    while waiting:
        current = waiting.pop(0)
        yield current
        waiting.extend(current.__subclasses__())


def from_record(record: ErrorRecord) -> BackpropagateError:
    """The error that another process recorded, as an exception of the same class."""
    classes = {error.code: error for error in reversed(list(error_classes()))}
    error = classes.get(record.code, RuntimeFailure)
    return error(
        record.message,
        hint=record.hint,
        next=record.next,
        retryable=record.retryable,
        untrusted=record.untrusted_details,
    )
