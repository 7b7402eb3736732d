"""The importance matrix (imatrix) of a K-quant, from the rows of the run that is exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...errors import GgufExportError, TrainingAbortedError
from ..held_out_rows import RunRows
from ..merged.merge import Floats
from .export import Phase


def measure_imatrix(
    base: Path, adapter: Path | None, rows: RunRows | None, phase: Phase, should_stop: Callable[[], bool]
) -> dict[str, Floats]:
    """By the names of the base's weights, the mean square of each input, (columns,).

    Raises:
        GgufExportError: the run's rows are gone, or the model does not fit into memory.
        TrainingAbortedError: `should_stop` said so.
    """
    import torch

    from ..reference_model import Reference, fits_in_memory

    if rows is None or not rows.rows:
        raise GgufExportError(
            "imatrix: the tokens of the run's data are no longer in the cache.",
            hint="Export without imatrix, or train again.",
        )
    dtype = torch.float32 if fits_in_memory(base, 4) else torch.bfloat16
    if not fits_in_memory(base, dtype.itemsize):
        raise GgufExportError(
            "imatrix: the model does not fit into the free memory.", hint="Export without imatrix."
        )
    tell = phase("loading")
    tell("loading the trained model for the importance matrix", None)
    reference = Reference(base, adapter, dtype)

    def step(done: int) -> None:
        if should_stop():
            raise TrainingAbortedError(
                "Cancelled while the importance matrix was measured; nothing was kept."
            )
        tell(f"measuring the importance matrix: row {done} of {len(rows.rows)}", done / len(rows.rows))

    return reference.imatrix(rows.rows, step)
