"""The result of each kind of run, as in state.json: one model per kind, discriminated by `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, TypeAdapter

from ..untrusted import quoted
from .ledger import Ledger
from .scores import MetricScore, RowFlip, TaskScores

START_PARTS = 5
"""Of what was done before the first step, in a sentence."""


class Record(BaseModel):
    """A part of a result. Unknown fields, e.g. of a newer version, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Answer(Record):
    """A question with its answers: before and after training, and in Ollama. Untrusted text of a model.

    Args:
        expected: the right answer, where there is one.
    """

    question: str
    expected: str | None = None
    before: str | None = None
    after: str | None = None
    in_ollama: str | None = None


class FindingRecord(Record):
    """Rows of a dataset with the same problem or the same reason for being dropped.

    Args:
        first: places of the first ones, `file:line`.
        details, untrusted_details: messages, ours and others', with their counts.
        repair: the argument that repairs it.
        is_set: whether that argument was given already.
    """

    severity: str = "note"
    kind: str
    count: int
    first: list[str] = []
    details: dict[str, int] = {}
    untrusted_details: dict[str, int] = {}
    repair: str | None = None
    is_set: bool | None = None


class PackingStatistics(Record):
    """How well the examples of a run's first epoch fill its micro-batches.

    Args:
        fill: tokens / (micro-batches · micro_batch_tokens).
        padding_avoided: share of padding in a step's positions if examples were padded to the longest one.
    """

    examples: int
    tokens: int
    longest: int
    steps_per_epoch: int
    micro_batches_per_epoch: int
    fill: float
    padding_avoided: float


class Recovery(Record):
    """A step that ran out of memory and was repeated with smaller micro-batches.

    Args:
        micro_batch_tokens: the token limit from this step on.
    """

    step: int
    micro_batch_tokens: int


class TrackerRecord(Record):
    """What an experiment tracker was told of a run.

    Args:
        run: the name of the run there.
        place: its address or folder; None if it was not opened.
        state: `unfinished` if it had not taken everything soon after the end.
        problem: why it lacks something.
    """

    name: str
    run: str
    place: str | None = None
    state: Literal["complete", "failed", "unfinished"] = "complete"
    problem: str | None = None

    @property
    def line(self) -> str:
        """`wandb: backprop-… at https://…`, with what went wrong."""
        where = f" at {self.place}" if self.place else ""
        return f"{self.name}: {self.run}{where}{f' ({self.problem})' if self.problem else ''}"


class Result(Record):
    """The common fields of all results.

    Args:
        summary: one sentence for people; empty if the fields are sufficient.
    """

    summary: str = ""

    @property
    def written(self) -> list[str]:
        """Files and folders that the run wrote; the result is valid while they exist."""
        return []

    @property
    def answered(self) -> list[Answer]:
        """Questions with a model's answers, if the run asked any."""
        return []


VerdictName = Literal["better", "worse", "can't tell"]


class WorseRow(Record):
    """A held-out row on which the tuned model is worse than its base; the text begins as the row does."""

    untrusted_text: str
    loss_before: float
    loss_after: float


class GeneralProbe(Record):
    """General questions that are not of the dataset: what the training cost elsewhere.

    Args:
        low, high: interval of the change of the loss.
    """

    questions: int
    loss_before: float
    loss_after: float
    low: float
    high: float


class Verdict(Record):
    """Whether a training helped. Losses are means per label token, in nats.

    Args:
        sentence: the verdict for people.
        rows: held-out rows that were measured, of `held_out` ones.
        loss_before: of the base model.
        loss_after: of the tuned model.
        low, high: interval of the change of the loss, at `level`.
        association: how much the loss rises if an answer follows another row's question.
        association_low: lower end of its interval; above 0, answers depend on their questions.
        worse_rows: the rows that got worse most.
        untrusted_answers: a few held-out questions with both models' answers and the right one.
        no_answers: why there are none.
        seconds: what the verdict took.
    """

    verdict: VerdictName
    sentence: str
    rows: int
    held_out: int
    loss_before: float
    loss_after: float
    low: float
    high: float
    level: float
    association: float | None = None
    association_low: float | None = None
    worse_rows: list[WorseRow] = []
    untrusted_answers: list[Answer] = []
    no_answers: str | None = None
    general: GeneralProbe | None = None
    seconds: float = 0.0


class TrainingResult(Result):
    """A training with an adapter. Losses are means per label token, in nats.

    Args:
        final_loss: training loss of the last step.
        eval_loss: of the saved adapter, on the held-out rows.
        eval_loss_before: of the base model, on the same rows; None if it was not measured.
        rows: of the dataset; each is used or dropped.
        held_out: examples held out for evaluation.
        trained_token_share: share of the tokens in the loss.
        device_name: of the GPU or the processor.
        gpus: that shared each step; on a CPU, processes.
        tokens_per_s: of all GPUs together.
        peak_memory_mib: of the GPU that needed the most.
        peak_memory_mib_of_each: of each GPU, if there are several.
        verdict: the tuned model beside its base, if it was judged.
        no_verdict: why it was not, as part of a sentence.
        still_falling: whether the training loss was still falling at the end: more steps would help.
        no_gguf: why the model cannot become a GGUF file; empty if it can.
        lora_share: share of the base's weights whose modules have a LoRA; None if it was not measured.
        without_lora: kind of weights without a LoRA → its share of the base's weights, the largest first.
        output: path of the copy of the adapter.
        trackers: the experiment trackers that were told of the run.
        no_trackers: name of another tracker → why it was not.
    """

    outcome: Literal["completed", "cancelled", "early_stopped"] = "completed"
    steps: int = 0
    total_steps: int = 0
    first_loss: float | None = None
    final_loss: float | None = None
    eval_loss: float | None = None
    eval_loss_before: float | None = None
    best_step: int | None = None
    resumed_from: int | None = None
    engine: str = ""
    engine_reason: str = ""
    device: str = ""
    device_name: str = ""
    gpus: int = 1
    tokens_per_s: float = 0.0
    peak_memory_mib: int | None = None
    peak_memory_mib_of_each: list[int] = []
    packing: PackingStatistics | None = None
    recoveries: list[Recovery] = []
    rows: int = 0
    rows_used: int = 0
    rows_truncated: int = 0
    rows_left_out: list[FindingRecord] = []
    held_out: int = 0
    trained_token_share: float = 0.0
    verdict: Verdict | None = None
    no_verdict: str = ""
    still_falling: bool = False
    no_gguf: str = ""
    lora_share: float | None = None
    without_lora: dict[str, float] = {}
    notes: list[str] = []
    output: str | None = None
    trackers: list[TrackerRecord] = []
    no_trackers: dict[str, str] = {}
    answers: list[Answer] = []

    @property
    def written(self) -> list[str]:
        return [self.output] if self.output else []

    @property
    def answered(self) -> list[Answer]:
        return self.answers

    @property
    def judgement(self) -> str | None:
        """The sentence of the verdict, or why there is none; None of a run that is not judged."""
        if self.verdict is not None:
            return self.verdict.sentence
        return f"Can't tell: {self.no_verdict}." if self.no_verdict else None

    @property
    def engine_sentence(self) -> str:
        """`packed engine (why)`."""
        return f"{self.engine} engine ({self.engine_reason})"

    @property
    def data_sentence(self) -> str:
        """How the rows of the dataset were used."""
        counts = (
            f"{self.rows_used} of {self.rows} rows used, {self.held_out} held out, "
            f"{self.trained_token_share:.0%} of the tokens trained"
            if self.rows
            else "no rows were read"
        )
        return "; ".join([counts, *(note.rstrip(".") for note in dict.fromkeys(self.notes))]) + "."


class TrainResult(TrainingResult):
    """A training.

    Args:
        before_first_step: what the run did until its first step had ended → seconds; waits are among it.
    """

    kind: Literal["train"] = "train"
    before_first_step: dict[str, float] = {}

    @property
    def start_sentence(self) -> str | None:
        """How long the first step took to come, and what took longest."""
        if not self.before_first_step:
            return None
        longest = sorted(self.before_first_step.items(), key=lambda item: -item[1])[:START_PARTS]
        parts = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in longest)
        return f"first step after {sum(self.before_first_step.values()):.1f} s ({parts})"


class MultiRunResult(TrainingResult):
    """Trainings one after the other, merged into one adapter.

    Counts are sums over the runs, losses means over the tasks; `eval_loss` is of the delivered adapter.

    Args:
        ledger: the score on every task after each run.
        num_runs: runs that were asked for.
        average: mean score of the delivered adapter on the tasks.
        backward_transfer: mean change of a task's score since its own run.
        forgetting: name of a task → how much worse it is than at its best.
        average_accuracy, accuracy_backward_transfer, accuracy_forgetting: likewise, of the share of right
            answers, over the tasks with questions.
    """

    kind: Literal["multi_run"] = "multi_run"
    ledger: Ledger
    num_runs: int
    average: float | None = None
    backward_transfer: float | None = None
    forgetting: dict[str, float] = {}
    average_accuracy: float | None = None
    accuracy_backward_transfer: float | None = None
    accuracy_forgetting: dict[str, float] = {}


class ProbeResult(Result):
    """What a few steps of a training have shown; nothing else of them is kept.

    Args:
        steps: that were trained, the first ones not counted in the speed.
        planned_peak_mib: what the plan expected.
        seconds: of the whole probe, with loading.
    """

    kind: Literal["probe"] = "probe"
    engine: str = ""
    device: str = ""
    device_name: str = ""
    steps: int = 0
    tokens_per_s: float = 0.0
    peak_memory_mib: int | None = None
    planned_peak_mib: int | None = None
    packing: PackingStatistics | None = None
    trained_token_share: float = 0.0
    seconds: float = 0.0


class ExportResult(Result):
    """A written file or folder.

    Args:
        bytes: its size.
        quantization: of a GGUF.
        proof: one sentence for each check of a GGUF.
        stop_tokens: of a GGUF, the tokens that end a turn.
    """

    kind: Literal["export"] = "export"
    path: str
    bytes: int = 0
    quantization: str | None = None
    proof: list[str] = []
    stop_tokens: list[str] = []

    @property
    def written(self) -> list[str]:
        return [self.path]


class Reply(Record):
    """What a model says to a prompt. Untrusted text.

    Args:
        tokens: generated, with the one that ended the answer.
        stopped: whether the model ended its turn; False: it was cut at max_new_tokens.
    """

    text: str
    tokens: int
    stopped: bool


class GeneratedAnswer(Record):
    """A prompt with the replies to it.

    Args:
        base: of the model without an adapter.
        tuned: of the model with the adapter; None if there is none.
        prompt_tokens: of the whole conversation; 0 in older runs.
    """

    prompt: str
    prompt_tokens: int = 0
    base: Reply | None = None
    tuned: Reply | None = None

    @property
    def replies(self) -> list[Reply]:
        return [reply for reply in (self.base, self.tuned) if reply is not None]


class GenerateResult(Result):
    """Answers of a model to prompts.

    Args:
        answers: fewer than prompts if the run was cancelled.
        tokens: generated in all answers.
        seconds: that the answers took, without loading.
        warm: whether the model was in memory from an earlier run.
        no_gguf: why the model cannot become a GGUF file; empty if it can.
    """

    kind: Literal["generate"] = "generate"
    answers: list[GeneratedAnswer] = []
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_s: float = 0.0
    device: str = ""
    warm: bool = False
    no_gguf: str = ""

    @property
    def answered(self) -> list[Answer]:
        return [
            Answer(
                question=answer.prompt,
                before=answer.base.text if answer.base else None,
                after=answer.tuned.text if answer.tuned else None,
            )
            for answer in self.answers
        ]


class EvaluateResult(Result):
    """Two models on the same rows.

    Args:
        verdict: on the first of `scores`.
        this, against: what was compared.
        rows: rows that were measured, of `rows_in_all`.
        trained_on: of these, rows that one of the models was trained on; None if that is not known.
        left_out: reason → rows that could not be measured.
        flips: a few rows that one model has right and the other wrong.
        tokens: generated in all answers.
        seconds: without loading.
        no_gguf: why the first model cannot become a GGUF file; empty if it can.
    """

    kind: Literal["evaluate"] = "evaluate"
    verdict: VerdictName
    this: str
    against: str
    rows: int
    rows_in_all: int
    trained_on: int | None = None
    left_out: dict[str, int] = {}
    scores: list[MetricScore] = []
    tasks: list[TaskScores] = []
    flips: list[RowFlip] = []
    tokens: int = 0
    seconds: float = 0.0
    device: str = ""
    no_gguf: str = ""

    @property
    def lines(self) -> list[str]:
        """One line for each score, also of each task."""
        of_tasks = (f"task {quoted(task.task)}: {one.line}" for task in self.tasks for one in task.scores)
        return [*(one.line for one in self.scores), *of_tasks]

    @property
    def answered(self) -> list[Answer]:
        return [
            Answer(
                question=flip.untrusted_question,
                expected=flip.untrusted_expected,
                before=flip.untrusted_against,
                after=flip.untrusted_this,
            )
            for flip in self.flips
        ]


class RegisterResult(Result):
    """A model of an Ollama server.

    Args:
        path: the GGUF file.
        bytes: its size.
        uploaded: False if the server already had the file.
        template: which chat template the server uses.
        question_from: the source of the question.
        digest: by which the server knows the model; empty if an older version registered it.
    """

    kind: Literal["register"] = "register"
    outcome: str = "registered"
    path: str
    name: str
    server: str
    server_version: str
    bytes: int
    uploaded: bool
    replaced: bool
    template: str
    stop: list[str] = []
    system: str | None = None
    question_from: str = ""
    digest: str = ""
    answers: list[Answer] = []

    @property
    def written(self) -> list[str]:
        return [self.path]

    @property
    def answered(self) -> list[Answer]:
        return self.answers


class PushResult(Result):
    """A commit of a Hub repository.

    Args:
        created: whether the push created the repository.
        bytes: of all files.
        card_kept: whether the repository's own README.md was left as it is.
    """

    kind: Literal["push"] = "push"
    repo: str
    url: str
    commit: str
    private: bool
    created: bool = False
    files: list[str]
    bytes: int
    card_kept: bool = False


class PreviewRow(Record):
    """A row as the model sees it.

    Args:
        untrusted_text: text from the dataset, with marks around the trained parts.
        untrusted_tokens: its first tokens, each with whether it carries loss; empty if a secret is in them.
    """

    place: str
    tokens: int
    trained_tokens: int
    untrusted_text: str
    untrusted_tokens: list[tuple[str, bool]] = []


class Preview(Record):
    """Rows as the model sees them, with a note that they are untrusted data."""

    note: str
    rows: list[PreviewRow]


class InspectResult(Result):
    """The content and the problems of a dataset.

    Args:
        usable: rows that can be used for training.
        turns: most frequent sequences of roles.
        tokens: lengths in the model's tokens.
        remedy: the change that is needed before training.
        untrusted_details: what the model's chat template says about itself.
    """

    kind: Literal["inspect"] = "inspect"
    rows: int = 0
    usable: int = 0
    files: list[str] = []
    size_bytes: int = 0
    formats: dict[str, int] = {}
    roles: dict[str, int] = {}
    turns: dict[str, int] = {}
    tokens: dict[str, Any] | None = None
    held_out: int = 0
    findings: list[FindingRecord] = []
    notes: list[str] = []
    remedy: str | None = None
    untrusted_details: str | None = None
    preview: Preview | None = None


AnyResult = (
    TrainResult
    | MultiRunResult
    | ProbeResult
    | ExportResult
    | GenerateResult
    | EvaluateResult
    | RegisterResult
    | PushResult
    | InspectResult
)
"""The result of any run."""


def read_result(kind: str, record: Mapping[str, Any]) -> AnyResult:
    """The result of a run of this kind; raises ValidationError if `record` is not valid."""
    results = Annotated[AnyResult, Discriminator("kind")]
    return TypeAdapter[AnyResult](results).validate_python({**record, "kind": kind})
