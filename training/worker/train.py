"""Executes a training run: check the data, wait for the device, load, train, save, answer the questions.

Workers and the Trainer use this. A later attempt uses the plan and the examples of the first, and continues
from the last checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config.results import FindingRecord, TrainResult
from ..errors import TrainingAbortedError
from ..events import AdapterSaved
from ..files.atomic_json import read_json
from ..hardware.devices import CPU
from ..planning.expert_targets import targets_experts, targets_with_experts
from .after_saving import answers, card, carry_on, copied
from .context import RunContext, WaitForDevice
from .examples import check_data
from .export_ahead import why_no_gguf
from .fitting import require_room
from .loss_curve import losses_of, still_falling
from .prepare_training import Ready, processes, ready_model
from .ranks import ranks_of
from .train_verdict import judge_training, warn_of_harm, with_held_out_answers

if TYPE_CHECKING:
    from ..engine.loaded_model import LoadedModel
    from ..engine.plain_peft import Coverage
    from ..engine.plan import Outcome, Plan


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
    with ranks_of(context, processes(context, spec)) as others:
        ready, model = ready_model(context, spec, planned, others)
        outcome = _train(context, ready, model)
        if others is not None:
            others.release()
        result = _keep(context, ready, model, outcome)
    if outcome.status == "cancelled":
        context.recorder.cancelled(result)
    else:
        context.recorder.completed(result)


def _has_trained(context: RunContext) -> bool:
    """Whether an earlier attempt came to its training: the provenance is written just before."""
    return context.run.provenance() is not None or context.run.checkpoints_path.is_dir()


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
        finish_adapter(
            outcome.adapter, adapter, ready.tokenizer, base, card(context, ready.tokenizer, result)
        )
    context.report(AdapterSaved(path=str(adapter)))
    context.recorder.keep(result)

    def compare(result: TrainResult) -> TrainResult:
        judged = judge_training(context, ready, model, outcome)
        field = "no_verdict" if isinstance(judged, str) else "verdict"
        result = result.model_copy(update={field: judged})
        worse = warn_of_harm(context, ready, outcome, result.verdict)
        if outcome.status == "completed" and not worse and still_falling(losses_of(context.run)):
            warning = "The training loss was still falling at the end: more steps would teach more."
            context.recorder.warn(warning)
            result = result.model_copy(update={"still_falling": True})
        replace_card(adapter, card(context, ready.tokenizer, result))
        return result

    def ask_held_out(result: TrainResult) -> TrainResult:
        if result.verdict is None:
            return result
        verdict = with_held_out_answers(context, ready, model, outcome, result.verdict)
        return result.model_copy(update={"verdict": verdict})

    def answer(result: TrainResult) -> TrainResult:
        if outcome.status == "cancelled" or not ready.spec.evaluation.questions:
            return result
        result = result.model_copy(
            update={"answers": answers(context, ready.spec.evaluation, ready.tokenizer, model)}
        )
        replace_card(adapter, card(context, ready.tokenizer, result))
        return result

    def copy(result: TrainResult) -> TrainResult:
        return copied(context, ready.spec.output, result)

    return carry_on(context, result, (compare, ask_held_out, answer, copy))


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
