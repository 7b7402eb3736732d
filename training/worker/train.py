"""A training run from its spec to its adapter: check, wait, load, train, save, ask.

The worker and the Trainer both carry runs out with this, so they do the same work. A later attempt takes the
plan and the examples of the first, and goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.specs import TrainSpec
from ..data.check import check
from ..data.findings import meaning_of, rows_of
from ..data.prepare import Prepared, prepare, prepared_before
from ..errors import DatasetError, TrainingAbortedError, describe
from ..events import Report
from ..runs.recorder import as_record
from .context import Work, use_threads

if TYPE_CHECKING:
    from ..engine.loaded_model import LoadedModel
    from ..engine.plan import Outcome, Plan


MUCH_WORSE = 1.2
"""A loss of single batches varies; one that has risen by this factor has not only varied."""


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
    planned = work.run.plan()
    if planned is None:
        _check_data(work, spec)
    take_turn()
    model = work.model_folder()
    ready = _prepare(work, spec, model) if planned is None else _prepare_again(work, spec, model, planned)
    model, outcome = _train(work, ready)
    result = _keep(work, ready, model, outcome)
    if outcome.status == "cancelled":
        work.journal.cancelled(result)
    else:
        work.journal.completed(result)


# --- Before the first step. ---
def _check_data(work: Work, spec: TrainSpec) -> None:
    """Refuse bad rows before anything is waited for, downloaded or loaded."""
    work.journal.phase("checking", "checking the data")
    checked = check(
        spec.data, permit=work.permit, report=work.phase("checking"), should_stop=work.should_stop
    )
    checked.raise_if_unusable(spec.data.on_bad_rows)


def _prepare(work: Work, spec: TrainSpec, model: Path) -> Ready:
    tokenizer, threads = _load_tokenizer(work, spec, model)
    data = _examples(work, spec, tokenizer)
    _tell_about_data(work, data)

    from ..engine.device import free_gpu_bytes, torch_device
    from ..engine.planner import Machine, choose_plan
    from .provenance import provenance
    from .save_adapter import base_model_name

    plan, reasons = choose_plan(
        spec,
        Machine(torch_device(), free_gpu_bytes(), threads),
        model=model,
        adapter=work.run.path / ".adapter-of-the-engine",
        base_model_name=base_model_name(spec, model),
        continue_from=_parent_adapter(work, spec),
    )
    plan = replace(plan, tokens_key=data.key)
    work.run.write_provenance(provenance(spec, plan, data))
    work.run.write_plan({**plan.record(), "reasons": reasons})
    return Ready(spec, tokenizer, data, plan)


def _prepare_again(work: Work, spec: TrainSpec, model: Path, planned: dict[str, Any]) -> Ready:
    """The examples and the plan of the attempt before.

    Raises:
        DatasetError: the dataset has been changed, and its tokens are no longer in the cache.
    """
    from ..engine.plan import Plan

    tokenizer, _ = _load_tokenizer(work, spec, model)
    plan = replace(Plan.from_record(planned), model=model, resume=True)
    data = prepared_before(work.home / "cache" / "tokens", plan.tokens_key)
    data = data or _examples(work, spec, tokenizer)
    if data.key != plan.tokens_key:
        raise DatasetError(
            f"The dataset {spec.data.source} is no longer what this run began with.",
            hint="Restore it to resume, or start a new run.",
        )
    return Ready(spec, tokenizer, data, plan)


def _load_tokenizer(work: Work, spec: TrainSpec, model: Path) -> tuple[Any, int]:
    work.journal.phase("loading", "importing torch and transformers")
    threads = use_threads(spec.training.threads)
    from ..models.tokenizer import load_tokenizer

    work.stop_here_if_asked()
    return load_tokenizer(model), threads


def _examples(work: Work, spec: TrainSpec, tokenizer: Any) -> Prepared:
    work.journal.phase("preparing", "preparing the data")
    return prepare(
        spec.data,
        tokenizer,
        seed=spec.training.seed,
        cache=work.home / "cache" / "tokens",
        permit=work.permit,
        report=work.phase("preparing"),
        should_stop=work.should_stop,
    )


def _tell_about_data(work: Work, data: Prepared) -> None:
    for found in data.summary.left_out:
        first = ", ".join(found["first"])
        meaning = meaning_of(found["kind"], found["count"])
        work.journal.warning(f"Left out: {rows_of(found['count'])} that {meaning} ({first}).")
    if data.summary.truncated:
        count = data.summary.truncated
        work.journal.warning(f"Cut: {rows_of(count)} that {meaning_of('truncated', count)}.")


def _parent_adapter(work: Work, spec: TrainSpec) -> Path | None:
    return None if spec.parent is None else work.run.path.parent / spec.parent / "adapter"


# --- The training, and what is kept of it. ---
def _train(work: Work, ready: Ready) -> tuple[LoadedModel, Outcome]:
    from ..engine.loop.checkpoints import Checkpoints
    from ..engine.open_model import open_model
    from ..engine.plan import Data

    work.stop_here_if_asked()
    model = open_model(ready.plan, _recorder(work))
    outcome = model.train(
        Data(ready.data.train, ready.data.held_out),
        _recorder(work),
        work.should_stop,
        Checkpoints(work.run.checkpoints_path),
    )
    if outcome.steps == 0:
        raise TrainingAbortedError("Cancelled before the first step.")
    return model, outcome


def _recorder(work: Work) -> Report:
    """Writes the engine's events down."""
    written = {"seq", "t", "kind"}
    return lambda event: work.journal.event(
        event.kind, **event.model_dump(exclude=written, exclude_none=True)
    )


def _keep(work: Work, ready: Ready, model: LoadedModel, outcome: Outcome) -> dict[str, Any]:
    """Save the adapter, ask the questions, copy the adapter, and sum the run up.

    Once the adapter is saved the run is not lost any more: what fails after that is a warning.
    """
    from .save_adapter import copy_adapter, finish_adapter, replace_card

    _tell_if_worse(work, outcome)
    work.journal.phase("saving", "saving the adapter")
    adapter = work.run.adapter_path
    result = _summary(work, ready, outcome)
    finish_adapter(outcome.adapter, adapter, ready.tokenizer, ready.plan, _card(work, ready, result))
    work.journal.event("saved", path=str(adapter))
    work.journal.keep(result)

    def answer() -> None:
        if outcome.status != "cancelled" and ready.spec.evaluation.questions:
            result["answers"] = _ask(work, ready, model)
            replace_card(adapter, _card(work, ready, result))

    def copy() -> None:
        result["output"] = copy_adapter(adapter, ready.spec.output)

    for later in (answer, copy):
        try:
            later()
        except Exception as error:
            record = as_record(error, work.run.log_path)
            work.journal.warning(f"The adapter is saved; what came after it failed: {describe(record)}")
    return result


def _tell_if_worse(work: Work, outcome: Outcome) -> None:
    what, first, bound, last = "held-out", outcome.eval_loss_before, 1.0, outcome.eval_loss
    if first is None:  # not measured: the losses of two single steps say less
        what, first, bound, last = "training", work.journal.first_loss, MUCH_WORSE, outcome.train_loss
    if first is not None and last is not None and last > first * bound:
        work.journal.warning(
            f"The {what} loss rose from {first:.4g} to {last:.4g}: the model got worse. "
            "A lower learning_rate or fewer steps may help."
        )


def _card(work: Work, ready: Ready, result: dict[str, Any]) -> str:
    from ..export.hub.model_card import run_card
    from ..export.hub.run_facts import RunFacts

    return run_card(RunFacts.of(work.run, result), "adapter", chat=bool(ready.tokenizer.chat_template))


def _summary(work: Work, ready: Ready, outcome: Outcome) -> dict[str, Any]:
    from ..engine.device import peak_memory_mib

    summary = ready.data.summary
    return {
        "outcome": outcome.status,
        "steps": outcome.steps,
        "total_steps": outcome.total_steps,
        "first_loss": work.journal.first_loss,
        "final_loss": outcome.train_loss,
        "eval_loss": outcome.eval_loss,
        "eval_loss_before": outcome.eval_loss_before,
        "best_step": outcome.best_step,
        "resumed_from": outcome.resumed_from,
        "engine": outcome.engine,
        "engine_reason": outcome.reason,
        "device": ready.plan.device,
        "tokens_per_s": round(outcome.tokens_per_s, 1),
        "peak_memory_mib": outcome.peak_memory_mib or peak_memory_mib(),
        "packing": asdict(outcome.packing) if outcome.packing else None,
        "recoveries": [asdict(recovery) for recovery in outcome.recoveries],
        "rows": summary.rows,
        "rows_used": summary.used,
        "rows_truncated": summary.truncated,
        "rows_left_out": summary.left_out,
        "held_out": summary.held_out,
        "trained_token_share": round(summary.trained_share, 4),
        "notes": summary.notes,
        "output": None,
        "answers": [],
    }


def _ask(work: Work, ready: Ready, model: LoadedModel) -> list[dict[str, str]]:
    from ..engine.questions import ask_before_and_after

    evaluation = ready.spec.evaluation
    work.journal.phase("answering", f"asking {len(evaluation.questions)} questions before and after")
    return ask_before_and_after(model, ready.tokenizer, evaluation, _recorder(work), work.should_stop)
