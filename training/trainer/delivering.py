"""The part of a `Trainer` that writes what was trained to files, folders and the Hub."""

from __future__ import annotations

import time
from pathlib import Path

from ..config.fields import ExportFormat
from ..config.results import ExportResult, PushResult
from ..errors import InputError
from ..events import ShouldStop, never_stop, no_report
from ..logs import logger
from ..requests.export import check_export_output, export_spec, note_on_quantization
from ..requests.push import push_spec
from ..untrusted import shown_path
from .ended import Export
from .older_arguments import with_older_arguments
from .session import Session


class Delivering(Session):
    """Writes what was trained to files, folders and the Hub."""

    @with_older_arguments
    def export(
        self,
        format: ExportFormat = "gguf",
        *,
        quantization: str | None = None,
        imatrix: bool = False,
        output: str | Path | None = None,
        allow_other_base: bool = False,
        should_stop: ShouldStop = never_stop,
    ) -> Export:
        """Export the last training, and record it as a run. A GGUF is verified before it gets its name.

        Args:
            format: "gguf", "merged" (safetensors) or "lora" (the adapter alone).
            quantization: of a GGUF: f32, f16, bf16, q8_0; with the extra `export` also q6_k, q4_k_m, ….
                Default: q4_k_m; without the extra, q8_0 with a warning in the log.
            imatrix: weight a K-quant's errors by activations on the run's held-out rows.
            output: the .gguf file, or folder, to write. Default: in the run folder.
            allow_other_base: accept a base model that is no longer the one that was trained on.
            should_stop: called often; True stops the export without keeping any files.

        Raises:
            InputError: there is no training yet, or an argument is wrong.
            ExportError: it cannot be exported, or the written file differs from the model.
            MissingExtraError: the quantization needs llama-cpp-python.
        """
        from ..worker import export

        spec = export_spec(
            self._trained("training to export").run_id,
            self._store,
            self._paths,
            format=format,
            quantization=quantization,
            imatrix=imatrix,
            allow_other_base=allow_other_base,
            output=self._paths.resolve(str(output), "output", write=True) if output else None,
        )
        note = note_on_quantization(spec, quantization, self._store)
        if note:
            logger().warning(note)
        check_export_output(spec)
        run = self._store.create(spec)
        started = time.monotonic()
        state = self._execute(export.run, run, no_report, should_stop)
        result, seconds = state.result, round(time.monotonic() - started, 2)
        assert isinstance(result, ExportResult)
        return Export(
            run.run_id, Path(result.path), result.bytes, result.proof, format, result.quantization, seconds
        )

    @with_older_arguments
    def save(
        self, path: str | Path | None = None, *, overwrite: bool = False, save_merged: bool = False
    ) -> Path:
        """Copy the adapter of the last training to a folder. `train(output=…)` checks the folder beforehand.

        Args:
            path: a new or empty folder. None: the adapter is in its run's folder already.
            overwrite: replace an adapter that is there.
            save_merged: write the whole model with the adapter merged into it, as `export("merged")` does.

        Returns:
            The folder.

        Raises:
            InputError: there is no training yet, or the folder is in use.
            PathForbiddenError: it is in a system folder or in a folder of credentials.
        """
        from ..worker.save_adapter import copy_adapter_folder

        last = self._trained("adapter to save")
        if save_merged:
            if overwrite:
                raise InputError("A merged model is written to a new folder.", hint="Leave overwrite out.")
            return self.export("merged", output=path).path
        if path is None:
            return last.adapter_path
        target = Path(self._paths.resolve(str(path), "path", write=True))
        if not overwrite and (target / "adapter_config.json").is_file():
            raise InputError(
                f"path: {shown_path(target)} already exists, with an adapter.",
                hint="Give another folder, or overwrite=True to replace it.",
            )
        return Path(copy_adapter_folder(last.adapter_path, str(target), overwrite=overwrite))

    @with_older_arguments
    def push_to_hub(self, repo: str, private: bool = True, *, overwrite: bool = False) -> str:
        """Publish the adapter of the last training on the Hub, with its model card, and record it as a run.

        The access token comes from HF_TOKEN or `hf auth login`.

        Args:
            repo: `owner/name`; created if it does not exist.
            private: create a new repository as private.
            overwrite: replace other weights in the repository.

        Raises:
            InputError: there is no training yet.
            HubPushError: the push failed; the message contains the next step.
        """
        from ..worker import push

        folder = str(self._trained("adapter to publish").adapter_path)
        spec = push_spec(folder, repo, self._store, self._paths, private=private, overwrite=overwrite)
        state = self._execute(push.run, self._store.create(spec), no_report, never_stop)
        assert isinstance(state.result, PushResult)
        return state.result.url
