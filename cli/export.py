"""`backprop export`."""

from __future__ import annotations

from functools import partial

import anyio
import click

from ..training.config.fields import ExportFormat
from ..training.config.ollama_names import model_name
from ..training.config.quantizations import note_on_default
from ..training.config.results import ExportResult
from ..training.errors import InputError
from ..training.files.paths import PathPolicy
from ..training.requests.export import export_spec
from ..training.requests.register import register_spec
from ..training.runs.folder import Status
from ..training.runs.view import RunView
from ..training.service import TrainingService
from .follow import PARTLY, run_exit_code
from .show import print_json, print_run
from .train import start_and_follow


@click.command("export")
@click.argument("source")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["gguf", "merged", "lora"]),
    default="gguf",
    show_default=True,
    help="One GGUF file; safetensors with the LoRA merged in; or the adapter alone.",
)
@click.option(
    "-q",
    "--quantization",
    metavar="TYPE",
    help="Type of a GGUF's weights: f32, f16, bf16, q8_0; with the extra `export` also q6_k, q4_k_m, … "
    "[default: q4_k_m; without the extra, q8_0]",
)
@click.option("--imatrix", is_flag=True, help="Weigh a K-quant's errors by the run's held-out rows.")
@click.option("--output", metavar="PATH", help="The .gguf file, or folder, to write.")
@click.option("--ollama", is_flag=True, help="Make the GGUF a model of the Ollama server at OLLAMA_HOST.")
@click.option("--ollama-name", metavar="NAME", help="Its name there: [namespace/]model[:tag].")
@click.option("--overwrite", is_flag=True, help="Replace an Ollama model of this name.")
@click.option("--detach", is_flag=True, help="Start the export and leave; it goes on by itself.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON.")
@click.pass_context
def export(
    ctx: click.Context,
    source: str,
    format_: ExportFormat,
    quantization: str | None,
    imatrix: bool,
    output: str | None,
    ollama: bool,
    ollama_name: str | None,
    overwrite: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Export SOURCE: a run's id, or the path of an adapter or model folder. A GGUF is proven first.

    With --ollama, SOURCE may also be a .gguf file.
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
            output=paths.resolve(output, "output", write=True) if output else None,
        )
        note = note_on_default(quantization, spec.quantization)
        if note:
            click.echo(note, err=True)
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
    """Partly done: a file was exported, and is no model of Ollama."""
    if exported is not None and exported is not view and view.status is not Status.COMPLETED:
        return PARTLY
    return run_exit_code(view)


def _check_ollama(format_: ExportFormat, name: str | None, overwrite: bool, detach: bool) -> None:
    """What can be known before a long export.

    Raises:
        InputError: the options do not go together.
        OllamaError: the name is not one of Ollama's or is in use, or there is no server.
    """
    if name is None:
        raise InputError("--ollama needs a name.", hint="Give --ollama-name NAME.")
    model_name(name)
    if format_ != "gguf" or detach:
        raise InputError("--ollama goes with --format gguf, and not with --detach.")
    # Imported when it is needed: reading chat templates and talking HTTP bring much in.
    from ..training.export.ollama.register import check_name_is_free

    check_name_is_free(name, overwrite)
