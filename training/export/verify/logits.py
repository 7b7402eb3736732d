"""Compares what llama.cpp computes from the exported file with what Transformers computes.

Two things make a difference: the rounding of the weights, and the program. So Transformers runs twice: with
the trained weights, which tells how much the quantization loses, and with the weights of the file, which must
give what llama.cpp gives, but for the rounding of inputs that llama.cpp does in every file of the type. How
much that rounding costs this model is measured, too: a wrong model cannot pass as a bad quantization, and a
right file is not refused because its model is sensitive.

A layer that chooses among experts may choose another after the smallest rounding, so what rounding explains
is not known there: of such models the first comparison is made and told, and nothing is required of it.

Cost: five runs over at most `ROWS` rows of `TOKENS` tokens, and the file is read once; none is written.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from ...errors import GgufExportError
from ...next_step import then
from ..gguf.export import UnverifiedGguf
from ..merged.merge import Floats
from ..reference_model import Reference
from .file_weights import file_weights
from .input_rounding import rounded_inputs

OWN_COST = 2.0
"""Largest divergence from the file's weights in Transformers, as a multiple of llama.cpp's own rounding.
Right files had 0.9 to 1.1."""
FLOOR = 2e-5  # nats per token: the order of sums, and the f16 cache of llama.cpp

ROWS = 12
TOKENS = 128  # of each row
LEAST_TOKENS = 2
LARGE_BYTES = 50 << 20  # in smaller files threads wait for each other longer than they compute

Logits = Callable[[list[int]], Floats]


@dataclass(frozen=True)
class LogitComparison:
    """How close the file's probabilities are; divergences are Kullback-Leibler's, in nats per token.

    Args:
        program: what ran the file.
        divergence: from the trained model.
        agreement: share of positions at which both predict the same most likely token.
        of_program: from the file's own weights in Transformers; None if the model has experts.
        own_cost: what llama.cpp's rounding of inputs costs, in Transformers; None as above.
    """

    program: str
    rows: int
    tokens: int
    divergence: float
    agreement: float
    of_program: float | None
    own_cost: float | None

    def sentence(self, which: str) -> str:
        trained = (
            f"Run in {self.program} on {self.tokens} tokens of {self.rows} {which}: KL to the trained model "
            f"{self.divergence:.2g}, {self.agreement:.0%} of the top tokens agree"
        )
        if self.own_cost is None:
            return f"{trained}; no limit is set for it, since rounding changes the choice of experts."
        return (
            f"{trained}; KL to the same weights in Transformers {self.of_program:.2g}; "
            f"rounding of inputs explains {self.own_cost:.2g}."
        )


def verify_logits(
    file: UnverifiedGguf,
    reference: Reference,
    rows: Sequence[Sequence[int]],
    threads: int,
    on_row: Callable[[int], None],
    longest: int = TOKENS,
    own_reader: Logits | None = None,
) -> LogitComparison:
    """Compare the file, run by llama.cpp, with the trained model and with the file's weights in Transformers.

    Args:
        reference: the trained model; it has the file's weights afterwards.
        rows: token ids; the first tokens of each are used.
        on_row: called with the number of rows that are done, of twice as many; may raise to stop.
        longest: tokens of a row, at most `TOKENS`.
        own_reader: runs the file instead of llama.cpp, and rounds no inputs.

    Raises:
        GgufExportError: llama.cpp cannot run the file, or computes something else from its weights.
    """
    length = min(longest, TOKENS)
    kinds = {tensor.source: tensor.kind for tensor in file.planned}
    used = [list(row[:length]) for row in rows[:ROWS] if len(row[:length]) >= LEAST_TOKENS]
    with _llama(file.path, threads) if own_reader is None else nullcontext(own_reader) as logits:
        trained = [_compared(reference.logits, logits, row, on_row, done) for done, row in enumerate(used, 1)]
        in_file: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        if not any(tensor.experts for tensor in file.planned):
            _take_weights(reference, file, threads)
            in_file = [
                _of_file(reference, {} if own_reader else kinds, logits, row, on_row, len(used) + done)
                for done, row in enumerate(used, 1)
            ]
    comparison = LogitComparison(
        program="our own decoder" if own_reader else "llama.cpp",
        rows=len(used),
        tokens=sum(map(len, used)),
        divergence=_mean(divergence for divergence, _ in trained),
        agreement=_mean(agreement for _, agreement in trained),
        of_program=_mean(of_program for of_program, _ in in_file) if in_file else None,
        own_cost=_mean(own_cost for _, own_cost in in_file) if in_file else None,
    )
    _require_same_model(comparison)
    return comparison


def _compared(
    expected: Logits, found: Logits, row: list[int], on_row: Callable[[int], None], done: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Divergence and agreement at each token of a row."""
    one, other = expected(row), found(row)
    on_row(done)
    return _divergence(one, other), one.argmax(axis=1) == other.argmax(axis=1)


def _of_file(
    reference: Reference,
    kinds: Mapping[str | None, GGMLQuantizationType],
    logits: Logits,
    row: list[int],
    on_row: Callable[[int], None],
    done: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divergence of the file's run, and of rounded inputs, from the file's weights in Transformers.

    Args:
        kinds: of the weights whose inputs are rounded, by their names.
    """
    exact = reference.logits(row)
    linears = {module: kinds[name] for name, module in reference.linears().items() if name in kinds}
    with rounded_inputs(linears):
        rounded = reference.logits(row)
    on_row(done)
    return _divergence(exact, logits(row)), _divergence(exact, rounded)


def _take_weights(reference: Reference, file: UnverifiedGguf, threads: int) -> None:
    for rows in file_weights(file, threads):
        reference.set_weights(rows.name, rows.start, rows.values)


def _require_same_model(found: LogitComparison) -> None:
    if found.of_program is None or found.own_cost is None:
        if np.isfinite(found.divergence):
            return
        raise GgufExportError(f"{found.program} computes no numbers from the file.")
    if np.isfinite(found.divergence) and found.of_program <= FLOOR + OWN_COST * found.own_cost:
        return
    raise GgufExportError(
        f"{found.program} computes another model from the file than Transformers from the same weights: KL "
        f"{found.of_program:.3g} nats per token; rounding of inputs explains {found.own_cost:.2g}.",
        hint="Export the merged model instead, and report the model's config.json.",
        next=then("ask_again", format="merged"),
    )


def _mean(parts: Iterable[NDArray[Any]]) -> float:
    return float(np.concatenate(list(parts)).mean())


@contextmanager
def _llama(path: Path, threads: int) -> Generator[Callable[[list[int]], Floats]]:
    llama_cpp: Any = import_module("llama_cpp")
    cores = threads if path.stat().st_size >= LARGE_BYTES else 1
    try:
        model = llama_cpp.Llama(
            str(path),
            n_ctx=TOKENS,
            n_batch=TOKENS,
            n_threads=cores,
            n_threads_batch=cores,
            logits_all=True,
            verbose=False,
        )
    except ValueError as error:
        raise GgufExportError(
            f"llama.cpp cannot load the file: {type(error).__name__}.", cause=error, untrusted=str(error)
        ) from error
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
