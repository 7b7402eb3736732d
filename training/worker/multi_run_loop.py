"""The runs of a multi-run, one after the other: train, merge, score, record.

A run counts once its scores are in ledger.json, which is written after its merge. Until then its checkpoints
stay, so that a killed worker's successor trains on from there and comes to the same result.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.ledger import Ledger, LedgerRun, LedgerTask, mean_of, read_ledger, with_run, write_ledger
from ..events import Event, Phase, Report, Step
from ..untrusted import quoted
from .context import RunContext
from .multi_run_parent import merge_path
from .multi_run_tasks import FirstRun, ReadyRuns, TaskRows

if TYPE_CHECKING:
    from torch import Tensor

    from ..engine.loaded_model import StepModel
    from ..engine.plan import Outcome
    from ..evaluation.other_questions import Answered
    from ..merging.slao import SLAOMerger

    Weights = Mapping[str, Tensor]


class MultiRunLoop:
    """The state of a multi-run: the ledger, and the merger of the runs that it has."""

    def __init__(self, context: RunContext, ready: ReadyRuns, model: StepModel) -> None:
        self.context, self.model = context, model
        from ..evaluation.right_answers import answerable

        self.ready, self.spec, self.tasks = ready, ready.spec, ready.tasks
        self._new_adapter = model.adapter_weights()
        self._questions = [answerable(task.scored, self.spec.multi.answers_per_task) for task in self.tasks]
        self.ledger = self._with_all_tasks(read_ledger(context.run.path) or self._new_ledger())
        self.merger = self._merger_after(len(self.ledger.kept))
        self.outcomes: list[Outcome] = []

    @property
    def forgot(self) -> bool:
        """Whether the last merge forgot too much, which ends the multi-run."""
        return len(self.ledger.kept) < len(self.ledger.runs)

    def run(self) -> bool:
        """Execute the runs that are left; False if the user stopped it.

        Raises:
            BackpropagateError: a run failed; the ledger has the ones before.
        """
        if self.ready.first is not None and not self.ledger.runs:
            self._adopt(self.ready.first)
        self._require_same_form()
        while len(self.ledger.runs) < len(self.tasks) and not self.forgot:
            number = len(self.ledger.runs) + 1
            outcome = self._train(number)
            if outcome.status == "cancelled":
                return False
            self._merge(number, outcome)
        return True

    def _merger_after(self, runs: int) -> SLAOMerger:
        from ..merging.slao import SLAOConfig, SLAOMerger

        if runs or self.ready.first is not None:
            return SLAOMerger.load(merge_path(self.context.run.path, runs or 1))
        return SLAOMerger(SLAOConfig(mode=self.spec.multi.merge_mode))

    def _adopt(self, first: FirstRun) -> None:
        """Score a training that becomes run 1."""
        self._phase("training", f"scoring the training that becomes run 1: {quoted(self.tasks[0].name)}")
        scores, accuracies = self._measured(self.merger.get_merged_lora(), 1)
        self._record(
            LedgerRun(
                run=1,
                steps=first.steps,
                learning_rate=first.learning_rate,
                scale=1.0,
                scores=scores,
                accuracies=accuracies,
            )
        )

    def _require_same_form(self) -> None:
        """Refuse adapters of other modules before a run is trained that could not be merged."""
        from ..merging.lora_pairs import require_same_form

        if self.merger.run_index:
            require_same_form(self._new_adapter, self.merger.get_merged_lora())

    # --- One run.
    def _train(self, number: int) -> Outcome:
        from ..engine.loop.checkpoints import Checkpoints
        from ..engine.plan import Data

        task, plan = self.tasks[number - 1], self.ready.plan_of(number)
        self._phase("training", f"run {number} of {len(self.tasks)}: {quoted(task.name)}")
        self.model.take_plan(plan)
        self.model.set_adapter_weights(self._start())
        outcome = self.model.train(
            Data(task.train, task.held_out),
            _report_of_run(self.context.report, number, len(self.tasks)),
            self.context.should_stop,
            Checkpoints(self._checkpoints_path(number)),
        )
        self.outcomes.append(outcome)
        return outcome

    def _start(self) -> Weights:
        if not self.merger.run_index or self.spec.multi.merge_mode == "average":
            return self._new_adapter
        return self.merger.get_init_weights()

    def _merge(self, number: int, outcome: Outcome) -> None:
        """Merge and score the adapter that the model has; then record both, the merge first."""
        self._phase("training", f"run {number} of {len(self.tasks)}: merging and scoring")
        tuned, scale, scale_scores = self.model.adapter_weights(), 1.0, dict[str, float]()
        if number == 1:
            self.merger.initialize(tuned)
        else:
            scale, scale_scores = self._scale(number, tuned)
            self.merger.merge(tuned, scale=scale)
        scores, accuracies = self._measured(self.merger.get_merged_lora(), number)
        record = LedgerRun(
            run=number,
            steps=outcome.steps,
            learning_rate=self.ready.plan_of(number).learning_rate,
            scale=scale,
            scores=scores,
            accuracies=accuracies,
            scale_scores=scale_scores,
        )
        forgotten = max(with_run(self.ledger, record).forgetting, default=0.0)
        most = self.spec.multi.max_forgetting
        if most is not None and forgotten > most:
            self._reject(record, forgotten)
        else:
            self.merger.save(merge_path(self.context.run.path, number))
            self._record(record)
        shutil.rmtree(self._checkpoints_path(number), ignore_errors=True)

    def _reject(self, record: LedgerRun, forgotten: float) -> None:
        self.merger = self._merger_after(record.run - 1)
        self._record(record.model_copy(update={"kept": False}))
        most = self.spec.multi.max_forgetting
        self.context.recorder.warn(
            f"Run {record.run} was not kept, and no further one started: after its merge a task was "
            f"{forgotten:.4g} worse than at its best, above max_forgetting={most:g}."
        )

    # --- Scores.
    def _scale(self, number: int, tuned: Weights) -> tuple[float, dict[str, float]]:
        """λ of a merge, and the mean scores of those that were tried."""
        from ..merging.algebra import time_aware_scale

        if self.spec.multi.merge_mode == "simple":
            return 1.0, {}
        by_mean, by_root = time_aware_scale(number, "mean"), time_aware_scale(number, "sqrt")
        if self.spec.multi.merge_mode == "average" or self.ledger.merge_scale == "mean":
            return by_mean, {}
        if self.ledger.merge_scale != "auto":
            return by_root, {}
        tried = [by_mean, (by_mean + by_root) / 2, by_root, (by_root + 1) / 2, 1.0]
        means = {
            scale: mean_of(self._scores(self.merger.merged_with(tuned, scale), number)) for scale in tried
        }
        best = max(means, key=lambda scale: means[scale])  # the smallest of equal ones
        return best, {f"{scale:.6g}": mean for scale, mean in means.items()}

    def _scores(self, weights: Weights, tasks: int) -> list[float]:
        """The scores of an adapter on the first tasks."""
        self.model.set_adapter_weights(weights)
        return [self._score(task) for task in self.tasks[:tasks]]

    def _score(self, task: TaskRows) -> float:
        self.context.stop_if_asked()
        losses = self.model.losses(task.scored)
        return -sum(loss.total for loss in losses) / max(1, sum(loss.label_tokens for loss in losses))

    def _measured(self, weights: Weights, tasks: int) -> tuple[list[float], list[float | None]]:
        """The scores and the accuracies of an adapter on the first tasks."""
        scores = self._scores(weights, tasks)
        return scores, [self._accuracy(questions) for questions in self._questions[:tasks]]

    def _accuracy(self, questions: Sequence[Answered]) -> float | None:
        from ..evaluation.right_answers import share_of_right_answers

        self.context.stop_if_asked()
        return share_of_right_answers(self.model, self.ready.tokenizer, questions) if questions else None

    # --- The ledger.
    def _new_ledger(self) -> Ledger:
        multi = self.spec.multi
        scale = (multi.merge_scale or "auto") if multi.merge_mode == "slao" else None
        return Ledger(merge_mode=multi.merge_mode, merge_scale=scale)

    def _with_all_tasks(self, ledger: Ledger) -> Ledger:
        """The ledger with the tasks that it lacks, after the base model is scored on them."""
        known = len(ledger.tasks)
        if known == len(self.tasks):
            return ledger
        self._phase("training", "scoring the base model")
        self.model.set_adapter_values(self.model.adapter_values().zero_())
        added = [self._new_task(number) for number in range(known, len(self.tasks))]
        ledger = ledger.model_copy(update={"tasks": [*ledger.tasks, *added]})
        write_ledger(self.context.run.path, ledger)
        return ledger

    def _new_task(self, index: int) -> LedgerTask:
        task, questions = self.tasks[index], self._questions[index]
        return LedgerTask(
            name=task.name,
            rows=len(task.fresh),
            replayed=len(task.replayed),
            scored_on=task.scored_on,
            scored_rows=len(task.scored),
            base_score=self._score(task),
            answered_rows=len(questions),
            base_accuracy=self._accuracy(questions),
        )

    def _record(self, run: LedgerRun) -> None:
        self.ledger = with_run(self.ledger, run)
        write_ledger(self.context.run.path, self.ledger)

    def _phase(self, phase: str, message: str) -> None:
        self.context.recorder.phase(phase, message)

    def _checkpoints_path(self, number: int) -> Path:
        return self.context.run.checkpoints_path / f"run-{number:03d}"


def _report_of_run(report: Report, number: int, count: int) -> Report:
    """`report`, whose steps and phases say which run they are of."""

    def report_of_run(event: Event) -> None:
        match event:
            case Step():
                own = {"run": number, "num_runs": count, "eta_s": _left(event, count - number)}
                event = event.model_copy(update=own)
            case Phase():
                event = event.model_copy(update={"message": f"run {number} of {count}: {event.message}"})
            case _:
                pass
        report(event)

    return report_of_run


def _left(step: Step, runs: int) -> float | None:
    """Seconds until all runs are trained, if the runs after this one take as long; None if not known."""
    ahead = step.total_steps - step.step
    if step.eta_s is None or not runs:
        return step.eta_s
    return step.eta_s * (1 + runs * step.total_steps / ahead) if ahead else None
