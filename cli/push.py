"""`backprop push`."""

from __future__ import annotations

import click

from ..training.files.paths import PathPolicy
from ..training.requests.push import push_spec
from ..training.service import Submission, TrainingService
from .completion import complete_run_or_path
from .runs import as_json_option
from .train import run_and_print


@click.command("push")
@click.argument("source", metavar="PATH|RUN", shell_complete=complete_run_or_path)
@click.option(
    "--repo", required=True, metavar="OWNER/NAME", help="The repository; created if it does not exist."
)
@click.option(
    "--public/--private", default=False, help="Create a new repository as public. Default: private."
)
@click.option("--overwrite", is_flag=True, help="Replace other weights in the repository.")
@click.option("--detach", is_flag=True, help="Start the push and exit; it continues in the background.")
@as_json_option
@click.pass_context
def push(
    ctx: click.Context, source: str, repo: str, public: bool, overwrite: bool, detach: bool, as_json: bool
) -> None:
    """Publish an adapter or a merged model on the Hugging Face Hub, with its model card.

    The access token comes from HF_TOKEN or `hf auth login`. An interrupted upload resumes when you push
    again.
    """
    service = TrainingService()
    paths = PathPolicy.for_person(service.settings.home)

    async def submit() -> Submission:
        spec = push_spec(source, repo, service.store, paths, private=not public, overwrite=overwrite)
        return await service.submit(spec)

    run_and_print(ctx, service, submit, detach=detach, as_json=as_json)
