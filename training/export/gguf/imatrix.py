"""The importance matrix (imatrix) of a K-quant, from the rows of the run that is exported."""

from __future__ import annotations

from pathlib import Path

from ...errors import GgufExportError, TrainingAbortedError
from ...events import Phase, Report, ShouldStop, never_stop, no_report
from ...next_step import then
from ..held_out_rows import RunRows
from ..merged.merge import Floats


def measure_imatrix(
    base: Path,
    adapter: Path | None,
    rows: RunRows | None,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
) -> dict[str, Floats]:
    """By the names of the base's weights, the mean square of each input, (columns,).

    Raises:
        GgufExportError: the run's tokens are no longer cached, or the model does not fit into memory.
        TrainingAbortedError: `should_stop` said so.
    """
    import torch

    from ..reference_model import Reference, fits_in_memory

    if rows is None or not rows.rows:
        raise GgufExportError(
            "imatrix: the tokens of the run's data are no longer in the cache.",
            hint="Export without an importance matrix, or train again.",
            next=then("ask_again", imatrix=False),
        )
    dtype = torch.float32 if fits_in_memory(base, 4) else torch.bfloat16
    if not fits_in_memory(base, dtype.itemsize):
        raise GgufExportError(
            "imatrix: the model does not fit into the free memory.",
            hint="Export without an importance matrix.",
            next=then("ask_again", imatrix=False),
        )
    report(Phase(phase="loading", message="loading the trained model for the importance matrix"))
    reference = Reference(base, adapter, dtype)

    def on_row(done: int) -> None:
        if should_stop():
            raise TrainingAbortedError(
                "Cancelled while the importance matrix was measured; nothing was kept."
            )
        total = len(rows.rows)
        message = f"measuring the importance matrix: row {done} of {total}"
        report(Phase(phase="loading", message=message, fraction=done / total))

    return reference.imatrix(rows.rows, on_row)
