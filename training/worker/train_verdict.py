"""The verdict on a training: beside its base on held-out rows, with answers to some of their questions."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from ..config.results import Verdict
from ..models.token_limits import token_limits
from .context import RunContext
from .loss_curve import losses_of
from .prepare_training import Ready

if TYPE_CHECKING:
    from ..engine.loaded_model import LoadedModel
    from ..engine.plan import Outcome

MUCH_WORSE = 1.2
"""The losses of single batches vary; an increase by this factor is more than that variation."""


def judge_training(context: RunContext, ready: Ready, model: LoadedModel, outcome: Outcome) -> Verdict | str:
    """The tuned model beside its base on the held-out rows, or why there is no verdict."""
    if outcome.status == "cancelled":
        return "the training was stopped before its end"
    if not len(ready.data.held_out):
        return "no rows were held out"
    from ..engine.out_of_memory import memory_errors
    from ..evaluation.judge import Affordable, judge

    with memory_errors(ready.plan, "evaluating"):
        return judge(
            model,
            ready.data.held_out,
            ready.tokenizer,
            Affordable.after(outcome.tokens, outcome.seconds),
            context.report,
            context.should_stop,
        )


def with_held_out_answers(
    context: RunContext, ready: Ready, model: LoadedModel, outcome: Outcome, verdict: Verdict
) -> Verdict:
    """The verdict, with what both models answer to a few held-out questions."""
    from ..evaluation.held_out_answers import with_answers

    context.recorder.phase("judging", "asking held-out questions")
    held_out, positions = ready.data.held_out, token_limits(ready.plan.model).positions
    return with_answers(
        verdict,
        model,
        ready.tokenizer,
        held_out,
        positions,
        outcome.seconds,
        context.report,
        context.should_stop,
    )


def warn_of_harm(context: RunContext, ready: Ready, outcome: Outcome, verdict: Verdict | None) -> bool:
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
