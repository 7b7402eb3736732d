"""One tree of errors, each with a code of its own."""

from __future__ import annotations

import traceback

from backpropagate.training.errors import (
    BackpropagateError,
    DatasetNotFoundError,
    DiskFullError,
    GpuOutOfMemoryError,
    catalogue,
    error_classes,
    from_record,
)


def test_every_error_has_a_code_a_meaning_and_an_exit_code() -> None:
    rows = catalogue()
    assert len({row["code"] for row in rows}) == len(rows) > 20
    assert all(row["meaning"] and row["exit_code"] in {1, 2, 3} for row in rows)


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
