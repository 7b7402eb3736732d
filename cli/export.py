"""`backprop export`."""

from __future__ import annotations

import anyio
import click

from ..training.arguments import export_spec
from ..training.paths import PathPolicy
from ..training.service import Submission, TrainingService
from ..training.vocabulary import ExportFormat
from .follow import run_exit_code
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
    "--quantization",
    metavar="TYPE",
    default="q4_k_m",
    show_default=True,
    help="Type of a GGUF's weights: f32, f16, bf16, q8_0; with the extra `export` also q6_k, q4_k_m, …",
)
@click.option("--imatrix", is_flag=True, help="Weigh a K-quant's errors by the run's held-out rows.")
@click.option("--output", metavar="PATH", help="The .gguf file, or folder, to write.")
@click.option("--detach", is_flag=True, help="Start the export and leave; it goes on by itself.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON.")
@click.pass_context
def export(
    ctx: click.Context,
    source: str,
    format_: ExportFormat,
    quantization: str,
    imatrix: bool,
    output: str | None,
    detach: bool,
    as_json: bool,
) -> None:
    """Export SOURCE: a run's id, or the path of an adapter or model folder. A GGUF is proven first."""
    service = TrainingService()
    paths = PathPolicy.for_person(service.settings.home)
    spec = export_spec(
        source,
        service.store,
        paths,
        format=format_,
        quantization=quantization,
        imatrix=imatrix,
        output=paths.resolve(output, "output", write=True) if output else None,
    )

    async def submit() -> Submission:
        return await service.submit(spec)

    view = anyio.run(start_and_follow, service, submit, detach)
    (print_json if as_json else print_run)(view)
    ctx.exit(0 if detach else run_exit_code(view))
