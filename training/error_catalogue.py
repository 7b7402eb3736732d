"""Every error code with its meaning and what usually helps; and what became of earlier versions' codes."""

from __future__ import annotations

from typing import Any

from .errors import BackpropagateError, error_classes, exit_code

USUAL_HINTS = {
    "CONFIG_INVALID": "Correct the settings that the message names.",
    "CONFIG_INVALID_SETTING": "Correct or remove the variable that the message names.",
    "DEP_CLUSTER_FAILED": "Correct its table in clusters.toml, or wait until its Slurm or its hosts answer.",
    "DEP_ERROR": "See what the message says of the library or the service.",
    "DEP_EXTRA_MISSING": "Install the extra that the message names.",
    "DEP_GPU_NOT_AVAILABLE": "Check the driver and that torch is built for CUDA, or set device=cpu.",
    "DEP_OLLAMA_REGISTRATION_FAILED": "Check that Ollama is running, and OLLAMA_HOST; then try again.",
    "INPUT_AUTH_REQUIRED": "Give the page a password, or serve it to this machine only.",
    "INPUT_DATASET_FORMAT_UNSUPPORTED": "Use a known file type and row format, or set columns.",
    "INPUT_DATASET_PARSE_FAILED": "Correct the line that the message names.",
    "INPUT_DATASET_TEMPLATE_UNSUPPORTED": "Use a model with another chat template, or set train_on=all.",
    "INPUT_DATASET_VALIDATION_FAILED": "Correct the rows that the message names, or set on_bad_rows=skip.",
    "INPUT_OUTPUT_TAKEN": "The result is under the name in the message; move it if you like.",
    "INPUT_PATH_FORBIDDEN": "Use a folder of your own, or permit the folder when the server is started.",
    "INPUT_REQUEST_KEY_REUSED": "Use a new key for a new request.",
    "INPUT_RUN_NOT_FOUND": "Give a run id, or a part of it that only this run has.",
    "INPUT_VALIDATION_FAILED": "Correct the argument that the message names.",
    "PARTIAL_SUCCESS": "Use the adapter that is kept, or resume the run.",
    "RUNTIME_DISK_FULL": "Free some space, for example by removing old runs, then resume.",
    "RUNTIME_ERROR": "Look at the run's log; if it is a fault of the program, report it.",
    "RUNTIME_EXPORT_FAILED": "Look at the message and the run's log.",
    "RUNTIME_GGUF_EXPORT_FAILED": "Try another quantization, or export merged safetensors.",
    "RUNTIME_GPU_ERROR": "Check the driver, then resume the run.",
    "RUNTIME_GPU_MONITORING_FAILED": "Check that the driver's tools can read the card.",
    "RUNTIME_GPU_OOM": "Lower batch_size or max_seq_length, set load_in_4bit=true, or take a smaller model.",
    "RUNTIME_GPU_TEMPERATURE_CRITICAL": "Let the card cool and check its fans, then resume the run.",
    "RUNTIME_LORA_EXPORT_FAILED": "Look at the message and the run's log.",
    "RUNTIME_MERGE_EXPORT_FAILED": "Look at the message and the run's log.",
    "RUNTIME_QUEUE_FULL": "Wait until a run has ended, or cancel one.",
    "RUNTIME_RUN_INTERRUPTED": "Resume the run; it continues from its last checkpoint, if there is one.",
    "RUNTIME_SLAO_ERROR": "Look at the settings of the multi-run.",
    "RUNTIME_SLAO_MERGE_FAILED": "Lower the learning rate, or start again without the run that failed.",
    "RUNTIME_TOO_MANY_CALLS": "Wait until an open call has returned.",
    "RUNTIME_TRAINING_ABORTED": "Resume the run.",
    "RUNTIME_TRAINING_FAILED": "Look at the message and the run's log.",
    "STATE_ERROR": "See what the message says of the home folder.",
    "STATE_FOREIGN_OWNER": "Set BACKPROPAGATE_HOME to a folder of your own.",
    "STATE_LOCK_HELD": "Wait until the other process has finished.",
    "STATE_LOCK_UNSUPPORTED": "Set BACKPROPAGATE_HOME to a local disk.",
    "STATE_RUN_UNREADABLE": "Restore the file that the message names, or remove the run.",
    "STATE_SLAO_CHECKPOINT_INVALID": "Go back to the merge before, or start the multi-run again.",
    "UI_OUTPUT_DIR_FORBIDDEN": "Give a plain name, or set BACKPROPAGATE_UI__OUTPUT_DIR to another folder.",
}
"""What usually helps, where the class of the error has no hint that goes with every message."""

EARLIER_CODES = {
    "STATE_CHECKPOINT_INVALID": "Not raised: a damaged checkpoint is a warning, and the one before it is "
    "used. A full disk is RUNTIME_DISK_FULL.",
    "PARTIAL_BATCH_OPERATION": "Not raised: no command works on several things of which some may fail.",
}
"""Codes of earlier versions that are not raised here → what happens instead."""


def catalogue() -> list[dict[str, Any]]:
    """One row per code, from the classes: code, meaning, exit code, whether a retry can succeed, hint."""
    rows: dict[str, dict[str, Any]] = {}
    for error in error_classes():
        rows.setdefault(error.code, _row(error))
    return [rows[code] for code in sorted(rows)]


def _row(error: type[BackpropagateError]) -> dict[str, Any]:
    return {
        "code": error.code,
        "meaning": (error.__doc__ or "").strip().splitlines()[0],
        "exit_code": exit_code(error.code),
        "retryable": error.retryable_by_default,
        "hint": error.default_hint or USUAL_HINTS.get(error.code),
        "next": error.default_next,
    }
