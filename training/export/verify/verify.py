"""Which checks an exported file gets, and why some cannot be made."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ...errors import GgufExportError, TrainingAbortedError
from ...events import Phase, Report, ShouldStop, never_stop, no_report
from ...next_step import then
from ...untrusted import quoted
from ..gguf.export import GgufRequest, UnverifiedGguf
from ..gguf.model_config import ignored_window, model_config
from ..held_out_rows import RunRows
from ..merged.merge import Floats
from .sample_rows import sample_rows
from .tensors import verify_tensors
from .tokenizer_parity import compare_tokenizers


class FileVerifier:
    """Verifies a finished file, and keeps a sentence on each check.

    Args:
        rows: what the model is run on; None for sample texts: there is no run, or its tokens are not cached.
        second_reader: what runs a file where llama.cpp is not installed, or why nothing can.
    """

    def __init__(
        self,
        request: GgufRequest,
        rows: RunRows | None,
        second_reader: Callable[[Path], Callable[[list[int]], Floats] | str],
        report: Report = no_report,
        should_stop: ShouldStop = never_stop,
    ) -> None:
        self.sentences: list[str] = []
        self._request = request
        self._rows = rows
        self._second_reader = second_reader
        self._report = report
        self._should_stop = should_stop

    def __call__(self, file: UnverifiedGguf) -> None:
        """Verify the file: its tensors, its tokenizer, and what another program computes from it.

        Raises:
            GgufExportError: it is not the trained model.
            TrainingAbortedError: `should_stop` said so.
        """
        from ..reference_model import fits_in_memory

        self.sentences.append(self._tensors(file))
        self.sentences.append(self._tokenizer(file.path))
        if not fits_in_memory(self._request.base, 4, beside=2 * file.path.stat().st_size):
            self.sentences.append("Not run: the model does not fit into memory twice.")
        elif find_spec("llama_cpp") is not None:
            self.sentences.append(self._run(file))
        else:
            self._run_in_second_reader(file)

    def _run_in_second_reader(self, file: UnverifiedGguf) -> None:
        self.sentences.append("Not run in llama.cpp: llama-cpp-python is not installed.")
        reader = self._second_reader(file.path)
        self.sentences.append(f"Not run: {reader}." if isinstance(reader, str) else self._run(file, reader))

    def _tensors(self, file: UnverifiedGguf) -> str:
        comparison = verify_tensors(file, self._request.threads, self._report, self._should_stop)
        return comparison.sentence("base + adapter" if self._request.adapter else "the base")

    def _tokenizer(self, path: Path) -> str:
        self._phase("comparing the tokenizer with the model's own", 0.9)
        found = compare_tokenizers(self._request.tokenizer_folder, path)
        if not found.agrees:
            texts = [quoted(difference.text) for difference in found.text_examples]
            raise GgufExportError(
                f"The file's tokenizer differs from the model's: {found.in_files} entries and "
                f"{found.in_texts} of {found.texts} texts, first "
                f"{', '.join([*found.file_examples, *texts][:2])}.",
                hint="Export the merged model instead, and report the model's tokenizer.json.",
                next=then("ask_again", format="merged"),
            )
        limits = "".join(f" {known.texts} of them differ: {known.reason}." for known in found.known)
        return f"Tokenizer: {found.checked}{limits}"

    def _run(self, file: UnverifiedGguf, reader: Callable[[list[int]], Floats] | None = None) -> str:
        from ..reference_model import Reference
        from .logits import ROWS, TOKENS, verify_logits

        self._phase("loading the trained model to compare with", 0.9)
        reference = Reference(self._request.base, self._request.adapter)

        def on_row(done: int) -> None:
            if self._should_stop():
                raise TrainingAbortedError("Cancelled while the file was verified; nothing was kept.")
            part = done / (2 * ROWS)
            self._phase(f"running the file: row {done} of {2 * ROWS}", 0.9 + 0.1 * part)

        rows = self._rows or sample_rows(self._request)
        window = ignored_window(model_config(self._request.base)) or TOKENS
        comparison = verify_logits(
            file, reference, rows.rows, self._request.threads, on_row, min(window, TOKENS), reader
        )
        return comparison.sentence(rows.which)

    def _phase(self, message: str, fraction: float) -> None:
        self._report(Phase(phase="proving", message=message, fraction=fraction))
