"""One tree of errors, each with a code of its own."""

from __future__ import annotations

import traceback

from backpropagate.training.error_catalogue import EARLIER_CODES, USUAL_HINTS, catalogue
from backpropagate.training.errors import (
    BackpropagateError,
    DatasetNotFoundError,
    DiskFullError,
    GpuOutOfMemoryError,
    error_classes,
    from_record,
)


def test_every_error_has_a_code_a_meaning_and_an_exit_code() -> None:
    rows = catalogue()
    assert len({row["code"] for row in rows}) == len(rows) > 20
    assert all(row["meaning"] and row["exit_code"] in {1, 2, 3} for row in rows)
    assert [row["code"] for row in rows if not (row["hint"] or row["next"])] == []
    assert USUAL_HINTS.keys() <= {row["code"] for row in rows}


VERSION_1 = """CONFIG_INVALID CONFIG_INVALID_SETTING DEP_GPU_NOT_AVAILABLE DEP_MODEL_LOAD_FAILED
    DEP_OLLAMA_REGISTRATION_FAILED INPUT_DATASET_FORMAT_UNSUPPORTED INPUT_DATASET_INVALID
    INPUT_DATASET_NOT_FOUND INPUT_DATASET_PARSE_FAILED INPUT_DATASET_VALIDATION_FAILED INPUT_VALIDATION_FAILED
    PARTIAL_BATCH_OPERATION PARTIAL_SUCCESS RUNTIME_EXPORT_FAILED RUNTIME_GGUF_EXPORT_FAILED RUNTIME_GPU_ERROR
    RUNTIME_GPU_MONITORING_FAILED RUNTIME_GPU_OOM RUNTIME_GPU_TEMPERATURE_CRITICAL RUNTIME_LORA_EXPORT_FAILED
    RUNTIME_MERGE_EXPORT_FAILED RUNTIME_SLAO_ERROR RUNTIME_SLAO_MERGE_FAILED RUNTIME_TRAINING_ABORTED
    RUNTIME_TRAINING_FAILED STATE_CHECKPOINT_INVALID STATE_SLAO_CHECKPOINT_INVALID"""


def test_every_code_of_version_1_is_a_code_here_or_has_its_decision_written_down() -> None:
    here = {row["code"] for row in catalogue()}
    assert set(VERSION_1.split()) <= here | EARLIER_CODES.keys()
    assert not here & EARLIER_CODES.keys()


def test_errors_are_also_the_standard_errors_that_they_refine() -> None:
    assert issubclass(DatasetNotFoundError, FileNotFoundError)
    assert issubclass(DiskFullError, OSError)
    assert issubclass(GpuOutOfMemoryError, MemoryError)


def test_an_error_survives_the_way_through_a_run_folder() -> None:
    for error in error_classes():
        written = error("It broke at line 3.", hint="Mend it.", cause=ValueError("x"), retryable=True)
        read = from_record(written.record())
        assert read.code == written.code and read.sentence() == written.sentence() and read.retryable
        assert str(written) == "It broke at line 3." and isinstance(written.__cause__, ValueError)


def test_the_sentence_holds_code_message_and_hint() -> None:
    assert BackpropagateError("No.", hint="Yes.").sentence() == "[RUNTIME_ERROR] No. — Yes."


def test_a_stack_trace_ends_with_code_and_hint() -> None:
    lines = traceback.format_exception_only(BackpropagateError("No.", hint="Yes."))
    assert [line.rstrip().rpartition(".errors.")[2] or line.rstrip() for line in lines] == [
        "BackpropagateError: No.",
        "[RUNTIME_ERROR] Yes.",
    ]
