"""The training loop: steps, evaluation, early stopping, checkpoints, cancelling, resuming, out of memory.

How loss and gradients are computed comes in as `step`; everything else that a run needs is here, once for
all models. A run is a function of plan and data: the order of the examples, the dropout masks and the
learning rate follow from seed and step number, so a checkpoint holds no random states and a resumed run goes
on exactly as if it had not stopped (bit for bit on one CPU thread).
"""

from __future__ import annotations

import json
import time
from hashlib import blake2b
from typing import NoReturn

from ...config.results import Recovery
from ...errors import InputError
from ...events import CheckpointSaved, Epoch, Phase, Report, ShouldStop, Warned
from ...files.atomic_folder import write_files
from ...untrusted import short_name
from ..out_of_memory import Doing, empty_cache, out_of_memory
from ..parallel.orders import Order
from ..parallel.ranks import ALONE, Ranks, Shortage
from ..peft_adapter import adapter_files
from ..plan import Data, Outcome, OutcomeStatus, Plan
from .checkpoints import Checkpoints, damage
from .gradients import StepGradients, step_gradients
from .held_out_loss import held_out_batch, held_out_loss
from .lr_schedule import learning_rate
from .metrics import StepMetrics, evaluated, evaluation_progress, timed
from .optimizer import FlatAdamW
from .packing import is_worth_evaluating_before, statistics, step_order, total_steps
from .prefetch import Prefetcher
from .step import TrainingStep
from .training_state import (
    TrainingState,
    read_adapter,
    read_optimizer,
    read_training_state,
    training_state_files,
)

MOST_HALVINGS = 5
"""How often a run may halve its micro-batches before it gives up."""


def fit(
    step: TrainingStep,
    plan: Plan,
    data: Data,
    report: Report,
    should_stop: ShouldStop,
    checkpoints: Checkpoints,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train the LoRA of `step` as `plan` says, and write the adapter.

    Args:
        ranks: the processes that share each step; this one is rank 0.
        report: gets each step, evaluation, checkpoint and warning.
        should_stop: asked before each step and during evaluations; True saves a checkpoint and ends.

    Raises:
        InputError: there are no examples, or the checkpoint is of other data.
        GpuOutOfMemoryError: a step does not fit, even in small parts.
        TrainingError: a loss or a gradient is not finite.
        DiskFullError: a checkpoint or the adapter cannot be written.
        RunInterruptedError: another rank is gone.
    """
    if not data.train:
        raise InputError("There are no examples to train on.")
    return _Fit(step, plan, data, report, should_stop, checkpoints, ranks).run()


class _Fit:
    """One call of `fit`."""

    def __init__(
        self,
        step: TrainingStep,
        plan: Plan,
        data: Data,
        report: Report,
        should_stop: ShouldStop,
        checkpoints: Checkpoints,
        ranks: Ranks,
    ) -> None:
        self.model = step
        self.ranks = ranks
        self.on_cuda = step.device.type == "cuda"
        self.plan = plan
        self.data = data
        self.report = report
        self.should_stop = should_stop
        self.checkpoints = checkpoints
        lengths = [len(example.input_ids) for example in data.train]
        self.order = step_order(plan, lengths)
        self.state = TrainingState(
            total_steps=total_steps(plan, self.order),
            micro_batch_tokens=plan.micro_batch_tokens,
            examples=blake2b(json.dumps(lengths).encode(), digest_size=8).hexdigest(),
            seed=plan.training.seed,
        )
        self.optimizer = FlatAdamW(
            step.lora, plan.training.weight_decay
        )  # before _resume, which fills its moments
        self.warnings: list[str] = []
        # Before the prefetcher: a run that has met a lack of memory resumes with its smaller micro-batches.
        self.resumed_from = self._resume() if plan.resume else None
        self.prefetcher = Prefetcher(
            data.train,
            self.order,
            budget=self.state.micro_batch_tokens,
            multiple=step.row_multiple,
            pinned=self.on_cuda,
            ahead=self.on_cuda,
            border=step.row_border,
            size=ranks.size,
        )
        self.metrics = StepMetrics(report, plan, self.state.total_steps, step.device)
        self.saved_step = self.state.step
        self.saved_time = time.monotonic()

    def run(self) -> Outcome:
        self.model.refresh()  # the buffer may have been filled from a checkpoint or an adapter
        try:
            self._evaluate_before()
            self.metrics.restart_clock()
            status = self._loop()
        finally:
            self.prefetcher.close()
        self.metrics.flush()
        return self._finish(status)

    def _loop(self) -> OutcomeStatus:
        while True:
            # Evaluation first: a resumed run repeats one that was cut off, and the last step's is part of it.
            # A checkpoint is saved at the top of the next round, after the evaluation that it must remember.
            if self._evaluation_due() and not self._evaluate():
                return self._stopped("cancelled")
            if self._out_of_patience():
                return self._stopped("early_stopped")
            if self.state.step >= self.state.total_steps:
                return self._stopped("completed")
            if self._told_to_stop():
                return self._stopped("cancelled")
            if self._checkpoint_due():
                self._checkpoint()
            self._train_step()

    def _told_to_stop(self) -> bool:
        stop, waited = timed(self.should_stop)
        self.metrics.leave_out(waited)
        return stop

    # --- One optimizer step.

    def _train_step(self) -> None:
        index = self.state.step
        loss, tokens = self._gradients(index)
        rate = learning_rate(self.plan, index, self.state.total_steps)
        norm = self.optimizer.step(rate, self.plan.training.max_grad_norm)
        self.model.refresh()  # before anything reads the model: evaluation, the next step
        self.state.step += 1
        self.metrics.add(self.state.step, rate, loss, norm, tokens)
        epoch, rest = divmod(self.state.step, self.order.steps_per_epoch)
        if not rest:
            self.report(Epoch(epoch=epoch, step=self.state.step))

    def _gradients(self, index: int) -> StepGradients:
        """The step's loss, its gradients in the buffer; in smaller parts if memory runs out."""
        while True:
            self.ranks.say(Order.TRAIN, index, self.prefetcher.budget)
            batch = self.prefetcher.step(index)
            seed = self.plan.training.seed
            found = step_gradients(self.model, batch, self.ranks, seed=seed, index=index)
            if isinstance(found, StepGradients):
                return found
            self._halve("training", found)

    def _halve(self, doing: Doing, short: Shortage) -> None:
        """Back to the beginning of the step or evaluation, with parts of half the tokens from here on."""
        # Called outside the except clause: the error's traceback would hold the step's tensors.
        self.model.lora.gradients.zero_()
        self.model.release()  # graphs of larger batches may hold the memory that is missing
        empty_cache(self.model.device.type)
        step = self.state.step + (doing == "training")  # counted from 1; an evaluation is after a step
        what = f"Step {step}" if doing == "training" else f"The evaluation after step {step}"
        tokens, shortage = short.tokens, short.said
        if not self.plan.training.oom_recovery:
            self._give_up(doing, f"{what} does not fit into memory, and oom_recovery is off.", shortage)
        if len(self.state.recoveries) >= MOST_HALVINGS:
            message = f"{what} does not fit into memory, not even {tokens} tokens at once."
            self._give_up(doing, message, shortage)
        if short.examples == 1:
            self._give_up(doing, f"An example of {tokens} tokens does not fit into memory.", shortage)
        budget = tokens // 2
        self.prefetcher.budget = self.state.micro_batch_tokens = budget
        self.state.recoveries.append(Recovery(step=step, micro_batch_tokens=budget))
        self._warn(
            f"{what} ran out of memory and is done again with at most {budget} tokens at once; the"
            f" batch stays the same. Next time set micro_batch_tokens={budget}."
        )

    def _give_up(self, doing: Doing, message: str, shortage: str) -> NoReturn:
        """Raise what ran out, with the steps so far saved: the training may go on in another way."""
        if self.state.step != self.saved_step:
            self._checkpoint()
        raise out_of_memory(self.plan, doing, message, shortage)

    # --- Evaluation and early stopping.

    def _evaluation_due(self) -> bool:
        step, every = self.state.step, self.plan.evaluation.eval_every
        if not self.data.held_out or step == self.state.evaluated:
            return False
        return step == self.state.total_steps or bool(every and step % every == 0)

    def _evaluate(self) -> bool:
        """Evaluate on the held-out examples; False if told to stop meanwhile."""
        self.metrics.flush()  # the steps' events come before the evaluation's, and their time is measured
        loss = self._held_out_loss("evaluating")
        if loss is None:
            return False
        state = self.state
        state.evaluated, state.eval_loss = state.step, loss
        self.report(evaluated(state.step, loss))
        if state.step < state.total_steps:
            self.report(Phase(phase="training", message="training"))
        if state.best_loss is None or loss < state.best_loss:
            state.best_loss, state.best_step, state.worse_evaluations = loss, state.step, 0
            if self.plan.evaluation.patience is not None:
                self._checkpoint()
        else:
            state.worse_evaluations += 1
        self.metrics.restart_clock()
        return True

    def _evaluate_before(self) -> None:
        """Evaluate the model as it comes, so that the last evaluation shows what the training did."""
        state = self.state
        if state.step or not is_worth_evaluating_before(self.data, self.order, state.total_steps):
            return
        state.eval_loss_before = loss = self._held_out_loss("evaluating the model as it is")
        if loss is not None:
            self.report(evaluated(0, loss))
            self.report(Phase(phase="training", message="training"))

    def _held_out_loss(self, doing: str) -> float | None:
        """Mean cross-entropy per label token, in smaller parts if memory runs out; None if told to stop.

        Args:
            doing: what users are told that the training does meanwhile.
        """
        at = evaluation_progress(self.report, doing, "parts")
        while True:
            budget = self.prefetcher.budget
            self.ranks.say(Order.EVALUATE, budget)
            batch = held_out_batch(self.model, self.data.held_out, budget, self.ranks)
            loss = held_out_loss(self.model, batch, self.ranks, self.should_stop, at)
            if not isinstance(loss, Shortage):
                return loss
            self._halve("evaluating", loss)

    def _out_of_patience(self) -> bool:
        patience = self.plan.evaluation.patience
        return patience is not None and self.state.worse_evaluations >= patience

    # --- Checkpoints.

    def _checkpoint_due(self) -> bool:
        if self.state.step == self.saved_step:
            return False
        steps, seconds = self.plan.training.checkpoint_every_steps, self.plan.training.checkpoint_every_s
        by_steps = bool(steps) and self.state.step % steps == 0
        return by_steps or time.monotonic() - self.saved_time >= seconds

    def _checkpoint(self) -> None:
        """Save now; the best step's checkpoint is kept as long as it is the best."""
        self.metrics.flush()  # raises if a loss was not finite: such a step must not be saved
        self.ranks.require_all()  # nor one whose sums a rank that is gone has cut off
        step = self.state.step
        files = training_state_files(self.state, self.model.lora, self.model.adapter, self.optimizer)
        kept = self.state.best_step if self.plan.evaluation.patience is not None else None
        path = self.checkpoints.save(step, files, best_step=kept)
        self.saved_step, self.saved_time = step, time.monotonic()
        self.report(CheckpointSaved(step=step, path=str(path)))
        self.metrics.restart_clock()

    def _resume(self) -> int | None:
        """Take over the newest good checkpoint and return its step, or None if there is none."""
        step, damaged = self.checkpoints.newest_good()
        for sentence in damaged:
            self._warn(sentence)
        where = "from the first step, since there is no checkpoint" if step is None else f"after step {step}"
        self.report(Phase(phase="training", message=f"resuming {where}"))
        if step is None:
            return None
        self.state = read_training_state(self.checkpoints, step, self.state)
        read_adapter(self.checkpoints, step, self.model.lora)
        read_optimizer(self.checkpoints, step, self.optimizer)
        return step

    # --- The end.

    def _stopped(self, status: OutcomeStatus) -> OutcomeStatus:
        self.metrics.flush()
        if self.state.step != self.saved_step:
            self._checkpoint()
        return status

    def _finish(self, status: OutcomeStatus) -> Outcome:
        state, metrics = self.state, self.metrics
        eval_loss = state.eval_loss
        # The best adapter goes back into the buffer before it is written; a cancelled run keeps its last one,
        # from which it may be resumed.
        if status != "cancelled" and self._keep_best():
            eval_loss = state.best_loss
        self._warn_of_untaught()
        write_files(self.plan.adapter, adapter_files(self.model.lora, self.model.adapter))
        return Outcome(
            status=status,
            engine=self.model.name,
            reason=self.plan.reason,
            adapter=self.plan.adapter,
            steps=state.step,
            total_steps=state.total_steps,
            train_loss=metrics.last_loss,
            eval_loss=eval_loss,
            eval_loss_before=state.eval_loss_before,
            best_step=state.best_step,
            resumed_from=self.resumed_from,
            tokens=metrics.tokens,
            seconds=metrics.seconds,
            tokens_per_s=metrics.tokens / metrics.seconds if metrics.seconds else 0.0,
            packing=statistics(self.order, state.micro_batch_tokens, self.ranks.size, self.model.row_border),
            recoveries=list(state.recoveries),
            warnings=self.warnings,
        )

    def _warn_of_untaught(self) -> None:
        """Of modules that text does not reach: a LoRA on them does nothing."""
        untaught, modules = self.model.lora.untaught(), len(list(self.model.lora.modules()))
        if 0 < len(untaught) < modules:
            self._warn(
                f"{len(untaught)} of {modules} modules with a LoRA got no gradient and stay as they were, "
                f"for example {short_name(untaught[0])}."
            )

    def _keep_best(self) -> bool:
        """With early stopping, go back to the best adapter; False if the last one is kept."""
        best = self.state.best_step
        if self.plan.evaluation.patience is None or best is None or best == self.state.step:
            return False
        reason = damage(self.checkpoints.path(best))
        if reason is not None:
            self._warn(f"The best adapter, of step {best}, is lost ({reason}); the last one is kept.")
            return False
        read_adapter(self.checkpoints, best, self.model.lora)
        self.model.refresh()
        return True

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        self.report(Warned(message=message))
