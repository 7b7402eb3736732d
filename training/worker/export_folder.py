"""Executes an export to a folder: the merged model, or only the adapter."""

from __future__ import annotations

from pathlib import Path

from ..config.results import ExportResult
from ..config.specs import ExportSpec
from ..errors import LoraExportError
from ..export.hub.model_card import bare_card, run_card
from ..export.hub.run_facts import RunFacts
from ..files.atomic_folder import part_of
from ..files.atomic_json import read_json
from ..files.output_folder import check_output
from ..models.model_folder import FolderForm, missing_from
from ..models.presets import classify_model
from ..runs.folder import RunFolder
from ..untrusted import quoted, shown_path
from .context import RunContext, WaitForDevice
from .trained_base import require_base_of_adapter


def export_folder(context: RunContext, spec: ExportSpec, wait_for_device: WaitForDevice) -> None:
    """Write the folder atomically, and record the run's result.

    Raises:
        ExportError: it cannot be exported in this format.
        TrainingAbortedError: it was cancelled.
    """
    target = Path(spec.output) if spec.output else context.run.path / "export" / f"{spec.label}-{spec.format}"
    check_output(str(target))
    wait_for_device()
    check_output(str(target))  # there may be something since
    if spec.output is not None:
        context.permit_output(target)
    base = context.model_folder(weights=spec.format == "merged")
    # Weights that were not downloaded are those of the commit that the adapter names.
    if spec.format == "merged" or not missing_from(base):
        require_base_of_adapter(context, spec, base)
    target.parent.mkdir(parents=True, exist_ok=True)
    context.run.write_parts([part_of(target, context.run.run_id)])
    size = _write(context, spec, base, target)
    context.recorder.completed(_result(spec, target, size))


def _write(context: RunContext, spec: ExportSpec, base: Path, target: Path) -> int:
    adapter = Path(spec.adapter) if spec.adapter else None
    context.recorder.phase("writing", f"writing {quoted(target.name)}")
    if spec.format == "merged":
        from ..export.merged.safetensors import write_merged

        card = _card(spec, base, "merged")
        return write_merged(
            base,
            adapter,
            target,
            card,
            context.report,
            context.should_stop,
            writer=context.run.run_id,
            after_reading=context.require_permitted,
        )
    if adapter is None:
        raise LoraExportError(
            f"{shown_path(spec.model.name)} has no adapter.",
            hint="Give a run id, or the path of an adapter folder.",
        )
    from ..export.merged.adapter import write_lora

    card = _card(spec, base, "adapter")
    after_reading = context.require_permitted
    return write_lora(base, adapter, target, card, writer=context.run.run_id, after_reading=after_reading)


def _card(spec: ExportSpec, base: Path, form: FolderForm) -> str:
    """The model card: with the facts of the run, if the run folder still contains the adapter."""
    adapter = Path(spec.adapter) if spec.adapter else base
    chat = has_chat_template(adapter) or has_chat_template(base)
    run = RunFolder(adapter.parent)
    if spec.run is None or run.run_id != spec.run:
        return bare_card(classify_model(spec.model.name).location, form, chat=chat)
    return run_card(RunFacts.of(run), form, chat=chat)


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in a folder has a chat template."""
    if (folder / "chat_template.jinja").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(read_json(config).get("chat_template"))


def _result(spec: ExportSpec, target: Path, size: int) -> ExportResult:
    shown = f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
    what = "Merged model" if spec.format == "merged" else "LoRA adapter"
    return ExportResult(path=str(target), bytes=size, summary=f"{what} of {shown}, as safetensors.")
