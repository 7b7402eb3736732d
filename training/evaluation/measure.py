"""One model on the rows of an evaluation: losses, answers, and how likely each choice is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..config.results import Reply
from ..data.tokens.example import Example
from ..engine.generate import TOGETHER, TOGETHER_ON_GPU, Sampling, untold
from ..engine.loop.example_losses import ExampleLoss
from ..engine.tuned_model import TunedModel
from ..errors import TrainingAbortedError
from ..events import Phase, Report, ShouldStop, throttled
from .encoded import EncodedRow
from .judge import TOGETHER as LOSSES_TOGETHER
from .judge import association_of
from .other_questions import exchanged
from .paired_difference import Difference
from .wanted import Wanted


@dataclass
class Measured:
    """What one model gives.

    Args:
        losses: of each row.
        replies: row → its answer.
        choices: row → the log-likelihood of each of its choices, in nats.
        association: see `verdict.Measured`; of the model that is judged only.
    """

    losses: list[ExampleLoss] = field(default_factory=list[ExampleLoss])
    replies: dict[int, Reply] = field(default_factory=dict[int, Reply])
    choices: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    association: Difference | None = None


class Progress:
    """Reports how much of all measurements is done, and stops them on request."""

    def __init__(self, report: Report, parts: int, should_stop: ShouldStop) -> None:
        self._report, self._parts = throttled(report), parts
        self.should_stop = should_stop
        self._begun = 0
        self._what = ""

    def begin(self, what: str) -> None:
        self._begun += 1
        self._what = what
        self.at(0.0)

    def at(self, share: float, more: str = "") -> None:
        """Raises TrainingAbortedError if the user has requested a stop."""
        if self.should_stop():
            raise TrainingAbortedError("Cancelled before both models were measured.")
        fraction = min(0.999, (self._begun - 1 + share) / self._parts)
        self._report(Phase(phase="measuring", message=f"{self._what}{more}", fraction=fraction))


def measure(
    model: TunedModel,
    rows: Sequence[EncodedRow],
    wanted: Wanted,
    name: str,
    progress: Progress,
    *,
    adapter: bool,
    judged: bool,
) -> Measured:
    """Measure a model on all rows.

    Args:
        name: of the model, for progress.
        adapter: False measures the model without its adapter.
        judged: whether to measure too how much its answers depend on their questions.

    Raises:
        TrainingAbortedError: told to stop.
    """
    found = Measured()

    def losses(examples: Sequence[Example]) -> list[ExampleLoss]:
        return _losses(model, examples, progress, adapter=adapter)

    if wanted.losses:
        progress.begin(f"loss of {name} on {len(rows)} rows")
        found.losses = list(_by_row(losses, [row.examples for row in rows]))
    if wanted.losses and judged:
        answers = exchanged([row.examples[0] for row in rows if len(row.examples) == 1])
        own = losses([one.own for one in answers])
        others = losses([example for one in answers for example in one.others])
        found.association = association_of(own, others)
    if wanted.chosen:
        progress.begin(f"choices of {name} on {len(wanted.chosen)} rows")
        of_rows = [
            [-one.total for one in losses_of_row]
            for losses_of_row in _grouped(losses, [rows[index].choices for index in wanted.chosen])
        ]
        found.choices = dict(zip(wanted.chosen, of_rows, strict=True))
    if wanted.asked:
        progress.begin(f"answers of {name} to {len(wanted.asked)} rows")
        prompts = [rows[index].prompt for index in wanted.asked]
        replies = _replies(model, prompts, wanted.max_new_tokens, progress, adapter=adapter)
        found.replies = dict(zip(wanted.asked, replies, strict=True))
    return found


Losses = Callable[[Sequence[Example]], list[ExampleLoss]]


def _grouped(losses: Losses, groups: Sequence[Sequence[Example]]) -> Iterator[list[ExampleLoss]]:
    found = iter(losses([example for group in groups for example in group]))
    for group in groups:
        yield [next(found) for _ in group]


def _by_row(losses: Losses, groups: Sequence[Sequence[Example]]) -> Iterator[ExampleLoss]:
    for parts in _grouped(losses, groups):
        yield ExampleLoss(sum(one.total for one in parts), sum(one.label_tokens for one in parts))


def _losses(
    model: TunedModel, examples: Sequence[Example], progress: Progress, *, adapter: bool
) -> list[ExampleLoss]:
    found: list[ExampleLoss] = []
    for start in range(0, len(examples), LOSSES_TOGETHER):
        progress.at(start / len(examples))
        found += model.losses(examples[start : start + LOSSES_TOGETHER], adapter=adapter)
    return found


def _replies(
    model: TunedModel,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    progress: Progress,
    *,
    adapter: bool,
) -> list[Reply]:
    """The most likely answers, in batches of prompts of about the same length."""
    together = TOGETHER_ON_GPU if model.device == "cuda" else TOGETHER
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: dict[int, Reply] = {}
    for start in range(0, len(order), together):
        batch = order[start : start + together]
        progress.at(start / len(order), f": {start} done")
        asked = [prompts[index] for index in batch]
        sampling = Sampling(max(1, model.room(asked, max_new_tokens)))
        found |= zip(
            batch,
            model.replies(asked, sampling, untold, progress.should_stop, adapter=adapter),
            strict=False,
        )
    progress.at(1.0)
    return [found[index] for index in range(len(prompts))]
