"""Every setting once, with default, unit and bounds: groups, the spec of a run, and the process's settings.

A tool call, a command line and `Trainer(...)` all become a `TrainSpec` here; tool schemas, command-line
options, environment variables (`BACKPROPAGATE_LORA__R`) and `.env` are read off the same definitions.
Most settings have a flat name as well (`lora_r`, `dataset`), which is what people and assistants type.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .errors import InputError, InvalidSettingError, nearest
from .redact import looks_secret

ENV_PREFIX = "BACKPROPAGATE_"
FORMAT_VERSION = 1

# --- The vocabulary: type, bounds, unit and meaning of each setting. -------------------------------------
ModelName = Annotated[
    str,
    Field(min_length=1, description="Preset name, Hub id, or absolute path of a model folder."),
]
Revision = Annotated[str, Field(description="Branch, tag or commit of a Hub model.")]
LoadIn4bit = Annotated[bool, Field(description="Load the frozen base in 4 bits (QLoRA, NF4).")]
DatasetSource = Annotated[
    Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)],
    Field(
        description="Absolute path of a file (.jsonl .json .csv .tsv .parquet .txt .md, also .gz .zst), "
        "a pattern, a folder, a Hub dataset as owner/name or owner/name:config, or a list of files."
    ),
]
DatasetSplit = Annotated[str, Field(min_length=1, description='Split of a Hub dataset; by default "train".')]
DatasetRevision = Annotated[str, Field(min_length=1, description="Branch, tag or commit of a Hub dataset.")]
Columns = Annotated[
    dict[str, str],
    Field(description='Field → column of the data, e.g. {"prompt": "Frage", "completion": "Antwort"}.'),
]
Separator = Annotated[
    str, Field(description='Line between two documents of a .txt or .md file; "" is an empty line.')
]
OnBadRows = Annotated[
    Literal["refuse", "skip"],
    Field(description="What rows that cannot be used do: refuse the dataset, or be left out and counted."),
]
Dedupe = Annotated[
    Literal["off", "exact", "near"],
    Field(description="Keep only the first of equal rows, or of nearly equal rows as well."),
]
Quality = Annotated[
    Literal["off", "basic"],
    Field(description="basic leaves out rows that repeat themselves, answer nothing or confuse their roles."),
]
ControlTokens = Annotated[
    Literal["keep", "remove", "skip"],
    Field(description="What is done about control tokens such as <|im_end|> inside a row's text."),
]
PrivateData = Annotated[
    Literal["keep", "hide", "skip"],
    Field(
        description="What is done about probable secrets and personal data: hide them, or skip their rows."
    ),
]
MergeSystem = Annotated[
    bool, Field(description="Put the system message before the first user's text, for templates without one.")
]
Order = Annotated[
    Literal["shuffled", "as_given", "length", "difficulty"],
    Field(description="Order of the training rows; length and difficulty put short and common ones first."),
]
HeldOut = Annotated[
    float,
    Field(ge=0, lt=1, description="Share of rows kept for evaluation, 8 to 500 of them; 0 is off."),
]
Samples = Annotated[int, Field(ge=1, description="Use only this many rows, drawn at random with the seed.")]
MaxSeqLength = Annotated[
    int, Field(ge=16, le=1_048_576, description="Tokens per example; longer ones are cut at the end.")
]
TrainOn = Annotated[
    Literal["assistant", "last", "all"],
    Field(description="Which tokens carry loss: the assistant's turns, its last turn, or every token."),
]
LoraRank = Annotated[int, Field(ge=1, le=1024, description="Rank of the LoRA matrices.")]
LoraAlpha = Annotated[int, Field(ge=1, le=4096, description="LoRA scale: updates are weighted alpha / r.")]
LoraDropout = Annotated[float, Field(ge=0, lt=1, description="Dropout on the LoRA input; 0 is off.")]
TargetModules = Annotated[
    str | list[str],
    Field(description='Modules that get a LoRA: "all-linear", "attention", or a list of module names.'),
]
Steps = Annotated[int, Field(ge=1, le=10_000_000, description="Optimizer steps; wins over epochs.")]
Epochs = Annotated[float, Field(gt=0, le=1000, description="Passes over the data when steps is not given.")]
BatchSize = Annotated[
    Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"],
    Field(description='Examples per optimizer step and device, before accumulation; "auto" chooses.'),
]
Accumulation = Annotated[int, Field(ge=1, le=65_536, description="Batches added up per optimizer step.")]
LearningRate = Annotated[float, Field(gt=0, le=1, description="Peak learning rate of AdamW.")]
Schedule = Annotated[
    Literal["constant", "linear", "cosine"],
    Field(description="Course of the learning rate after warm-up."),
]
WarmupSteps = Annotated[int, Field(ge=0, description="Steps over which the learning rate rises from 0.")]
WeightDecay = Annotated[float, Field(ge=0, le=1, description="AdamW weight decay; 0 is off.")]
MaxGradNorm = Annotated[float, Field(ge=0, description="Clip the gradient's norm to this; 0 is off.")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1, description="Seed of every random choice.")]
WarmupRatio = Annotated[float, Field(ge=0, le=1, description="Share of all steps to warm up over.")]
EngineName = Annotated[
    Literal["auto", "packed", "autograd", "trl"],
    Field(description="Training engine; auto takes packed where the model allows it, else autograd."),
]
Recompute = Annotated[
    Literal["auto", "nothing", "gate_up", "everything"],
    Field(description="Activations to compute again in the backward pass, to save GPU memory."),
]
MicroBatchTokens = Annotated[int, Field(ge=16, description="Most tokens that go through the model at once.")]
CheckpointSteps = Annotated[int, Field(ge=1, description="Save a checkpoint every so many steps.")]
CheckpointSeconds = Annotated[float, Field(ge=0, description="Save a checkpoint every so many seconds.")]
EvalEvery = Annotated[int, Field(ge=1, description="Steps between evaluations on the held-out rows.")]
Patience = Annotated[
    int, Field(ge=1, description="Stop after so many worse evaluations, and keep the best adapter.")
]
RankStabilised = Annotated[bool, Field(description="Scale LoRA by alpha / sqrt(r) instead of alpha / r.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], Field(description="Where to train.")]
Threads = Annotated[int, Field(ge=1, le=1024, description="CPU threads; by default the physical cores.")]
Questions = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=4000)]],
    Field(max_length=50, description="Asked before and after training; both answers are in the result."),
]
MaxNewTokens = Annotated[int, Field(ge=1, le=4096, description="Longest answer to a question, in tokens.")]
SystemPrompt = Annotated[str, Field(description="System message for the questions; may be empty.")]
RunReference = Annotated[str, Field(description="The run whose adapter this one goes on from.")]
PreviewRows = Annotated[int, Field(ge=0, le=20, description="How many rows to show as the model sees them.")]
OutputFolder = Annotated[
    str, Field(min_length=1, description="Also copy the finished adapter to this folder.")
]


class Group(BaseModel):
    """A group of settings: immutable, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelGroup(Group):
    name: ModelName = "Qwen/Qwen2.5-7B-Instruct"
    revision: Revision | None = None
    load_in_4bit: LoadIn4bit = False


class DataGroup(Group):
    source: DatasetSource | None = None
    samples: Samples | None = None
    split: DatasetSplit | None = None
    dataset_revision: DatasetRevision | None = None
    columns: Columns | None = None
    separator: Separator | None = None
    max_seq_length: MaxSeqLength = 2048
    train_on: TrainOn = "assistant"
    on_bad_rows: OnBadRows = "refuse"
    dedupe: Dedupe = "off"
    quality: Quality = "off"
    control_tokens: ControlTokens = "keep"
    private_data: PrivateData = "keep"
    merge_system: MergeSystem = False
    order: Order = "shuffled"
    held_out: HeldOut = 0.05


class LoraGroup(Group):
    r: LoraRank = 16
    alpha: LoraAlpha = 32
    dropout: LoraDropout = 0.0
    target_modules: TargetModules = "all-linear"
    rslora: RankStabilised = False


class TrainingGroup(Group):
    steps: Steps | None = None
    epochs: Epochs = 3.0
    batch_size: BatchSize = "auto"
    gradient_accumulation_steps: Accumulation = 1
    learning_rate: LearningRate = 2e-4
    lr_scheduler: Schedule = "linear"
    warmup_steps: WarmupSteps = 5
    weight_decay: WeightDecay = 0.0
    max_grad_norm: MaxGradNorm = 1.0
    seed: Seed = 42
    warmup_ratio: WarmupRatio | None = None
    engine: EngineName = "auto"
    recompute: Recompute = "auto"
    micro_batch_tokens: MicroBatchTokens | None = None
    checkpoint_every_steps: CheckpointSteps | None = None
    checkpoint_every_s: CheckpointSeconds = 300.0
    device: Device = "auto"
    threads: Threads | None = None


class EvaluationGroup(Group):
    eval_every: EvalEvery | None = None
    patience: Patience | None = None
    questions: Questions = []
    max_new_tokens: MaxNewTokens = 64
    system: SystemPrompt | None = None


class Spec(Group):
    """What a run was asked to do. Written once as spec.json, never changed.

    Args:
        roots: folders that may be read beside the user's home; None: as a person at the command line may.
    """

    format_version: Literal[1] = FORMAT_VERSION
    model: ModelGroup = ModelGroup()
    data: DataGroup = DataGroup()
    roots: tuple[str, ...] | None = None


class InspectSpec(Spec):
    """A look at a dataset, as a model would see it."""

    kind: Literal["inspect"] = "inspect"
    preview: PreviewRows = 3
    seed: Seed = 42


class TrainSpec(Spec):
    """A training."""

    kind: Literal["train"] = "train"
    lora: LoraGroup = LoraGroup()
    training: TrainingGroup = TrainingGroup()
    evaluation: EvaluationGroup = EvaluationGroup()
    output: OutputFolder | None = None
    parent: RunReference | None = None


RunSpec = Annotated[TrainSpec | InspectSpec, Discriminator("kind")]
"""The spec of any run."""

GROUPS: dict[str, type[Group]] = {
    "model": ModelGroup,
    "data": DataGroup,
    "lora": LoraGroup,
    "training": TrainingGroup,
    "evaluation": EvaluationGroup,
}


class TrainArguments(TypedDict, total=False):
    """The flat names of a training's settings beside `model` and `dataset`, as `Trainer(...)` takes them."""

    revision: str | None
    load_in_4bit: bool
    split: str | None
    dataset_revision: str | None
    columns: dict[str, str] | None
    separator: str | None
    samples: int | None
    max_seq_length: int
    train_on: str
    on_bad_rows: str
    dedupe: str
    quality: str
    control_tokens: str
    private_data: str
    merge_system: bool
    order: str
    held_out: float
    lora_r: int
    lora_alpha: int
    lora_dropout: float
    lora_target_modules: str | list[str]
    lora_rslora: bool
    steps: int | None
    epochs: float
    batch_size: int | str
    gradient_accumulation_steps: int
    learning_rate: float
    lr_scheduler: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    seed: int
    warmup_ratio: float | None
    engine: str
    recompute: str
    micro_batch_tokens: int | None
    checkpoint_every_steps: int | None
    checkpoint_every_s: float
    eval_every: int | None
    patience: int | None
    device: str
    threads: int | None
    questions: list[str]
    max_new_tokens: int
    system: str | None
    output: str | None


def flat_name(group: str, field: str) -> str:
    """The name under which people type a setting: `lora.r` is `lora_r`, `training.steps` is `steps`."""
    special = {("model", "name"): "model", ("data", "source"): "dataset"}
    return special.get((group, field), f"lora_{field}" if group == "lora" else field)


def flat_fields() -> dict[str, tuple[str, str, FieldInfo]]:
    """Flat name → (group, field, definition), in the order of the spec."""
    return {
        flat_name(group, field): (group, field, info)
        for group, model in GROUPS.items()
        for field, info in model.model_fields.items()
    }


# --- The process's settings. ---------------------------------------------------------------------------
class Settings(BaseSettings):
    """Defaults of every run and settings of this process, from the environment and the home's `.env`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )

    home: Annotated[Path, Field(description="Folder of runs, models and cache.")] = Path("~/.backpropagate")
    runtime_dir: Annotated[Path | None, Field(description="Folder of the slots' locks.")] = None
    python: Annotated[str | None, Field(description="Python interpreter of the workers.")] = None
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(description="Least level that is logged.")
    ] = "INFO"
    log_json: Annotated[bool, Field(description="Log JSON lines instead of text.")] = False
    log_file: Annotated[Path | None, Field(description="Log to this file as well as to stderr.")] = None
    model: ModelGroup = ModelGroup()
    data: DataGroup = DataGroup()
    lora: LoraGroup = LoraGroup()
    training: TrainingGroup = TrainingGroup()
    evaluation: EvaluationGroup = EvaluationGroup()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings


NOT_IN_DOTENV = ("HOME", "RUNTIME_DIR", "PYTHON", "ROOTS")
"""What the `.env` file may not set: it could redirect what is run, or where is written."""


def home_folder() -> Path:
    """`BACKPROPAGATE_HOME`, or `~/.backpropagate`."""
    return Path(os.environ.get(f"{ENV_PREFIX}HOME") or "~/.backpropagate").expanduser().absolute()


def load_settings() -> Settings:
    """The settings of this process: environment first, then `.env` in the home folder, then the defaults.

    Raises:
        InvalidSettingError: a name is unknown, a value out of bounds, or `.env` sets what it may not.
    """
    home = home_folder()
    dotenv = home / ".env"
    _check_dotenv(dotenv)
    _check_names(os.environ, "the environment")
    try:
        # The file's name is an argument of BaseSettings, which pydantic's types do not show.
        settings = Settings(_env_file=dotenv)  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        raise InvalidSettingError(
            explain(error, prefix=ENV_PREFIX, separator="__"), hint="See `backprop info` for every setting."
        ) from None
    absolute = {name: _absolute(getattr(settings, name)) for name in ("runtime_dir", "log_file")}
    return settings.model_copy(update={"home": home, **absolute})


def _absolute(path: Path | None) -> Path | None:
    """Workers have another working folder, so a path must mean the same everywhere."""
    return None if path is None else path.expanduser().absolute()


def _check_dotenv(dotenv: Path) -> None:
    if not dotenv.is_file():
        return
    from dotenv import dotenv_values

    names = {name: value or "" for name, value in dotenv_values(dotenv).items()}
    for name in names:
        if name.upper().removeprefix(ENV_PREFIX) in NOT_IN_DOTENV:
            raise InvalidSettingError(
                f"{dotenv} sets {name}, which only the real environment may set.",
                hint=f"Remove the line and set {name} where the server or the command is started.",
            )
        if not name.upper().startswith(ENV_PREFIX):
            raise InvalidSettingError(
                f"{dotenv} sets {name}, which is not a setting of backpropagate.",
                hint=f"Names begin with {ENV_PREFIX}; set other variables in the environment itself.",
            )
    _check_names(names, str(dotenv))


def _check_names(variables: Mapping[str, str], place: str) -> None:
    known = environment_names()
    for name in variables:
        upper = name.upper()
        if upper.startswith(ENV_PREFIX) and upper not in known:
            close = nearest(upper, list(known))
            raise InvalidSettingError(
                f"{name} in {place} is not a setting.",
                hint=f"Did you mean {close}?" if close else "See `backprop info` for every setting.",
            )


def environment_names() -> dict[str, FieldInfo]:
    """Every environment variable that is read, with its definition."""
    names: dict[str, FieldInfo] = {}
    for field, info in Settings.model_fields.items():
        group = GROUPS.get(field)
        if group is None:
            names[f"{ENV_PREFIX}{field.upper()}"] = info
            continue
        for inner, inner_info in group.model_fields.items():
            names[f"{ENV_PREFIX}{field.upper()}__{inner.upper()}"] = inner_info
    return names


# --- From arguments to a spec. --------------------------------------------------------------------------
ALIASES: dict[str, tuple[str, dict[Any, Any]]] = {
    "gradient_accumulation": ("gradient_accumulation_steps", {}),
    "train_on_responses": ("train_on", {True: "assistant", False: "all"}),
}
"""Older names that are still accepted: the name today, and what the older values are called."""


def train_spec(
    defaults: Settings | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any],
    roots: Sequence[str] | None = None,
) -> TrainSpec:
    """The spec of a training run.

    Args:
        defaults: where values that are not given come from.
        settings: more settings, by group (`{"lora": {"dropout": 0.1}}`) or by flat name.
        arguments: settings by their flat names (`TrainArguments`); None means not given. They win over
            `settings`.
        roots: see `Spec`.

    Raises:
        InputError: an unknown name (with the nearest known one), a value out of bounds, or a secret.
    """
    groups = _grouped(defaults or load_settings(), settings or {}, arguments)
    return validated(TrainSpec, {**groups, "roots": roots})


def inspect_spec(
    defaults: Settings | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any],
    preview: int = 3,
    roots: Sequence[str] | None = None,
) -> InspectSpec:
    """The spec of a look at a dataset; arguments as `train_spec` takes them.

    Raises:
        InputError: an unknown name, a value out of bounds, or a secret.
    """
    groups = _grouped(defaults or load_settings(), settings or {}, arguments)
    kept = {name: groups[name] for name in ("model", "data")}
    seed = groups["training"].get("seed", TrainingGroup().seed)
    return validated(InspectSpec, {**kept, "preview": preview, "seed": seed, "roots": roots})


def _grouped(defaults: Settings, settings: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Values by group: the defaults that were set, then `settings`, then `arguments`; and `output`."""
    values: dict[str, Any] = {name: getattr(defaults, name).model_dump(exclude_unset=True) for name in GROUPS}
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in GROUPS:
            flat[name] = value
        elif isinstance(value, Mapping):
            _take_group(values[name], name, value)  # pyright: ignore[reportUnknownArgumentType]
        else:
            raise InputError(f"settings.{name} must be an object, not {value!r}.")
    given = flat | {name: value for name, value in arguments.items() if value is not None}
    fields = flat_fields()
    for name, value in given.items():
        _known(name, [*fields, *ALIASES, *GROUPS, "output"], "argument")
        if name in ALIASES:
            name, renamed = ALIASES[name]
            value = renamed.get(value, value)
        if name == "output":
            values["output"] = value
        else:
            group, field, _ = fields[name]
            values[group][field] = value
    return values


def _take_group(into: dict[str, Any], group: str, values: Mapping[str, Any]) -> None:
    for field, value in values.items():
        _known(field, list(GROUPS[group].model_fields), f"settings.{group}")
        argument = flat_name(group, field)
        if argument in {"model", "dataset"}:
            raise InputError(
                f"settings.{group}.{field} has an argument of its own.", hint=f"Use {argument}=…."
            )
        into[field] = value


SpecType = TypeVar("SpecType", bound=Spec)


def validated(kind: type[SpecType], values: Mapping[str, Any]) -> SpecType:
    """`values` as a spec, with errors that name the flat argument."""
    try:
        spec = kind.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(explain(error), hint="Correct the argument and call again.") from None
    if spec.data.source is None:
        raise InputError("dataset is missing.", hint="Give the path of a file, a folder or a Hub dataset.")
    if looks_secret(spec.model_dump_json()):
        raise InputError(
            "One of the arguments looks like a secret (an access token or a key).",
            hint="Secrets are never written into a run: set HF_TOKEN in the environment instead.",
        )
    return spec


def read_spec(record: Mapping[str, Any]) -> TrainSpec | InspectSpec:
    """The spec that spec.json holds; ValidationError if it holds anything else."""
    return TypeAdapter[TrainSpec | InspectSpec](RunSpec).validate_python(record)


def _known(name: str, known: list[str], place: str) -> None:
    if name in known:
        return
    close = nearest(name, known)
    hint = f"Did you mean {close}?" if close else f"Known: {', '.join(known)}."
    raise InputError(f"Unknown {place} {name!r}.", hint=hint)


def explain(error: ValidationError, *, prefix: str = "", separator: str = ".") -> str:
    """A pydantic error in one line: each argument, what it was given and what is allowed."""
    parts: list[str] = []
    for item in error.errors(include_url=False):
        location = [str(part) for part in item["loc"]]
        if prefix:
            name = prefix + separator.join(location[:2]).upper()
        elif len(location) > 1 and location[0] in GROUPS:
            name = flat_name(location[0], location[1])
        else:
            name = location[0] if location else "arguments"
        given = "" if item["type"] == "missing" else f", not {_shown(item['input'])}"
        sentence = f"{name} is missing" if not given else f"{name}: {_lower(item['msg'])}{given}"
        if not any(part.startswith(name) for part in parts):
            parts.append(sentence)
    return "; ".join(parts) + "."


def _lower(text: str) -> str:
    text = text.removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
