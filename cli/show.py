"""Prints a run as text or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..tools.loss_plot import sparkline
from ..tools.status import answers_of, duration, ledger_lines, rounded, settings_line
from ..training.config.results import (
    EvaluateResult,
    ExportResult,
    MultiRunResult,
    RegisterResult,
    Result,
    TrainingResult,
    TrainResult,
)
from ..training.config.specs import TRAININGS
from ..training.errors import describe
from ..training.redact import scrub_all
from ..training.runs.after_status import would_fail_again
from ..training.runs.folder import Status
from ..training.runs.kinds import kind_of
from ..training.runs.run_settings import telling
from ..training.runs.view import RunView
from ..training.untrusted import one_line
from .wording import as_options, words
from .wrapped import say, say_json

VALUE = 11  # the column of values


def print_json(view: RunView) -> None:
    record = view.model_dump(mode="json") | _top_level(view) | {"next": next_command(view)}
    say_json(json.dumps(scrub_all(record), indent=1, ensure_ascii=False))


def _top_level(view: RunView) -> dict[str, object]:
    """Result fields at the top level of the JSON, for scripts; the same for all kinds of run."""
    result = view.result
    trained = result if isinstance(result, TrainingResult) else None
    return {
        "data": trained.data_sentence if trained else None,
        "engine": trained.engine_sentence if trained else None,
        "output": trained.output if trained else None,
        "path": result.path if isinstance(result, ExportResult | RegisterResult) else None,
        "summary": (result.summary or None) if result else None,
        "answers": [answer.model_dump() for answer in view.answers],
    }


def print_run(view: RunView) -> None:
    """Status, losses, answers, paths and the next command."""
    say(f"Run {view.run_id}: {view.status}")
    for name, value in _lines(view):
        say(f"  {name:<8} {value}", VALUE)
    for warning in view.warnings:
        say(f"  warning  {as_options(warning)}", VALUE)
    print_answers(view)
    command = next_command(view)
    if view.error:
        told_below = view.error.next is not None and words(view.error.next) == command
        error = view.error.model_copy(update={"next": None}) if told_below else view.error
        say(f"  error    {as_options(describe(error, words))}", VALUE)
    say(f"Next: {command}", 6)


def _lines(view: RunView) -> Iterator[tuple[str, object]]:
    yield kind_of(view.kind).subject, view.model
    if view.training:
        yield "of run", view.training
    if view.dataset:
        named = [view.dataset] if isinstance(view.dataset, str) else view.dataset
        yield "dataset", ", ".join(named)
    yield from _result_lines(view.result)
    if view.settings:
        yield "settings", settings_line(telling(view.settings))
    if view.step:
        yield "steps", f"{view.step}/{view.total_steps}"
    if view.loss is not None:
        yield "loss", _from_to(view.first_loss, view.loss)
    if curve := sparkline(view.losses):
        yield "curve", f"{curve}  {' '.join(map(str, rounded(view.losses)))}"
    if view.eval_loss is not None:
        yield "held-out", _from_to(view.eval_loss_before, view.eval_loss)
    if view.verdict:
        yield "verdict", view.verdict
    if view.eta_s is not None:
        yield "left", f"about {duration(view.eta_s)}"
    if view.job:
        yield "job", view.job
    if view.phase and view.status in {Status.QUEUED, Status.RUNNING}:
        yield "phase", view.phase
    if view.adapter_path:
        yield "adapter", view.adapter_path


def _result_lines(result: Result | None) -> Iterator[tuple[str, object]]:
    if result is not None and result.summary:
        yield "result", result.summary
    match result:
        case ExportResult() | RegisterResult():
            yield "file", result.path
        case EvaluateResult():
            yield from (("score", line) for line in result.lines)
        case TrainingResult():
            if isinstance(result, MultiRunResult):
                yield from (("ledger", line) for line in ledger_lines(result.ledger))
            yield "data", as_options(result.data_sentence)
            yield "engine", result.engine_sentence
            if isinstance(result, TrainResult) and result.start_sentence:
                yield "start", result.start_sentence
            if result.output:
                yield "copy", result.output
            yield from (("tracker", tracker.line) for tracker in result.trackers)
        case _:
            pass


def _from_to(before: float | None, after: float) -> str:
    return f"{before:.4f} → {after:.4f}" if before is not None else f"{after:.4f}"


def print_answers(view: RunView) -> None:
    verdict = view.result.verdict if isinstance(view.result, TrainingResult) else None
    if verdict and verdict.no_answers:
        say(f"  no answers to held-out questions: {verdict.no_answers}", 4)
    answers = [*view.answers, *(verdict.untrusted_answers if verdict else [])]
    if answers:
        say("  answers")
    for answer in answers:
        say(f"    {_line(answer.question)}", 4)
        for label, text in answers_of(answer):
            say(f"      {label:<9} {_line(text)}", 16)


def next_command(view: RunView) -> str:
    command = words(view.next) if view.next else "nothing to do"
    if view.status is Status.FAILED and view.error and would_fail_again(view.error):
        return "correct what the error names, then start it again" if view.kind in TRAININGS else command
    if isinstance(view.result, TrainResult) and view.result.still_falling:
        return f"{command}  (trains on; export makes a GGUF file of what it has learnt)"
    if view.status is Status.COMPLETED and view.kind in TRAININGS:
        return f"{command}  (a GGUF file; --ollama --ollama-name NAME also registers it with Ollama)"
    return command


def _line(text: str | None) -> str:
    """A model's text on one line, without terminal control characters."""
    return one_line(text or "")
