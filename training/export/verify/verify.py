"""Which proofs an exported file gets beyond its tensors, and why some cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ...errors import GgufExportError, TrainingAbortedError
from ..gguf.export import GgufRequest, Phase
from ..held_out_rows import RunRows
from .tokenizer_parity import compare_tokenizers


class FileVerifier:
    """Runs the proofs of a finished file, and keeps a sentence on each.

    Args:
        rows: what the model is run on; None if there is no run, or its tokens are gone.
    """

    def __init__(
        self, request: GgufRequest, rows: RunRows | None, phase: Phase, should_stop: Callable[[], bool]
    ) -> None:
        self.sentences: list[str] = []
        self._request = request
        self._rows = rows
        self._phase = phase
        self._should_stop = should_stop

    def __call__(self, path: Path) -> None:
        """Prove the file.

        Raises:
            GgufExportError: it is not the trained model.
        """
        self.sentences.append(self._tokenizer(path))
        reason = self._why_not_run(path)
        self.sentences.append(f"Not run in llama.cpp: {reason}." if reason else self._run(path))

    def _tokenizer(self, path: Path) -> str:
        self._phase("proving")("comparing the tokenizer with the model's own", 0.9)
        found = compare_tokenizers(self._request.tokenizer_folder, path)
        if not found.agrees:
            texts = [repr(difference.text[:40]) for difference in found.text_examples]
            raise GgufExportError(
                f"The file's tokenizer is not the model's: {found.in_files} entries and {found.in_texts} of "
                f"{found.texts} texts differ, first {', '.join([*found.file_examples, *texts][:2])}.",
                hint='Export with format="merged" instead, and report the model\'s tokenizer.json.',
            )
        limits = "".join(f" {known.texts} of them differ: {known.reason}." for known in found.known)
        return f"Tokenizer: {found.checked}{limits}"

    def _why_not_run(self, path: Path) -> str | None:
        if find_spec("llama_cpp") is None:
            return "llama-cpp-python is not installed"
        if self._rows is None:
            return "there is no training run whose rows it could be run on"
        from ..reference_model import fits_in_memory

        if not fits_in_memory(self._request.base, 4, beside=path.stat().st_size):
            return "the model does not fit into memory twice"
        return None

    def _run(self, path: Path) -> str:
        from ..reference_model import Reference
        from .logits import ROWS, verify_logits

        assert self._rows is not None
        tell = self._phase("proving")
        tell("loading the trained model to compare with", 0.9)
        reference = Reference(self._request.base, self._request.adapter)

        def step(done: int) -> None:
            if self._should_stop():
                raise TrainingAbortedError("Cancelled while the file was proven; nothing was kept.")
            tell(f"running the file in llama.cpp: row {done} of {ROWS}", 0.9 + 0.1 * done / ROWS)

        proof = verify_logits(
            path, self._request.quantization, reference, self._rows.rows, self._request.threads, step
        )
        return proof.sentence(self._rows.which)
