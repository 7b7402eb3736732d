"""Compares the next-token probabilities of the exported file, in llama.cpp, with the trained model's."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import GgufExportError
from ...next_step import then
from ..merged.merge import Floats
from ..reference_model import Reference

KL_LIMIT = {"f32": 1e-4, "f16": 1e-4, "bf16": 5e-3, "q8_0": 0.02}
"""Largest mean divergence, in nats per token. Others have no limit: small models lose much."""

ROWS = 8
TOKENS = 128  # of each row
LEAST_TOKENS = 2


@dataclass(frozen=True)
class LogitComparison:
    """How close the file's probabilities are.

    Args:
        divergence: mean Kullback-Leibler divergence from the trained model, nats per token.
        agreement: share of positions at which both predict the same most likely token.
    """

    rows: int
    tokens: int
    divergence: float
    agreement: float

    def sentence(self, which: str) -> str:
        return (
            f"Run in llama.cpp on {self.tokens} tokens of {self.rows} {which}: KL to the trained model "
            f"{self.divergence:.2g}, {self.agreement:.0%} of the top tokens agree."
        )


def verify_logits(
    path: Path,
    quantization: str,
    reference: Reference,
    rows: Sequence[Sequence[int]],
    threads: int,
    on_row: Callable[[int], None],
) -> LogitComparison:
    """Compare the file, run by llama.cpp, with the trained model.

    Args:
        rows: token ids; the first `TOKENS` of each are used.
        on_row: called with the number of rows that are done; may raise to stop.

    Raises:
        GgufExportError: llama.cpp cannot run the file, or it differs more than its type explains.
    """
    used = [list(row[:TOKENS]) for row in rows[:ROWS] if len(row) >= LEAST_TOKENS]
    divergences: list[NDArray[np.float64]] = []
    agreements: list[NDArray[np.bool_]] = []
    with _llama(path, threads) as logits:
        for done, row in enumerate(used, 1):
            expected, found = reference.logits(row), logits(row)
            divergences.append(_divergence(expected, found))
            agreements.append(expected.argmax(axis=1) == found.argmax(axis=1))
            on_row(done)
    divergence = float(np.concatenate(divergences).mean())
    agreement = float(np.concatenate(agreements).mean())
    comparison = LogitComparison(len(used), sum(map(len, used)), divergence, agreement)
    limit = KL_LIMIT.get(quantization)
    if not np.isfinite(divergence) or (limit is not None and divergence > limit):
        raise GgufExportError(
            f"The file's outputs in llama.cpp differ from the trained model's: KL {divergence:.3g}, "
            f"limit for {quantization}: {limit}.",
            hint="Export the merged model instead, and report the model's config.json.",
            next=then("ask_again", format="merged"),
        )
    return comparison


@contextmanager
def _llama(path: Path, threads: int) -> Generator[Callable[[list[int]], Floats]]:
    llama_cpp: Any = import_module("llama_cpp")
    try:
        model = llama_cpp.Llama(
            str(path), n_ctx=TOKENS, n_batch=TOKENS, n_threads=threads, logits_all=True, verbose=False
        )
    except ValueError as error:
        raise GgufExportError(f"llama.cpp cannot load the file: {error}.", cause=error) from error
    try:

        def logits(row: list[int]) -> Floats:
            model.reset()
            model.eval(row)
            return np.array(model.scores[: len(row)], np.float32)

        yield logits
    finally:
        model.close()


def _divergence(expected: Floats, found: Floats) -> NDArray[np.float64]:
    """KL(expected ‖ found) of each token's softmax, (tokens,)."""
    p, q = _log_softmax(expected), _log_softmax(found)
    return (np.exp(p) * (p - q)).sum(axis=1)


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
