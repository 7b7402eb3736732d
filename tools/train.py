"""train: fine-tune a model on a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from pydantic import Field

from ..training.config.fields import (
    BatchSize,
    DatasetSource,
    Dedupe,
    Epochs,
    LearningRate,
    LoadIn4bit,
    LoraAlpha,
    LoraRank,
    MaxSeqLength,
    ModelName,
    OnBadRows,
    OutputFolder,
    Questions,
    Samples,
    Seed,
    Steps,
)
from ..training.config.specs import TrainSpec
from ..training.files.output_folder import check_output
from ..training.requests.dataset_source import with_resolved_validation
from ..training.requests.settings import alias_notes
from ..training.requests.train import require_alone, train_spec
from .context import ToolContext, resolved_dataset, resolved_model
from .follow import Confirmed, WaitSeconds, follow_or_raise, submission_note, submitted
from .status import RunStatus, run_status


async def train(
    context: ToolContext,
    dataset: DatasetSource | None = None,
    model: ModelName | None = None,
    steps: Steps | None = None,
    epochs: Epochs | None = None,
    samples: Samples | None = None,
    on_bad_rows: OnBadRows | None = None,
    dedupe: Dedupe | None = None,
    batch_size: BatchSize | None = None,
    learning_rate: LearningRate | None = None,
    max_seq_length: MaxSeqLength | None = None,
    lora_r: LoraRank | None = None,
    lora_alpha: LoraAlpha | None = None,
    load_in_4bit: LoadIn4bit | None = None,
    seed: Seed | None = None,
    questions: Questions | None = None,
    output: OutputFolder | None = None,
    settings: Annotated[
        dict[str, Any] | None,
        Field(
            description="Other settings by name or by group, "
            'e.g. {"lora_dropout": 0.05, "training": {"lr_scheduler": "cosine"}}.'
        ),
    ] = None,
    request_key: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description="Your name for this request; a retry with the same name returns the same run.",
        ),
    ] = None,
    new_run: Annotated[bool, Field(description="Start a new run even if an equal one exists.")] = False,
    resume: Annotated[
        str | None,
        Field(description="Resume this run; with more steps than planned, start a new run from its adapter."),
    ] = None,
    confirmed: Confirmed = False,
    wait_s: WaitSeconds = 50,
) -> RunStatus:
    """Fine-tune a language model on a dataset with LoRA, on this machine.

    Returns within wait_s: the result, or a run_id for get_run. The run continues after that, also when the
    client is closed. Give `questions` that only the dataset answers, to compare the model before and after.
    """
    if resume is not None:
        given = dict(
            dataset=dataset, model=model, epochs=epochs, samples=samples, on_bad_rows=on_bad_rows,
            dedupe=dedupe, batch_size=batch_size, learning_rate=learning_rate, max_seq_length=max_seq_length,
            lora_r=lora_r, lora_alpha=lora_alpha, load_in_4bit=load_in_4bit, seed=seed, questions=questions,
            output=output, settings=settings, request_key=request_key, new_run=new_run or None,
        )  # fmt: skip
        gpus = settings["gpus"] if settings and [*settings] == ["gpus"] else None
        names = [name for name, value in given.items() if value is not None]
        if not {*names} <= {"dataset", *(["settings"] if gpus is not None else [])}:
            require_alone(names)
        own = resolved_dataset(context, dataset) if dataset else None
        submission = await context.service.resume_or_extend(resume, steps, own, gpus)
    else:
        arguments = {
            "dataset": dataset,
            "model": model,
            "steps": steps,
            "epochs": epochs,
            "samples": samples,
            "on_bad_rows": on_bad_rows,
            "dedupe": dedupe,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "max_seq_length": max_seq_length,
            "lora_r": lora_r,
            "lora_alpha": lora_alpha,
            "load_in_4bit": load_in_4bit,
            "seed": seed,
            "questions": questions,
            "output": output,
        }
        spec = await anyio.to_thread.run_sync(partial(train_spec_of, context, settings, arguments))
        submission = await submitted(context, spec, request_key, new_run=new_run, confirmed=confirmed)
    view = await follow_or_raise(context, submission, wait_s)
    notes = [submission_note(submission, request_key), *alias_notes(settings)]
    return run_status(view, note=" ".join(filter(None, notes)) or None)


def train_spec_of(
    context: ToolContext,
    settings: Mapping[str, Any] | None,
    arguments: dict[str, Any],
    *,
    planned: bool = False,
) -> TrainSpec:
    """The spec of a call's arguments, with permitted absolute paths; a plan needs no dataset or weights."""
    dataset, output = arguments["dataset"], arguments["output"]
    resolved = {
        **arguments,
        "dataset": resolved_dataset(context, dataset) if dataset else None,
        "model": resolved_model(context, arguments["model"], weights=not planned),
        "output": context.paths.resolve(output, "output", write=True) if output else None,
    }
    roots = context.paths.recorded()
    spec = train_spec(
        context.service.settings,
        settings=settings,
        arguments=resolved,
        roots=roots,
        needs_dataset=not planned,
    )
    spec = with_resolved_validation(spec, context.paths)
    check_output(spec.output)
    return spec
