"""A training run from its spec to its adapter: check, wait, load, train, save, ask.

The worker and the Trainer both carry runs out with this, so they do the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import TrainSpec
from .data.check import check
from .data.findings import meaning_of
from .errors import TrainingAbortedError
from .work import Work, use_threads

if TYPE_CHECKING:
    from .data import Prepared
    from .engine.plan import Outcome, Plan


@dataclass(frozen=True)
class Ready:
    """All that the engine needs."""

    spec: TrainSpec
    tokenizer: Any
    data: Prepared
    plan: Plan


def carry_out(work: Work, take_turn: Callable[[], None]) -> None:
    """Do all that the run's spec asks for, and write down how it ended.

    Args:
        take_turn: returns when a device is free and taken; called after the data has been checked, and
            before anything heavy is imported.

    Raises:
        BackpropagateError: the run failed for a foreseen reason; anything else is a fault.
        TrainingAbortedError: it was cancelled before there was anything to keep.
    """
    spec = work.run.spec()
    assert spec.kind == "train"
    _check_data(work, spec)
    take_turn()
    ready = _prepare(work, spec, work.model_folder())
    outcome = _train(work, ready)
    result = _keep(work, ready, outcome)
    if outcome.stopped:
        work.journal.cancelled(result)
    else:
        work.journal.completed(result)


def _check_data(work: Work, spec: TrainSpec) -> None:
    """Refuse bad rows before anything is waited for, downloaded or loaded."""
    work.journal.phase("checking", "checking the data")
    checked = check(
        spec.data, permit=work.permit, report=work.phase("checking"), should_stop=work.should_stop
    )
    checked.raise_if_unusable(spec.data.on_bad_rows)


def _prepare(work: Work, spec: TrainSpec, model_path: Path) -> Ready:
    work.journal.phase("loading", "importing torch and transformers")
    cores = use_threads(spec.training.threads)

    from .data import prepare
    from .engine.device import free_gpu_bytes, torch_device
    from .engine.plan import make_plan
    from .engine.tokenizer import load_tokenizer

    work.stop_here_if_asked()
    tokenizer = load_tokenizer(model_path)
    work.journal.phase("preparing", "preparing the data")
    data = prepare(
        spec.data,
        tokenizer,
        seed=spec.training.seed,
        cache=work.home / "cache" / "tokens",
        permit=work.permit,
        report=work.phase("preparing"),
        should_stop=work.should_stop,
    )
    _tell_about_data(work, data)
    plan = make_plan(
        spec,
        model_path=model_path,
        examples=len(data.train),
        device=torch_device(),
        free_gpu_bytes=free_gpu_bytes(),
        threads=cores,
    )
    return Ready(spec, tokenizer, data, plan)


def _tell_about_data(work: Work, data: Prepared) -> None:
    for found in data.summary.left_out:
        first = ", ".join(found["first"])
        work.journal.warning(f"Left out: {found['count']} rows that {meaning_of(found['kind'])} ({first}).")
    if data.summary.truncated:
        work.journal.warning(f"{data.summary.truncated} rows were longer than max_seq_length and were cut.")


def _train(work: Work, ready: Ready) -> Outcome:
    from .engine.trl import run as run_engine
    from .provenance import provenance

    work.run.write_plan(ready.plan.record())
    work.run.write_provenance(provenance(ready.spec, ready.plan, ready.data.summary))
    work.stop_here_if_asked()
    outcome = run_engine(ready.plan, ready.data.train, work.journal.event, work.should_stop)
    if outcome.steps == 0:
        raise TrainingAbortedError("Cancelled before the first step.")
    return outcome


def _keep(work: Work, ready: Ready, outcome: Outcome) -> dict[str, Any]:
    """Save the adapter, ask the questions, and sum the run up."""
    from .adapter import copy_adapter, save_adapter
    from .engine.device import peak_memory_mib

    work.journal.phase("saving", "saving the adapter")
    save_adapter(work.run.adapter_path, outcome.save_adapter, ready.tokenizer, ready.spec, ready.plan)
    work.journal.event("saved", path=str(work.run.adapter_path))
    summary = ready.data.summary
    return {
        "steps": outcome.steps,
        "total_steps": ready.plan.total_steps,
        "first_loss": outcome.first_loss,
        "final_loss": outcome.final_loss,
        "rows": summary.rows,
        "rows_used": summary.used,
        "rows_truncated": summary.truncated,
        "rows_left_out": summary.left_out,
        "held_out": summary.held_out,
        "tokens": summary.tokens,
        "trained_token_share": round(summary.trained_share, 4),
        "notes": summary.notes,
        "engine": ready.plan.engine,
        "device": ready.plan.device,
        "output": copy_adapter(work.run.adapter_path, ready.spec.output),
        "answers": [] if outcome.stopped else _ask(work, ready, outcome),
        "peak_memory_mib": peak_memory_mib(),
    }


def _ask(work: Work, ready: Ready, outcome: Outcome) -> list[dict[str, str]]:
    from .engine.answers import ask_before_and_after

    evaluation = ready.spec.evaluation
    if not evaluation.questions:
        return []
    work.journal.phase("answering", f"asking {len(evaluation.questions)} questions before and after")
    return ask_before_and_after(outcome.model, ready.tokenizer, evaluation, work.should_stop)
