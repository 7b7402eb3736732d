"""A training run from its spec to its adapter: check, wait, load, train, save, ask.

The worker and the Trainer both carry runs out with this, so they do the same work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import TrainSpec
from .data.rows import Row, read_rows
from .data.source import fingerprint_source
from .errors import TrainingAbortedError
from .hardware.cpu import training_threads
from .models.resolve import resolve_model
from .runs.folder import RunFolder
from .runs.journal import Journal

if TYPE_CHECKING:
    from .data.tokens import TokenisedData
    from .engine.plan import Outcome, Plan


@dataclass(frozen=True)
class Work:
    """One run at work: where it is written down, and how to see that it should stop."""

    run: RunFolder
    spec: TrainSpec
    journal: Journal
    should_stop: Callable[[], bool]

    def stop_here_if_asked(self) -> None:
        if self.should_stop():
            raise TrainingAbortedError("Cancelled before the first step.")


@dataclass(frozen=True)
class Prepared:
    """All that the engine needs."""

    model_path: Path
    tokenizer: Any
    data: TokenisedData
    plan: Plan


def carry_out(
    run: RunFolder,
    journal: Journal,
    should_stop: Callable[[], bool],
    take_turn: Callable[[], None],
    models_folder: Path,
) -> None:
    """Do all that the run's spec asks for, and write down how it ended.

    Args:
        should_stop: looked at between rows, steps and questions.
        take_turn: returns when a device is free and taken; called after the data has been checked, and
            before anything heavy is imported.
        models_folder: where converted models lie.

    Raises:
        BackpropagateError: the run failed for a foreseen reason; anything else is a fault.
        TrainingAbortedError: it was cancelled before there was anything to keep.
    """
    work = Work(run, run.spec(), journal, should_stop)
    journal.phase("checking", "checking the data")
    rows = read_rows(work.spec.data, work.spec.training.seed, should_stop)
    take_turn()
    model_path = _resolve(work, models_folder)
    prepared = _prepare(work, rows, model_path)
    outcome = _train(work, prepared)
    result = _keep(work, prepared, outcome)
    if outcome.stopped:
        journal.cancelled(result)
    else:
        journal.completed(result)


def _resolve(work: Work, models_folder: Path) -> Path:
    model = work.spec.model
    work.journal.phase("downloading", f"looking for {model.name}")
    path = resolve_model(
        model.name,
        model.revision,
        models_folder,
        lambda message, fraction: work.journal.phase("downloading", message, fraction=fraction),
        work.should_stop,
    )
    work.stop_here_if_asked()
    return path


def _prepare(work: Work, rows: list[Row], model_path: Path) -> Prepared:
    work.journal.phase("loading", "importing torch and transformers")
    cores = _use_threads(work.spec)

    from .data.tokens import tokenise
    from .engine.device import free_gpu_bytes, torch_device
    from .engine.load import load_tokenizer
    from .engine.plan import make_plan

    work.stop_here_if_asked()
    tokenizer = load_tokenizer(model_path)
    work.journal.phase("preparing", f"tokenising {len(rows)} rows")
    data = tokenise(rows, work.spec.data, tokenizer, should_stop=work.should_stop)
    if data.truncated:
        work.journal.warning(
            f"{data.truncated} of {len(rows)} rows are longer than max_seq_length "
            f"({work.spec.data.max_seq_length} tokens) and were cut."
        )
    plan = make_plan(
        work.spec,
        model_path=model_path,
        examples=len(data.examples),
        device=torch_device(),
        free_gpu_bytes=free_gpu_bytes(),
        threads=cores,
    )
    return Prepared(model_path, tokenizer, data, plan)


def _train(work: Work, prepared: Prepared) -> Outcome:
    from .engine.trl import run as run_engine
    from .provenance import provenance

    work.run.write_plan(prepared.plan.record())
    digest = fingerprint_source(work.spec.data.source)
    work.run.write_provenance(
        provenance(work.spec, prepared.plan, dataset_sha256=digest, rows=len(prepared.data.examples))
    )
    work.stop_here_if_asked()
    outcome = run_engine(prepared.plan, prepared.data.examples, work.journal.event, work.should_stop)
    if outcome.steps == 0:
        raise TrainingAbortedError("Cancelled before the first step.")
    return outcome


def _keep(work: Work, prepared: Prepared, outcome: Outcome) -> dict[str, Any]:
    """Save the adapter, ask the questions, and sum the run up."""
    from .adapter import copy_adapter, save_adapter
    from .engine.device import peak_memory_mib

    work.journal.phase("saving", "saving the adapter")
    save_adapter(work.run.adapter_path, outcome.save_adapter, prepared.tokenizer, work.spec, prepared.plan)
    work.journal.event("saved", path=str(work.run.adapter_path))
    output = copy_adapter(work.run.adapter_path, work.spec.output)
    data = prepared.data
    return {
        "steps": outcome.steps,
        "total_steps": prepared.plan.total_steps,
        "first_loss": outcome.first_loss,
        "final_loss": outcome.final_loss,
        "rows": len(data.examples),
        "rows_truncated": data.truncated,
        "tokens": data.tokens,
        "trained_token_share": round(data.trained_tokens / data.tokens, 4),
        "engine": prepared.plan.engine,
        "device": prepared.plan.device,
        "output": output,
        "answers": [] if outcome.stopped else _ask(work, prepared, outcome),
        "peak_memory_mib": peak_memory_mib(),
    }


def _ask(work: Work, prepared: Prepared, outcome: Outcome) -> list[dict[str, str]]:
    from .engine.answers import ask_before_and_after

    evaluation = work.spec.evaluation
    if not evaluation.questions:
        return []
    work.journal.phase("answering", f"asking {len(evaluation.questions)} questions before and after")
    return ask_before_and_after(outcome.model, prepared.tokenizer, evaluation, work.should_stop)


def _use_threads(spec: TrainSpec) -> int:
    """Set the thread counts that libraries read when they are imported; more than cores would cost."""
    cores = spec.training.threads or training_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(cores)
    # Threads that spin while they wait for each other cost a factor of ten on a machine that is not idle.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return cores
