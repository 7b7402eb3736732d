"""The groups of settings with their defaults, and the spec of each kind of run.

A tool call, a command line and `Trainer(...)` all become a spec; tool schemas, command-line options,
environment variables (`BACKPROPAGATE_LORA__R`) and `.env` are derived from the same groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, TypeAdapter, ValidationInfo, field_validator

from ..models.presets import AUTO
from .fields import (
    Accumulation,
    AllowOtherBase,
    AnswersPerTask,
    AnswerSystem,
    AnswerTokens,
    BasePrecision,
    BatchSize,
    CheckpointSeconds,
    CheckpointSteps,
    ClusterName,
    Columns,
    CompareBase,
    ControlTokens,
    DatasetRevision,
    DatasetSource,
    DatasetSplit,
    Dedupe,
    Device,
    EngineName,
    Epochs,
    EvalEvery,
    ExportFormat,
    ExportOutput,
    GgufFile,
    Gpus,
    HeldOut,
    ImportanceMatrix,
    JobText,
    KeepTemplate,
    LearningRate,
    LearningRateDecay,
    LearningRateMultiplier,
    LoadIn4bit,
    LoraAlpha,
    LoraDropout,
    LoraPreset,
    LoraRank,
    MaxForgetting,
    MaxGradNorm,
    MaxNewTokens,
    MaxSeqLength,
    MergeMode,
    MergeScale,
    MergeSystem,
    Metrics,
    MicroBatchTokens,
    ModelName,
    NumRuns,
    OllamaName,
    OllamaParameters,
    OllamaQuestion,
    OllamaSystem,
    OnBadRows,
    Order,
    OutOfMemoryRecovery,
    OutputFolder,
    Overwrite,
    Patience,
    Pattern,
    PreviewRows,
    Private,
    PrivateData,
    Prompts,
    Quality,
    Quantization,
    Questions,
    RankStabilised,
    Recompute,
    Replay,
    RepoName,
    ReportTo,
    Revision,
    RollbackTo,
    RowsPerTask,
    RunReference,
    Samples,
    SamplesPerRun,
    Schedule,
    Seed,
    Separator,
    Steps,
    StepsPerRun,
    StopTexts,
    SystemPrompt,
    TargetModules,
    TaskName,
    Temperature,
    TextEncoding,
    Threads,
    TopP,
    TrainingPreset,
    TrainOn,
    TurnText,
    Validation,
    WarmupRatio,
    WarmupSteps,
    WeightDecay,
    Weights,
)

DEFAULT_RUNS = 5
ENV_PREFIX = "BACKPROPAGATE_"
FORMAT_VERSION = 1


class Group(BaseModel):
    """A group of settings: immutable; unknown names are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SettingsGroup(Group):
    """A group of a run's settings."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts True as 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise ValueError("should be a number or a text")
        return value


class ModelGroup(SettingsGroup):
    name: ModelName = AUTO
    revision: Revision | None = None
    load_in_4bit: LoadIn4bit = False
    allow_other_base: AllowOtherBase = False


class DataGroup(SettingsGroup):
    source: DatasetSource | None = None
    samples: Samples | None = None
    split: DatasetSplit | None = None
    dataset_revision: DatasetRevision | None = None
    columns: Columns | None = None
    separator: Separator | None = None
    encoding: TextEncoding | None = None
    max_seq_length: MaxSeqLength = 2048
    train_on: TrainOn = "assistant"
    on_bad_rows: OnBadRows = "refuse"
    dedupe: Dedupe = "off"
    quality: Quality = "off"
    control_tokens: ControlTokens = "keep"
    private_data: PrivateData = "keep"
    merge_system: MergeSystem = False
    order: Order = "shuffled"
    held_out: HeldOut = "auto"
    validation: Validation | None = None


class LoraGroup(SettingsGroup):
    r: LoraRank = 16
    alpha: LoraAlpha = 32
    dropout: LoraDropout = 0.0
    target_modules: TargetModules = "all-linear"
    rslora: RankStabilised = False
    preset: LoraPreset | None = None


class TrainingGroup(SettingsGroup):
    steps: Steps | None = None
    epochs: Epochs = "auto"
    batch_size: BatchSize = "auto"
    gradient_accumulation_steps: Accumulation = 1
    learning_rate: LearningRate = "auto"
    learning_rate_multiplier: LearningRateMultiplier = 1.0
    lr_scheduler: Schedule = "linear"
    warmup_steps: WarmupSteps | None = None
    weight_decay: WeightDecay = 0.0
    max_grad_norm: MaxGradNorm = 1.0
    seed: Seed = 42
    warmup_ratio: WarmupRatio | None = None
    engine: EngineName = "auto"
    recompute: Recompute = "auto"
    weights: Weights = "auto"
    base_precision: BasePrecision = "auto"
    micro_batch_tokens: MicroBatchTokens | None = None
    checkpoint_every_steps: CheckpointSteps | None = None
    checkpoint_every_s: CheckpointSeconds = 300.0
    device: Device = "auto"
    gpus: Gpus = 1
    threads: Threads | None = None
    on: ClusterName | None = None
    oom_recovery: OutOfMemoryRecovery = True
    report_to: ReportTo = "auto"
    preset: TrainingPreset | None = None

    @property
    def in_fp8(self) -> bool:
        """Whether products with the frozen weights are in FP8."""
        return self.base_precision == "fp8"

    @property
    def weights_place(self) -> Weights:
        """`weights`, as far as they may stream: those in FP8 stay on the GPU."""
        return "gpu" if self.in_fp8 else self.weights


class EvaluationGroup(SettingsGroup):
    eval_every: EvalEvery | None = None
    patience: Patience | None = None
    questions: Questions = []
    max_new_tokens: MaxNewTokens = 64
    system: SystemPrompt | None = None


class Spec(Group):
    """The request of a run. Written once as spec.json, never changed.

    Args:
        roots: folders that may be read in addition to the user's home, or instead of it if the first entry is
            "only"; None: the command line's rules.
    """

    model_config = ConfigDict(defer_build=True)  # a server starts sooner

    format_version: Literal[1] = FORMAT_VERSION
    roots: tuple[str, ...] | None = None

    def arguments(self) -> dict[str, Any]:
        """What was requested, without the folders that may be read; the same for equal requests."""
        return self.model_dump(mode="json", exclude={"roots"})

    @property
    def subject(self) -> str:
        """The model, name or repository of the run, for people."""
        raise NotImplementedError


class DataSpec(Spec):
    """A request for a model and a dataset."""

    model: ModelGroup = ModelGroup()
    data: DataGroup = DataGroup()

    @property
    def subject(self) -> str:
        return self.model.name

    @property
    def datasets(self) -> list[DataGroup]:
        """The datasets that are read, with their settings."""
        return [self.data]


class InspectSpec(DataSpec):
    """An inspection of a dataset with the tokenizer of a model."""

    kind: Literal["inspect"] = "inspect"
    preview: PreviewRows = 3
    seed: Seed = 42


class TrainingSpec(DataSpec):
    """A request whose result is an adapter.

    Args:
        parent: the run whose adapter is trained on, or whose ledger goes on.
    """

    parent: RunReference | None = None
    lora: LoraGroup = LoraGroup()
    training: TrainingGroup = TrainingGroup()
    evaluation: EvaluationGroup = EvaluationGroup()
    output: OutputFolder | None = None


class JobRecord(Group):
    """What a fine-tuning job of OpenAI's API says beside the settings of its training: shown with the job.

    Args:
        training_file, validation_file: the ids that it names.
        suffix: part of the tuned model's name.
        asked: hyperparameters as they were given.
    """

    training_file: JobText
    validation_file: JobText | None = None
    suffix: JobText | None = None
    metadata: Annotated[dict[JobText, JobText], Field(max_length=16)] = {}
    asked: dict[str, float | int | str] = {}


class TrainSpec(TrainingSpec):
    """A training.

    Args:
        job: the job that it was asked for by, if it was.
    """

    kind: Literal["train"] = "train"
    job: JobRecord | None = None


class ProbeSpec(TrainingSpec):
    """A few steps of a training, to measure their speed and their memory."""

    kind: Literal["probe"] = "probe"


class MultiGroup(SettingsGroup):
    """The settings of a multi-run beside those of its runs."""

    num_runs: NumRuns | None = None
    samples_per_run: SamplesPerRun | None = None
    steps_per_run: StepsPerRun | None = None
    merge_mode: MergeMode = "slao"
    merge_scale: MergeScale | None = None
    learning_rate_decay: LearningRateDecay = 1.0
    replay: Replay = 0.0
    max_forgetting: MaxForgetting | None = None
    rows_per_task: RowsPerTask = 100
    answers_per_task: AnswersPerTask = 20
    rollback_to: RollbackTo | None = None


class Task(Group):
    """One of several datasets that are learnt one after the other."""

    name: TaskName
    dataset: DatasetSource


class MultiRunSpec(TrainingSpec):
    """Trainings one after the other, merged into one adapter.

    Args:
        tasks: a dataset for each run; empty if the runs get parts of `data.source`.
        earlier: the number of runs that are taken over from `parent`, with their merge and their ledger.
    """

    kind: Literal["multi_run"] = "multi_run"
    multi: MultiGroup = MultiGroup()
    tasks: tuple[Task, ...] = ()
    earlier: int = 0

    @property
    def only_rolls_back(self) -> bool:
        """Whether it delivers an earlier merge of its parent, and trains nothing."""
        return self.multi.rollback_to is not None and not self.tasks and self.data.source is None

    @property
    def num_runs(self) -> int:
        """The runs that are trained, without the earlier ones."""
        if self.only_rolls_back:
            return 0
        return self.multi.num_runs or len(self.tasks) or DEFAULT_RUNS

    @property
    def datasets(self) -> list[DataGroup]:
        if self.only_rolls_back:
            return []
        return [self.data.model_copy(update={"source": task.dataset}) for task in self.tasks] or [self.data]


class ModelReference(Group):
    """A model, with or without an adapter.

    Args:
        model: the base model of the adapter, or the model itself.
        adapter: folder of the LoRA adapter; None is the model as it is.
        run: the training run that the adapter comes from.
    """

    model: ModelGroup = ModelGroup()
    adapter: str | None = None
    run: RunReference | None = None


class ModelSpec(ModelReference, Spec):
    """A request for a model, with or without an adapter."""

    @property
    def subject(self) -> str:
        return self.model.name


class ExportSpec(ModelSpec):
    """An export of a trained model to a file or folder."""

    kind: Literal["export"] = "export"
    format: ExportFormat = "gguf"
    quantization: Quantization = "q4_k_m"
    imatrix: ImportanceMatrix = False
    output: ExportOutput | None = None

    @property
    def label(self) -> str:
        """The name of the exported model, e.g. `smollm2-135m-a7f3`: the base model, and the end of the run id
        or the adapter's folder."""
        base = Path(self.model.name).name.lower()
        if self.run is not None:
            return f"{base}-{self.run.rpartition('-')[2]}"
        return f"{base}-{Path(self.adapter).name.lower()}" if self.adapter else base


class Turn(Group):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: TurnText


class GenerateSpec(ModelSpec):
    """Answers of a model to prompts, with the adapter and without it.

    Args:
        earlier: turns before each prompt.
        stop: texts before which an answer ends.
        stream: whether the first answer is told while it is made.
    """

    kind: Literal["generate"] = "generate"
    prompts: Prompts
    compare_base: CompareBase = True
    max_new_tokens: AnswerTokens = 256
    temperature: Temperature = 0.0
    top_p: TopP | None = None
    seed: Seed = 42
    system: AnswerSystem | None = None
    device: Device = "auto"
    earlier: Annotated[tuple[Turn, ...], Field(max_length=1000)] = ()
    stop: StopTexts = ()
    stream: bool = False


class EvaluateSpec(ModelSpec):
    """A comparison of two models on the same rows.

    Args:
        against: the other model; None is this one without its adapter.
        data: the rows; without a source, the held-out rows of the run.
        max_new_tokens: of each answer; None: as the right answers need, at least 64.
    """

    kind: Literal["evaluate"] = "evaluate"
    against: ModelReference | None = None
    data: DataGroup = DataGroup()
    metrics: Metrics | None = None
    pattern: Pattern | None = None
    max_new_tokens: AnswerTokens | None = None
    seed: Seed = 42
    device: Device = "auto"

    @property
    def models(self) -> list[ModelReference]:
        """What is loaded: one model if it is compared with its own base."""
        return [self, self.against] if self.against else [self]


class RegisterSpec(Spec):
    """A registration of a GGUF file as a model of an Ollama server.

    Args:
        run: the training run whose held-out rows and answers are used to test the model.
    """

    kind: Literal["register"] = "register"
    gguf: GgufFile
    run: RunReference | None = None
    name: OllamaName
    system: OllamaSystem | None = None
    parameters: OllamaParameters = {}
    keep_template: KeepTemplate = False
    overwrite: Overwrite = False
    question: OllamaQuestion | None = None

    @property
    def subject(self) -> str:
        return self.name


class PushSpec(Spec):
    """A push of an adapter or a merged model to a Hub repository. It never contains the access token.

    Args:
        folder: the folder that is uploaded.
        run: the training run that it comes from.
    """

    kind: Literal["push"] = "push"
    folder: str
    run: RunReference | None = None
    repo: RepoName
    private: Private = True
    overwrite: Overwrite = False

    @property
    def subject(self) -> str:
        return self.repo


AnySpec = (
    TrainSpec
    | MultiRunSpec
    | ProbeSpec
    | InspectSpec
    | ExportSpec
    | GenerateSpec
    | EvaluateSpec
    | RegisterSpec
    | PushSpec
)
"""The spec of any run."""

KindName = Literal[
    "train", "multi_run", "probe", "inspect", "export", "generate", "evaluate", "register", "push"
]
"""The kinds of run; `runs.kinds` has a row for each."""

TRAININGS = frozenset({"train", "multi_run"})
"""The kinds that train an adapter in steps."""

GROUPS: dict[str, type[Group]] = {
    "model": ModelGroup,
    "data": DataGroup,
    "lora": LoraGroup,
    "training": TrainingGroup,
    "evaluation": EvaluationGroup,
}


def read_spec(record: Mapping[str, Any]) -> AnySpec:
    """The spec in spec.json; raises ValidationError if it is not valid."""
    return _adapter().validate_python(record)


@cache  # not at import: a server starts sooner
def _adapter() -> TypeAdapter[AnySpec]:
    return TypeAdapter(Annotated[AnySpec, Discriminator("kind")])
