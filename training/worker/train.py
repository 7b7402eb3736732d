"""Executes a training run: check the data, wait for the device, load, train, save, answer the questions.

Workers and the Trainer use this. A later attempt uses the plan and the examples of the first, and continues
from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..config.results import Answer, FindingRecord, TrainResult, Verdict
from ..config.specs import TrainSpec
from ..data.cleaning.untrusted_text import safe_line
from ..data.prepare import Prepared
from ..errors import TrainingAbortedError
from ..events import AdapterSaved
from ..files.atomic_json import read_json
from ..hardware.devices import CPU
from ..models.base_identity import BaseIdentity, identified
from ..models.token_limits import token_limits
from ..planning.expert_targets import targets_experts, targets_with_experts
from ..runs.kinds import device_request
from .after_saving import carry_on, copied
from .context import RunContext, WaitForDevice
from .examples import (
    check_data,
    examples,
    examples_again,
    tokenizer_of,
    warn_about_data,
    warn_about_evaluation,
    warn_about_memory,
    warn_about_the_end,
)
from .export_ahead import why_no_gguf
from .fitting import require_room
from .loss_curve import losses_of, still_falling
from .nodes import nodes_of
from .ranks import OtherRanks, ranks_of
from .track import track
from .trained_base import require_trained_base, trained_revision

if TYPE_CHECKING:
    from ..engine.loaded_model import LoadedModel
    from ..engine.plain_peft import Coverage
    from ..engine.plan import Outcome, Plan


SHOWN_TOKENS, SHOWN_CHARACTERS = 96, 120
"""Of a row that got worse."""
MUCH_WORSE = 1.2
"""The losses of single batches vary; an increase by this factor is more than that variation."""


@dataclass(frozen=True)
class Ready:
    """The inputs of the engine."""

    spec: TrainSpec
    tokenizer: Any
    data: Prepared
    plan: Plan


def run(context: RunContext, wait_for_device: WaitForDevice) -> None:
    """Execute the training, and record its result.

    Raises:
        BackpropagateError: the run failed; any other exception is a bug.
        TrainingAbortedError: it was cancelled before there was a result to save.
    """
    spec = context.run.request_now()
    assert spec.kind == "train"
    planned = context.run.plan() if _has_trained(context) else None
    if planned is None:
        check_data(context, spec.data)
        require_room(context, spec)
    wait_for_device()
    with ranks_of(context, _processes(context, spec)) as others:
        ready, model = _ready(context, spec, planned, others)
        outcome = _train(context, ready, model)
        if others is not None:
            others.release()
        result = _keep(context, ready, model, outcome)
    if outcome.status == "cancelled":
        context.recorder.cancelled(result)
    else:
        context.recorder.completed(result)


# --- Before the first step. ---
def _has_trained(context: RunContext) -> bool:
    """Whether an earlier attempt came to its training: the provenance is written just before."""
    return context.run.provenance() is not None or context.run.checkpoints_path.is_dir()


def _ready(
    context: RunContext, spec: TrainSpec, planned: dict[str, Any] | None, others: OtherRanks | None
) -> tuple[Ready, LoadedModel]:
    folder = context.model_folder(revision=trained_revision(context.run, spec))
    require_trained_base(context, spec, folder)
    if planned is not None:
        ready = _prepare_again(context, spec, folder, planned)
        return ready, _open(context, ready.plan, others)
    with identified(folder, context.should_stop) as identity:
        ready = _prepare(context, spec, folder)
        model = _open(context, ready.plan, others)
        _write_provenance(context, ready, identity)
    return ready, model


def _prepare(context: RunContext, spec: TrainSpec, model: Path) -> Ready:
    tokenizer, threads = tokenizer_of(context, spec, model)
    data = examples(context, spec, tokenizer, model)
    warn_about_data(context, data)
    warn_about_evaluation(context, spec.evaluation, len(data.held_out))
    warn_about_the_end(context, tokenizer, model)

    from ..engine.planner import choose_plan, this_machine
    from .save_adapter import base_model_name

    plan, reasons = choose_plan(
        spec,
        this_machine(threads, _processes(context, spec), context.recorder.devices),
        examples=len(data.train),
        held_out=len(data.held_out),
        model=model,
        adapter=context.run.path / ".adapter-of-the-engine",
        base_model_name=base_model_name(spec, model),
        continue_from=_parent_adapter(context, spec),
        lengths=data.train.lengths().tokens.tolist(),
        trained_share=data.summary.trained_share or None,
    )
    warn_about_memory(context, spec.training, plan)
    plan = replace(plan, tokens_key=data.key)
    context.run.write_plan({**plan.record(), "reasons": reasons})
    return Ready(spec, tokenizer, data, plan)


def _prepare_again(context: RunContext, spec: TrainSpec, model: Path, planned: dict[str, Any]) -> Ready:
    """The examples and the plan of the first attempt.

    Raises:
        DatasetError: the dataset has changed, and its tokens are no longer in the cache.
    """
    from ..engine.plan import Plan

    tokenizer, _ = tokenizer_of(context, spec, model)
    plan = replace(Plan.from_record(planned), model=model, resume=True)
    plan = plan.changed(gpus=sum(_processes(context, spec)))  # a checkpoint is for any number
    data = examples_again(context, spec, tokenizer, model, plan.tokens_key)
    return Ready(spec, tokenizer, data, plan)


def _processes(context: RunContext, spec: TrainSpec) -> list[int]:
    """Of each node, the worker's first: one for each GPU that was given, or as many as it asks of a CPU."""
    if context.hosts is not None:
        return context.hosts.processes
    devices = context.recorder.devices
    here = device_request(spec).processes if devices == (CPU,) else len(devices)
    return [here] * nodes_of(context.run)


def _parent_adapter(context: RunContext, spec: TrainSpec) -> Path | None:
    return None if spec.parent is None else context.run.path.parent / spec.parent / "adapter"


def _open(context: RunContext, plan: Plan, others: OtherRanks | None) -> LoadedModel:
    from ..engine.open_model import open_model
    from ..engine.parallel.ranks import ALONE

    context.stop_if_asked()
    track(context)
    model = open_model(plan, context.report, ALONE if others is None else others.join())
    context.require_permitted()
    return model


def _write_provenance(context: RunContext, ready: Ready, identity: Callable[[], BaseIdentity]) -> None:
    """Once the base is hashed, which goes on while it is loaded."""
    from .provenance import provenance

    context.recorder.phase("loading", "hashing the base model's weights")
    context.run.write_provenance(provenance(ready.spec, ready.plan, ready.data, identity()))
    context.require_permitted()  # what was hashed is what was loaded


# --- The training, and its result. ---
def _train(context: RunContext, ready: Ready, model: LoadedModel) -> Outcome:
    from ..engine.loop.checkpoints import Checkpoints
    from ..engine.plan import Data

    outcome = model.train(
        Data(ready.data.train, ready.data.held_out),
        context.report,
        context.should_stop,
        Checkpoints(context.run.checkpoints_path),
    )
    if outcome.steps == 0:
        raise TrainingAbortedError("Cancelled before the first step.")
    return outcome


def _keep(context: RunContext, ready: Ready, model: LoadedModel, outcome: Outcome) -> TrainResult:
    """Save the adapter, ask the questions, copy the adapter.

    After the adapter is saved, a later failure is only a warning.
    """
    from ..engine.out_of_memory import memory_errors
    from ..engine.plain_peft import read_with_peft
    from .save_adapter import TrainedBase, finish_adapter, replace_card

    context.recorder.phase("saving", "saving the adapter")
    adapter = context.run.adapter_path
    with memory_errors(ready.plan, "saving"):
        covered = read_with_peft(ready.plan.model, outcome.adapter)
    _warn_about_experts(context, ready.plan, covered)
    result = _result(context, ready, outcome, covered)
    base = TrainedBase.of(ready.plan, context.run)
    with memory_errors(ready.plan, "saving"):
        finish_adapter(outcome.adapter, adapter, ready.tokenizer, base, _card(context, ready, result))
    context.report(AdapterSaved(path=str(adapter)))
    context.recorder.keep(result)

    def compare(result: TrainResult) -> TrainResult:
        judged = _judge(context, ready, model, outcome)
        field = "no_verdict" if isinstance(judged, str) else "verdict"
        result = result.model_copy(update={field: judged})
        worse = _warn_of_harm(context, ready, outcome, result.verdict)
        if outcome.status == "completed" and not worse and still_falling(losses_of(context.run)):
            warning = "The training loss was still falling at the end: more steps would teach more."
            context.recorder.warn(warning)
            result = result.model_copy(update={"still_falling": True})
        replace_card(adapter, _card(context, ready, result))
        return result

    def ask_held_out(result: TrainResult) -> TrainResult:
        if result.verdict is None:
            return result
        return result.model_copy(
            update={"verdict": _ask_held_out(context, ready, model, outcome, result.verdict)}
        )

    def answer(result: TrainResult) -> TrainResult:
        if outcome.status == "cancelled" or not ready.spec.evaluation.questions:
            return result
        result = result.model_copy(update={"answers": _ask(context, ready, model)})
        replace_card(adapter, _card(context, ready, result))
        return result

    def copy(result: TrainResult) -> TrainResult:
        return copied(context, ready.spec.output, result)

    return carry_on(context, result, (compare, ask_held_out, answer, copy))


def _judge(context: RunContext, ready: Ready, model: LoadedModel, outcome: Outcome) -> Verdict | str:
    """The tuned model beside its base on the held-out rows, or why there is no verdict."""
    if outcome.status == "cancelled":
        return "the training was stopped before its end"
    if not len(ready.data.held_out):
        return "no rows were held out"
    from ..engine.out_of_memory import memory_errors
    from ..evaluation.general_probe import general_examples
    from ..evaluation.judge import Affordable, judge

    def shown(tokens: Sequence[int]) -> str:
        return safe_line(ready.tokenizer.decode(list(tokens[:SHOWN_TOKENS])), SHOWN_CHARACTERS)

    with memory_errors(ready.plan, "evaluating"):
        return judge(
            model,
            ready.data.held_out,
            general_examples(ready.tokenizer),
            Affordable.after(outcome.tokens, outcome.seconds),
            shown,
            context.report,
            context.should_stop,
        )


def _ask_held_out(
    context: RunContext, ready: Ready, model: LoadedModel, outcome: Outcome, verdict: Verdict
) -> Verdict:
    from ..evaluation.held_out_answers import with_answers

    context.recorder.phase("judging", "asking held-out questions")
    positions = token_limits(ready.plan.model).positions
    return with_answers(
        verdict,
        model,
        ready.tokenizer,
        ready.data.held_out,
        positions,
        outcome.seconds,
        context.should_stop,
    )


def _warn_of_harm(context: RunContext, ready: Ready, outcome: Outcome, verdict: Verdict | None) -> bool:
    """Whether the model has become worse; then the user is told, and of what else the verdict shows."""
    from ..evaluation.verdict import warnings_of

    worse = False
    if verdict is not None:
        losses = losses_of(context.run)
        last = losses[-(len(losses) + 3) // 4 :]
        for warning in warnings_of(verdict, fmean(last) if last else None):
            context.recorder.warn(warning)
        worse = verdict.verdict == "worse"
    # The verdict compares with the base model, this with the run whose adapter was trained on.
    if not worse and (verdict is None or ready.spec.parent is not None):
        worse = _warn_if_increased(context, outcome)
    return worse


def _warn_if_increased(context: RunContext, outcome: Outcome) -> bool:
    from ..evaluation.verdict import increased

    what, first, bound, last = "held-out", outcome.eval_loss_before, 1.0, outcome.eval_loss
    if first is None:  # not measured; the losses of single steps are less exact
        what, first, bound, last = "training", context.recorder.first_loss, MUCH_WORSE, outcome.train_loss
    if first is None or last is None or last <= first * bound:
        return False
    context.recorder.warn(increased(what, first, last))
    return True


def _warn_about_experts(context: RunContext, plan: Plan, covered: Coverage) -> None:
    if covered.experts and not targets_experts(plan.lora):
        packed = plan.training.engine == "packed"
        names = targets_with_experts(read_json(plan.model / "config.json"), plan.lora) if packed else None
        more = (
            f" Next time, to train them too, set lora_target_modules to {', '.join(names)}." if names else ""
        )
        context.recorder.warn(
            f"The LoRA covers {covered.share:.0%} of the weights. The experts, {covered.experts:.0%}, "
            f"have none: they are not linear modules, and only the other modules were trained.{more}"
        )


def _card(context: RunContext, ready: Ready, result: TrainResult) -> str:
    from ..export.hub.model_card import run_card
    from ..export.hub.run_facts import RunFacts

    return run_card(RunFacts.of(context.run, result), "adapter", chat=bool(ready.tokenizer.chat_template))


def _result(context: RunContext, ready: Ready, outcome: Outcome, covered: Coverage) -> TrainResult:
    from ..engine.device import device_name, peak_memory_mib

    summary = ready.data.summary
    return TrainResult(
        outcome=outcome.status,
        steps=outcome.steps,
        total_steps=outcome.total_steps,
        first_loss=context.recorder.first_loss,
        final_loss=outcome.train_loss,
        eval_loss=outcome.eval_loss,
        eval_loss_before=outcome.eval_loss_before,
        best_step=outcome.best_step,
        resumed_from=outcome.resumed_from,
        engine=outcome.engine,
        engine_reason=outcome.reason,
        device=ready.plan.device,
        device_name=_devices_name(device_name(), ready.plan),
        gpus=ready.plan.gpus,
        tokens_per_s=round(outcome.tokens_per_s, 1),
        peak_memory_mib=outcome.peak_memory_mib or peak_memory_mib(),
        peak_memory_mib_of_each=outcome.rank_peaks_mib if ready.plan.gpus > 1 else [],
        before_first_step=context.recorder.start_up.seconds,
        packing=outcome.packing,
        recoveries=outcome.recoveries,
        rows=summary.rows,
        rows_used=summary.used,
        rows_truncated=summary.truncated,
        rows_left_out=[FindingRecord.model_validate(found) for found in summary.left_out],
        held_out=summary.held_out,
        trained_token_share=round(summary.trained_share, 4),
        lora_share=round(covered.share, 4),
        without_lora=covered.left_out,
        no_gguf=why_no_gguf(ready.plan.model),
        notes=summary.notes,
    )


def _devices_name(name: str, plan: Plan) -> str:
    if plan.gpus == 1:
        return name
    return f"{plan.gpus} processes on {name}" if plan.device == CPU else f"{plan.gpus} of {name}"


def _ask(context: RunContext, ready: Ready, model: LoadedModel) -> list[Answer]:
    from ..engine.questions import ask_before_and_after

    evaluation = ready.spec.evaluation
    context.recorder.phase("answering", f"questions to ask before and after: {len(evaluation.questions)}")
    return ask_before_and_after(model, ready.tokenizer, evaluation, context.report, context.should_stop)
