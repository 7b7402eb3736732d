"""`backprop import-openai`: a fine-tuning job of OpenAI's as a training here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click

from ..training.config.specs import TrainSpec
from ..training.errors import InputError
from ..training.files.paths import looks_like_path
from ..training.models.presets import AUTO, PRESETS, is_hub_id
from ..training.requests.openai_job import PREFERRED, SavedJob, saved_job
from ..training.service import Submission, TrainingService
from ..training.untrusted import quoted, shown_path
from .completion import complete_path
from .options import option_of
from .train import run_and_print, spec_of
from .wrapped import say, say_json

MOST_BYTES = 2**20  # of a job's JSON
MULTIPLIED = "times the rate that `auto` chooses for the model and the number of steps"


@click.command("import-openai")
@click.argument("job", metavar="JOB.json", shell_complete=complete_path)
@click.option("--data", metavar="FILE", help="Your copy of the job's training file.")
@click.option("--validation", metavar="FILE", help="Your copy of its validation file.")
@click.option("--model", metavar="NAME", help="The model to train instead of OpenAI's. Default: auto.")
@click.option("--start", is_flag=True, help="Start the training; else its command is printed.")
@click.option("--detach", is_flag=True, help="With --start: exit then; the run continues.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def import_openai(
    ctx: click.Context,
    job: str,
    data: str | None,
    validation: str | None,
    model: str | None,
    start: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Map a fine-tuning job of OpenAI's to a training here.

    JOB.json is what `fine_tuning.jobs.retrieve` returned, or what `jobs.create` was called with; - is stdin.
    What has no counterpart is named.
    """
    imported = Imported(saved_job(_read(job)), data, validation, model)
    if detach and not start:
        raise click.UsageError("--detach is for --start.")
    if start:
        imported.require_startable()
    if not (start and as_json):
        _print(imported, as_json)
    if start:
        _start(ctx, imported, detach, as_json)


def _read(job: str) -> dict[str, Any]:
    place = "stdin" if job == "-" else shown_path(job)
    try:
        content = sys.stdin.buffer.read(MOST_BYTES) if job == "-" else _content(Path(job))
        found: object = json.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error.strerror}).", hint="Give a JSON file.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON.", hint="Give a job as JSON.", untrusted=str(error)) from error
    if not isinstance(found, dict):
        raise InputError(f"{place} is no JSON object.", hint="Give one job.")
    return cast("dict[str, Any]", found)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES)


@dataclass(frozen=True)
class Imported:
    """A job, and what the person said about it."""

    job: SavedJob
    data: str | None
    validation: str | None
    model: str | None

    @property
    def is_preference(self) -> bool:
        return self.job.request.method_name == "dpo"

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings of the training, by their flat names."""
        return {
            **({"dataset": self.data} if self.data else {}),
            **({"validation": self.validation} if self.validation else {}),
            **({"model": self._model} if self._model else {}),
            **self.job.request.settings,
            **({"columns": PREFERRED} if self.is_preference else {}),
        }

    @property
    def _model(self) -> str | None:
        return self.model or (self.job.request.model if self._is_ours else None)

    @property
    def _is_ours(self) -> bool:
        name = self.job.request.model
        return name.lower() in PRESETS or is_hub_id(name) or looks_like_path(name)

    def mapped(self) -> Iterator[tuple[str, Any, str]]:
        """What has a counterpart: the parameter, its value, and what it becomes."""
        request = self.job.request
        if self._is_ours and not self.model:
            yield "model", request.model, f"model {request.model}"
        if self.data:
            yield "training_file", request.training_file, f"dataset {self.data}"
        if request.validation_file and self.validation:
            yield "validation_file", request.validation_file, f"validation {self.validation}"
        for name, value in request.asked.items():
            if name != "beta":
                yield name, value, _counterpart(name, value)
        if request.seed is not None:
            yield "seed", request.seed, f"seed {request.seed}"
        for name, value in (("suffix", request.suffix), ("metadata", request.metadata)):
            if value:
                yield name, value, "kept with the run, if --start starts it"

    def not_mapped(self) -> Iterator[str]:
        """A sentence for each of the others."""
        request = self.job.request
        if self.model or not self._is_ours:
            trained = self.model or f"{AUTO}, a model that fits this machine (--model names another)"
            yield f"model {quoted(request.model)}: it has no twin here. Trained instead: {trained}."
        if not self.data:
            yield f"training_file {quoted(request.training_file)}: give your copy of it as --data."
        if request.validation_file and not self.validation:
            named = quoted(request.validation_file)
            yield f"validation_file {named}: give your copy as --validation; else some rows are held out."
        if self.is_preference:
            yield (
                "method dpo: preferences cannot be trained on yet. The command trains on the preferred "
                "answers only, which is supervised training."
            )
        if request.method_name == "reinforcement":
            yield "method reinforcement: training with a grader is not possible; graders are not used."
        if "beta" in request.asked:
            yield "beta: a parameter of DPO, not used."
        if request.integrations:
            yield "integrations: not taken over; the setting report_to follows a training in wandb."
        yield from self.job.notes

    def command(self) -> str:
        given = {"dataset": "FILE", **self.arguments}
        return " ".join(["backprop train", *(option_of(name, value) for name, value in given.items())])

    def require_startable(self) -> None:
        """Raises InputError where a training would not be what the job was."""
        request = self.job.request
        if request.method_name != "supervised":
            raise InputError(
                f"A job of the method {request.method_name} cannot be started: it is not possible here.",
                hint="Without --start, what is possible instead is printed.",
            )
        if not self.data:
            named = quoted(request.training_file)
            raise InputError(f"training_file {named} is at OpenAI.", hint="Give your copy as --data.")
        if request.validation_file and not self.validation:
            raise InputError(
                f"validation_file {quoted(request.validation_file)} is at OpenAI.",
                hint="Give your copy as --validation, or take the name out of the job.",
            )


def _counterpart(name: str, value: Any) -> str:
    setting = {"n_epochs": "epochs"}.get(name, name)
    if value == "auto":
        return f"{setting} auto: chosen for the model and the data"
    return f"{setting} {value}" + (f": {MULTIPLIED}" if name == "learning_rate_multiplier" else "")


def _print(imported: Imported, as_json: bool) -> None:
    if as_json:
        mapped = [{"name": name, "value": value, "becomes": to} for name, value, to in imported.mapped()]
        told = {
            "mapped": mapped,
            "not_mapped": list(imported.not_mapped()),
            "arguments": imported.arguments,
            "command": imported.command(),
        }
        say_json(json.dumps(told, indent=1))
        return
    for name, value, to in imported.mapped():
        shown = value if isinstance(value, int | float) else quoted(value)
        say(f"{name} {shown} → {to}")
    for sentence in imported.not_mapped():
        say(f"Not mapped: {sentence}")
    say(imported.command())


def _start(ctx: click.Context, imported: Imported, detach: bool, as_json: bool) -> None:
    service = TrainingService()
    spec: TrainSpec = spec_of(service, imported.arguments)
    spec = spec.model_copy(update={"job": imported.job.request.record})

    async def submit() -> Submission:
        return await service.submit(spec)

    run_and_print(ctx, service, submit, detach=detach, as_json=as_json)
