"""Saves the merged adapter of a multi-run, and makes its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..config.ledger import Ledger, mean_of
from ..config.results import FindingRecord, MultiRunResult
from ..data.prepare import Prepared
from ..events import AdapterSaved, Step
from ..runs.event_log import all_events
from .after_saving import answers, card, carry_on, copied
from .context import RunContext
from .export_ahead import why_no_gguf
from .multi_run_loop import MultiRunLoop
from .multi_run_tasks import ReadyRuns
from .multi_run_verdict import verdict_of
from .save_adapter import TrainedBase, finish_adapter, replace_card

if TYPE_CHECKING:
    from ..engine.plain_peft import Coverage


def save_result(
    context: RunContext, ready: ReadyRuns, loop: MultiRunLoop, outcome: Literal["completed", "cancelled"]
) -> MultiRunResult:
    """Save the merged adapter, compare it with the base, ask the questions, copy the adapter.

    After the adapter is saved, a later failure is only a warning.
    """
    from ..engine.out_of_memory import memory_errors
    from ..engine.plain_peft import read_with_peft

    context.recorder.phase("saving", "saving the merged adapter")
    plan, adapter = ready.plans[0], context.run.adapter_path
    loop.model.set_adapter_weights(loop.merger.get_merged_lora())
    with memory_errors(plan, "saving"):
        written = loop.model.write_adapter()
        result = _result(context, ready, loop, outcome, read_with_peft(plan.model, written))
        base = TrainedBase.of(plan, context.run)
        finish_adapter(written, adapter, ready.tokenizer, base, card(context, ready.tokenizer, result))
    context.report(AdapterSaved(path=str(adapter)))
    context.recorder.keep(result)

    def compare(result: MultiRunResult) -> MultiRunResult:
        from ..evaluation.verdict import warnings_of

        judged = "not all runs were completed"
        if outcome == "completed":
            judged = verdict_of(context, ready, loop)
        field = "no_verdict" if isinstance(judged, str) else "verdict"
        result = result.model_copy(update={field: judged})
        for warning in warnings_of(result.verdict, None) if result.verdict else []:
            context.recorder.warn(warning)
        replace_card(adapter, card(context, ready.tokenizer, result))
        return result

    def answer(result: MultiRunResult) -> MultiRunResult:
        if outcome == "cancelled" or not ready.spec.evaluation.questions:
            return result
        result = result.model_copy(
            update={"answers": answers(context, ready.spec.evaluation, ready.tokenizer, loop.model)}
        )
        replace_card(adapter, card(context, ready.tokenizer, result))
        return result

    def copy(result: MultiRunResult) -> MultiRunResult:
        return copied(context, ready.spec.output, result)

    return carry_on(context, result, (compare, answer, copy))


def _result(
    context: RunContext,
    ready: ReadyRuns,
    loop: MultiRunLoop,
    outcome: Literal["completed", "cancelled"],
    covered: Coverage,
) -> MultiRunResult:
    from ..engine.device import device_name, peak_memory_mib

    ledger, plan = loop.ledger, ready.plans[0]
    done = ready.tasks[: len(ledger.kept)]
    own, own_runs = done[ready.spec.earlier :], ledger.runs[ready.spec.earlier :]
    last = loop.outcomes[-1] if loop.outcomes else None
    summaries = [data.summary for data in _datasets(ready)]
    measured = all(len(task.held_out) for task in done)
    tokens = sum(summary.tokens for summary in summaries)
    trained = sum(summary.trained_tokens for summary in summaries)
    average = ledger.average
    assert average is not None
    base = mean_of([task.base_score for task in ledger.tasks[: len(done)]])
    names = [task.name for task in ledger.tasks]
    return MultiRunResult(
        summary=_summary(ledger, len(ready.tasks), base),
        outcome=outcome,
        steps=sum(run.steps for run in own_runs),
        total_steps=sum(run.steps for run in own_runs)
        + sum(plan.training.steps or 0 for plan in ready.plans[len(own_runs) : len(ready.new_tasks)]),
        first_loss=context.recorder.first_loss,
        final_loss=_last_loss(context),
        eval_loss=-average if measured else None,
        eval_loss_before=-base if measured else None,
        engine=loop.model.step.name,
        engine_reason=plan.reason,
        device=plan.device,
        device_name=device_name(),
        tokens_per_s=round(last.tokens_per_s, 1) if last else 0.0,
        peak_memory_mib=peak_memory_mib(),
        packing=last.packing if last else None,
        rows=sum(summary.rows for summary in summaries),
        rows_used=sum(len(task.fresh) + len(task.held_out) for task in own),
        rows_truncated=sum(summary.truncated for summary in summaries),
        rows_left_out=[
            FindingRecord.model_validate(found) for summary in summaries for found in summary.left_out
        ],
        held_out=sum(len(task.held_out) for task in own),
        trained_token_share=round(trained / tokens, 4) if tokens else 0.0,
        lora_share=round(covered.share, 4),
        without_lora=covered.left_out,
        no_gguf=why_no_gguf(plan.model),
        notes=[note for summary in summaries for note in summary.notes],
        ledger=ledger,
        num_runs=len(ready.tasks),
        average=average,
        backward_transfer=ledger.backward_transfer,
        forgetting=dict(zip(names, ledger.forgetting, strict=False)),
        average_accuracy=ledger.average_accuracy,
        accuracy_backward_transfer=ledger.accuracy_backward_transfer,
        accuracy_forgetting={
            name: lost
            for name, lost in zip(names, ledger.accuracy_forgetting, strict=False)
            if lost is not None
        },
    )


def _datasets(ready: ReadyRuns) -> list[Prepared]:
    """The datasets of the runs, each once."""
    return list({data.key: data for task in ready.tasks if (data := task.prepared)}.values())


def _summary(ledger: Ledger, runs: int, base: float) -> str:
    kept, average, transfer = len(ledger.kept), ledger.average, ledger.backward_transfer
    assert average is not None
    changed = "" if transfer is None else f", backward transfer {transfer:+.4f}"
    right = ledger.average_accuracy
    answers = "" if right is None else f"; {right:.0%} of the answers right"
    return (
        f"{kept} of {runs} runs merged ({ledger.merge_mode}): mean loss on their tasks "
        f"{-base:.4f} → {-average:.4f}{changed}{answers}."
    )


def _last_loss(context: RunContext) -> float | None:
    steps = [event.loss for event in all_events(context.run.events_path) if isinstance(event, Step)]
    return steps[-1] if steps else None
