"""`backprop export`."""

from __future__ import annotations

from functools import partial

import anyio
import click

from ..training.config.fields import ExportFormat
from ..training.config.ollama_names import model_name
from ..training.config.results import ExportResult
from ..training.errors import InputError
from ..training.files.paths import PathPolicy
from ..training.requests.export import export_spec, note_on_quantization
from ..training.requests.register import register_spec
from ..training.runs.folder import Status
from ..training.runs.view import RunView
from ..training.service import TrainingService
from .completion import complete_run_or_path
from .follow import PARTLY, run_exit_code
from .show import print_json, print_run
from .train import start_and_follow
from .wrapped import say


@click.command("export")
@click.argument("source", shell_complete=complete_run_or_path)
@click.option(
    "-f",
    "--format",
    "format_",
    type=click.Choice(["gguf", "merged", "lora"]),
    default="gguf",
    show_default=True,
    help="gguf: one GGUF file; merged: safetensors with merged LoRA; lora: only the adapter.",
)
@click.option(
    "-q",
    "--quantization",
    metavar="TYPE",
    help="Type of a GGUF's weights: f32, f16, bf16, q8_0; with the extra `export` also q6_k, q4_k_m, … "
    "[default: q4_k_m; without the extra, q8_0]",
)
@click.option(
    "--imatrix", is_flag=True, help="Weight a K-quant's errors by activations on the run's held-out rows."
)
@click.option("-o", "--output", metavar="PATH", help="The .gguf file, or folder, to write.")
@click.option(
    "--allow-other-base",
    is_flag=True,
    help="Accept a base model that is no longer the one that was trained on.",
)
@click.option("--ollama", is_flag=True, help="Register the GGUF with the Ollama server at OLLAMA_HOST.")
@click.option("--ollama-name", metavar="NAME", help="Model name in Ollama: [namespace/]model[:tag].")
@click.option("--overwrite", is_flag=True, help="Replace an existing Ollama model of this name.")
@click.option("--detach", is_flag=True, help="Start the export and exit; it continues in the background.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON.")
@click.pass_context
def export(
    ctx: click.Context,
    source: str,
    format_: ExportFormat,
    quantization: str | None,
    imatrix: bool,
    output: str | None,
    allow_other_base: bool,
    ollama: bool,
    ollama_name: str | None,
    overwrite: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Export SOURCE: a run id, or the path of an adapter or model folder.

    A GGUF file is verified against the trained model. With --ollama, SOURCE may also be a .gguf file.
    """
    if ollama or ollama_name:
        _check_ollama(format_, ollama_name, overwrite, detach)
    service = TrainingService()
    paths = PathPolicy.for_person(service.settings.home)
    exported = None
    if not (ollama and source.casefold().endswith(".gguf")):
        spec = export_spec(
            source,
            service.store,
            paths,
            format=format_,
            quantization=quantization,
            imatrix=imatrix,
            allow_other_base=allow_other_base,
            output=paths.resolve(output, "output", write=True) if output else None,
        )
        note = note_on_quantization(spec, quantization, service.store)
        if note:
            say(note, err=True)
        submit = partial(service.submit, spec, find_equal=True)
        exported = anyio.run(start_and_follow, service, submit, detach)
    view = exported
    written = exported.result if exported else None
    if ollama_name and (exported is None or isinstance(written, ExportResult)):
        gguf = written.path if isinstance(written, ExportResult) else source
        register = register_spec(gguf, ollama_name, service.store, paths, overwrite=overwrite)
        view = anyio.run(start_and_follow, service, partial(service.submit, register))
    assert view is not None
    (print_json if as_json else print_run)(view)
    ctx.exit(0 if detach else _exit_code(exported, view))


def _exit_code(exported: RunView | None, view: RunView) -> int:
    """Partly done, if the file was exported but not registered with Ollama."""
    if exported is not None and exported is not view and view.status is not Status.COMPLETED:
        return PARTLY
    return run_exit_code(view)


def _check_ollama(format_: ExportFormat, name: str | None, overwrite: bool, detach: bool) -> None:
    """Check the options before a long export.

    Raises:
        InputError: the options cannot be combined.
        OllamaError: the name is not valid or is in use, or there is no server.
    """
    if name is None:
        raise InputError("--ollama needs a name.", hint="Give --ollama-name NAME.")
    model_name(name)
    if format_ != "gguf" or detach:
        raise InputError("--ollama needs --format gguf and cannot be combined with --detach.")
    # Imported here, since chat templates and HTTP need heavy libraries.
    from ..training.export.ollama.register import check_name_is_free

    check_name_is_free(name, overwrite)
