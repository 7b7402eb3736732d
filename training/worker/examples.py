"""The examples of a training in a worker: the check of the rows, the tokenizer, the data of this attempt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.specs import DataGroup, EvaluationGroup, TrainingGroup, TrainingSpec
from ..data.check import Checked, check
from ..data.cleaning.quality import QUALITY_KINDS
from ..data.findings import meaning_of, rows_of
from ..data.prepare import Prepared, prepare, prepared_before
from ..data.tokens.encode import end_tokens
from ..errors import DatasetError
from ..hardware.devices import CPU
from ..models.token_limits import token_limits
from ..models.untrained_tokens import untrained_tokens
from ..untrusted import quoted, shown_path
from .context import RunContext, use_threads

if TYPE_CHECKING:
    from ..engine.plan import Plan


def check_data(context: RunContext, data: DataGroup) -> Checked:
    """Refuse bad rows before the run waits, downloads or loads."""
    context.recorder.phase("checking", "checking the data")
    checked = check(data, permit=context.permit, report=context.report, should_stop=context.should_stop)
    checked.raise_if_unusable(data.on_bad_rows)
    for found in checked.findings.sorted():
        dropped = data.quality == "basic" and found.kind in QUALITY_KINDS
        if found.severity == "warning" and not dropped:
            context.recorder.warn(f"{found.sentence()}.")
    return checked


def tokenizer_of(context: RunContext, spec: TrainingSpec, model: Path) -> tuple[Any, int]:
    context.recorder.phase("loading", "importing torch and transformers")
    threads = use_threads(spec.training.threads)
    from ..models.tokenizer import load_tokenizer

    context.stop_if_asked()
    tokenizer = load_tokenizer(model)
    context.require_permitted()
    return tokenizer, threads


def examples(context: RunContext, spec: TrainingSpec, tokenizer: Any, model: Path) -> Prepared:
    context.recorder.phase("preparing", "preparing the data")
    return prepare(
        spec.data,
        tokenizer,
        seed=spec.training.seed,
        cache=context.home / "cache" / "tokens",
        permit=context.permit,
        report=context.report,
        should_stop=context.should_stop,
        limits=token_limits(model),
    )


def examples_again(
    context: RunContext, spec: TrainingSpec, tokenizer: Any, model: Path, key: str
) -> Prepared:
    """The examples of the first attempt.

    Args:
        key: under which the cache has them.

    Raises:
        DatasetError: the dataset has changed, and its tokens are no longer in the cache.
    """
    data = prepared_before(context.home / "cache" / "tokens", key)
    data = data or examples(context, spec, tokenizer, model)
    if data.key != key:
        raise DatasetError(
            f"The dataset {_shown(spec.data.source)} has changed since this run started.",
            hint="Restore it to resume, or start a new run.",
        )
    return data


def warn_about_data(context: RunContext, data: Prepared) -> None:
    for found in data.summary.left_out:
        first = ", ".join(found["first"])
        meaning = meaning_of(found["kind"], found["count"])
        context.recorder.warn(f"Dropped: {rows_of(found['count'])} that {meaning} ({first}).")
    for found in data.summary.warnings:
        count, first = found["count"], ", ".join(found["first"])
        context.recorder.warn(f"{rows_of(count)} {meaning_of(found['kind'], count)} ({first}).")


def warn_about_evaluation(context: RunContext, asked: EvaluationGroup, held_out: int) -> None:
    """Name the settings that mean nothing in this run."""
    if not held_out:
        given = {"eval_every": asked.eval_every, "patience": asked.patience}
        for name in (name for name, value in given.items() if value is not None):
            context.recorder.warn(f"{name} is not used: no rows are held out.")
    elif asked.patience is not None and asked.eval_every is None:
        context.recorder.warn(
            "patience is not used: without eval_every, the held-out rows are evaluated only at the end."
        )
    if asked.system is not None and not asked.questions:
        context.recorder.warn("system is not used: there are no questions.")


def warn_about_memory(context: RunContext, asked: TrainingGroup, plan: Plan) -> None:
    """Name the settings of memory that mean nothing in this run.

    Args:
        plan: what was made of them.
    """
    engine = plan.training.engine
    on_cpu = context.recorder.devices == (CPU,)
    if asked.weights != "auto" and on_cpu and plan.resident_layers is None:
        context.recorder.warn("weights is not used: a CPU has only the host's memory.")
    if engine == "trl" and asked.micro_batch_tokens is not None:
        context.recorder.warn("micro_batch_tokens is not used: TRL's engine splits steps by rows.")
    if engine == "trl" and on_cpu and asked.recompute not in ("auto", "nothing"):
        context.recorder.warn("recompute is not used: on a CPU, TRL's engine keeps all activations.")


def warn_about_the_end(context: RunContext, tokenizer: Any, model: Path) -> None:
    """Warn if the model cannot learn to stop: its end-of-turn token has never been trained."""
    ends = end_tokens(tokenizer)
    untrained = untrained_tokens(model, ends, tokenizer.added_tokens_decoder.keys())
    if untrained:
        names = ", ".join(quoted(tokenizer.convert_ids_to_tokens(token)) for token in untrained)
        context.recorder.warn(
            f"The model has never learnt {names}, which ends an answer, and a LoRA does not change the "
            "embedding: its answers may not stop. Use the instruct variant of the model, or a chat template "
            "with another end."
        )


def _shown(source: str | list[str] | None) -> str:
    return ", ".join(map(shown_path, [source] if isinstance(source, str) else source or []))
