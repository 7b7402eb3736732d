"""The question to a newly registered model: if possible one that the run has not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ...config.results import Answer
from ...config.specs import DataGroup, TrainingSpec
from ...data.chat_template.control_tokens import control_tokens
from ...data.cleaning.exact_duplicates import row_hash
from ...data.cleaning.transforms import Transforms
from ...data.formats.messages import Completion, Conversation, as_messages
from ...data.formats.reading import ReadProgress, read_rows
from ...data.local_source import local_source
from ...errors import BackpropagateError
from ...files.atomic_json import read_json
from ...runs.folder import RunFolder

ROWS_LOOKED_AT = 20_000
NEW_TOKENS = 64


@dataclass(frozen=True)
class Question:
    """A question to the registered model.

    Args:
        origin: where it comes from, for people.
        system: a system message of its own; None: as the model has it.
        trained_answer: what the trained model itself answered; None where that was not written down.
    """

    text: str
    origin: str
    system: str | None = None
    trained_answer: str | None = None
    max_new_tokens: int = NEW_TOKENS

    def messages(self) -> list[dict[str, str]]:
        turns = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*turns, {"role": "user", "content": self.text}]


DEFAULT = Question("Introduce yourself in one sentence.", "a question of ours")


def question_for(
    run: RunFolder | None, given: str | None = None, permit: Callable[[Path], object] = lambda path: None
) -> Question:
    """What to ask: the given question, one that the run answered, or a prompt that it held out.

    Args:
        run: the training run that the model came from.
        permit: raises for a path that may not be read.
    """
    spec = run.spec() if run else None
    if run is None or not isinstance(spec, TrainingSpec):
        return Question(given, "the given question") if given else DEFAULT
    for answer in _recorded_answers(run):
        if given in (None, answer.question):
            return Question(
                answer.question,
                "one of the run's questions",
                spec.evaluation.system,
                answer.after,
                spec.evaluation.max_new_tokens,
            )
    if given:
        return Question(given, "the given question", spec.evaluation.system)
    with suppress(BackpropagateError, OSError, ValueError):  # the dataset may be gone since
        return next(_held_out_questions(run, next(iter(spec.datasets), spec.data), permit), DEFAULT)
    return DEFAULT


def _recorded_answers(run: RunFolder) -> list[Answer]:
    result = run.state().result
    return result.answered if result else []


def _held_out_questions(
    run: RunFolder, data: DataGroup, permit: Callable[[Path], object]
) -> Iterator[Question]:
    """The first turns of the rows that the run held out."""
    held_out = set(read_json(run.path / "provenance.json")["dataset"]["held_out_rows"])
    source = local_source(data, permit) if held_out else None
    if source is None:  # nothing is held out, or the rows would have to be downloaded
        return
    transforms = Transforms(data, control_tokens())
    progress = ReadProgress("creating", "looking for a held-out row")
    for read in islice(read_rows(source, data.columns, progress), ROWS_LOOKED_AT):
        if read.row is None:
            continue
        row = transforms.apply(read.row)
        question = _first_turn(row) if row_hash(row) in held_out else None
        if question:
            yield question


def _first_turn(row: Any) -> Question | None:
    if not isinstance(row, Conversation | Completion):
        return None
    system = None
    for message in as_messages(row):
        if message["role"] == "system":
            system = message["content"]
        else:
            asked = message["role"] == "user"
            return Question(message["content"], "a row that the run held out", system) if asked else None
    return None
