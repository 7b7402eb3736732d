"""The definition of every setting, once: type, bounds, unit and description.

Specs, tool arguments and command-line options are built from these.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ..models.presets import SHOWN
from .text_encodings import known_encoding
from .tracker_names import TrackerName, tracker_names

ModelName = Annotated[
    str,
    Field(
        min_length=1,
        description=f"Preset (such as {', '.join(SHOWN)}), Hub id, or absolute path of a folder; `auto`: one "
        "for this machine.",
    ),
]
Revision = Annotated[str, Field(description="Branch, tag or commit of a Hub model.")]
LoadIn4bit = Annotated[bool, Field(description="Load the frozen base in 4 bits (QLoRA, NF4).")]
Sources = Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
DatasetSource = Annotated[
    Sources,
    Field(
        description="Absolute path of a file (.jsonl .json .csv .tsv .parquet .txt .md, also .gz .zst), "
        "a glob pattern, a folder, a Hub dataset as owner/name[:config], or a list of files."
    ),
]
DatasetSplit = Annotated[str, Field(min_length=1, description='Split of a Hub dataset. Default: "train".')]
DatasetRevision = Annotated[str, Field(min_length=1, description="Branch, tag or commit of a Hub dataset.")]
Columns = Annotated[
    dict[str, str],
    Field(description='Field → dataset column, e.g. {"prompt": "Frage", "completion": "Antwort"}.'),
]
Separator = Annotated[
    str, Field(description='Line that separates documents in .txt and .md files; "" is an empty line.')
]
TextEncoding = Annotated[
    str,
    AfterValidator(known_encoding),
    Field(
        description="Encoding of text files that are not UTF-8 or UTF-16, e.g. cp1252 (Excel), latin-1, gbk."
    ),
]
OnBadRows = Annotated[
    Literal["refuse", "skip"],
    Field(description="Unusable rows: `refuse` rejects the dataset, `skip` drops and counts them."),
]
Dedupe = Annotated[
    Literal["off", "exact", "near"],
    Field(description="Keep only the first of duplicate rows: `exact` equal, `near` also nearly equal."),
]
Quality = Annotated[
    Literal["off", "basic"],
    Field(description="`basic` drops rows with repetitive or broken text, no answer, or roles out of order."),
]
ControlTokens = Annotated[
    Literal["keep", "remove", "skip"],
    Field(
        description="Control tokens such as <|im_end|> in a row's text: `remove` deletes them, "
        "`skip` drops the row."
    ),
]
PrivateData = Annotated[
    Literal["keep", "hide", "skip"],
    Field(description="Probable secrets and personal data: `hide` replaces them, `skip` drops their rows."),
]
MergeSystem = Annotated[
    bool,
    Field(
        description="Put the system message into the first user message, for chat templates without a "
        "system role."
    ),
]
Order = Annotated[
    Literal["shuffled", "as_given", "length", "difficulty"],
    Field(
        description="Order of the training rows; `length` starts with short rows, `difficulty` with rows of "
        "common tokens."
    ),
]
HeldOut = Annotated[
    Annotated[float, Field(ge=0, lt=1)] | Literal["auto"],
    Field(
        description="Fraction of rows held out for evaluation; 0 is off. `auto`: 5%, 8 to 500 rows, from 20 "
        "rows on."
    ),
]
Validation = Annotated[
    Sources,
    Field(description="Dataset of the held-out rows, instead of a share of the training rows."),
]
Samples = Annotated[int, Field(ge=1, description="Use only this many rows, sampled with the seed.")]
MaxSeqLength = Annotated[
    int,
    Field(
        ge=16, le=1_048_576, description="Maximum tokens per example; longer ones are truncated at the end."
    ),
]
TrainOn = Annotated[
    Literal["assistant", "last", "all"],
    Field(
        description="Tokens in the loss: all assistant messages, the last assistant message, or all tokens."
    ),
]
LoraRank = Annotated[int, Field(ge=1, le=1024, description="Rank of the LoRA matrices.")]
LoraAlpha = Annotated[
    int, Field(ge=1, le=4096, description="LoRA scaling: updates are multiplied by alpha / r.")
]
LoraDropout = Annotated[float, Field(ge=0, lt=1, description="Dropout on the LoRA input; 0 is off.")]
TargetModules = Annotated[
    str | list[str],
    Field(description='Modules with LoRA matrices: "all-linear", "attention", or a list of module names.'),
]
LoraPreset = Annotated[
    Literal["fast", "balanced", "quality"],
    Field(
        description="Named form of the adapter: `fast` r 16 on q_proj and v_proj, `balanced` r 64, `quality` "
        "r 256; alpha is 2 r. Settings that are given win."
    ),
]
TrainingPreset = Annotated[
    Literal["fast", "fast-3b", "balanced", "quality"],
    Field(
        description="Named settings: `fast` r 8, 8 examples a step, learning rate 5e-4; `balanced` r 16, 16, "
        "2e-4; `quality` r 32, 32, 1e-4. Settings that are given win."
    ),
]
Steps = Annotated[int, Field(ge=1, le=10_000_000, description="Optimizer steps; overrides epochs.")]
Epochs = Annotated[
    Annotated[float, Field(gt=0, le=1000)] | Literal["auto"],
    Field(description="Passes over the data, if steps is not set; `auto`: 3 or more."),
]
BatchSize = Annotated[
    Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"],
    Field(description='Examples per batch, before gradient accumulation; "auto" selects it.'),
]
Accumulation = Annotated[int, Field(ge=1, le=65_536, description="Batches per optimizer step.")]
LearningRate = Annotated[
    Annotated[float, Field(gt=0, le=1)] | Literal["auto"],
    Field(description="Peak learning rate of AdamW; `auto`: by model and data."),
]
LearningRateMultiplier = Annotated[
    float, Field(gt=0, le=100, description="Factor of learning_rate, also of `auto`.")
]
Schedule = Annotated[
    Literal["constant", "linear", "cosine"],
    Field(description="Learning-rate schedule after warmup."),
]
WarmupSteps = Annotated[
    int, Field(ge=0, description="Linear warmup steps. Default: 5, at most a tenth of all steps.")
]
WeightDecay = Annotated[float, Field(ge=0, le=1, description="AdamW weight decay; 0 is off.")]
MaxGradNorm = Annotated[float, Field(ge=0, description="Maximum gradient norm (clipping); 0 is off.")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1, description="Seed of all random choices.")]
WarmupRatio = Annotated[
    float, Field(ge=0, le=1, description="Warmup as a fraction of all steps; overrides warmup_steps.")
]
EngineName = Annotated[
    Literal["auto", "packed", "autograd", "trl", "unsloth"],
    Field(
        description="Training engine: `auto` uses packed for supported models, else autograd; `unsloth` "
        "needs BACKPROPAGATE_UNSLOTH__PYTHON, a Python interpreter with Unsloth."
    ),
]
Recompute = Annotated[
    Literal["auto", "nothing", "gate_up", "everything"],
    Field(
        description="Activation checkpointing: `nothing` stores all activations, `gate_up` recomputes the "
        "MLP's gate and up projections, `everything` whole layers; `auto` decides by free GPU memory."
    ),
]
Weights = Annotated[
    Literal["auto", "gpu", "host", "sharded"],
    Field(
        description="Place of the frozen weights: `gpu`, or `host` memory from which they stream to the GPU; "
        "`sharded`: each of several GPUs keeps a part; `auto` keeps on the GPU what fits."
    ),
]
BasePrecision = Annotated[
    Literal["auto", "fp8"],
    Field(
        description="Products with frozen weights: `auto` in bf16 on a GPU; `fp8` faster and less exact, on "
        "the packed engine and GPUs from Ada and Hopper on. The LoRA stays in bf16."
    ),
]
MicroBatchTokens = Annotated[int, Field(ge=16, description="Maximum tokens per forward pass.")]
CheckpointSteps = Annotated[int, Field(ge=1, description="Steps between checkpoints.")]
CheckpointSeconds = Annotated[float, Field(ge=0, description="Seconds between checkpoints.")]
EvalEvery = Annotated[int, Field(ge=1, description="Steps between evaluations on the held-out rows.")]
Patience = Annotated[
    int,
    Field(
        ge=1,
        description="Early stopping: evaluations without improvement before the run stops; the best adapter "
        "is kept.",
    ),
]
RankStabilised = Annotated[
    bool, Field(description="Rank-stabilized LoRA: scale by alpha / sqrt(r) instead of alpha / r.")
]
OutOfMemoryRecovery = Annotated[
    bool,
    Field(description="Go on in less memory after it ran out: smaller parts, recomputation, streaming."),
]
ReportTo = Annotated[
    Literal["auto", "none"] | list[TrackerName],
    BeforeValidator(tracker_names),
    Field(
        description="Experiment trackers: wandb, tensorboard, mlflow, trackio; `auto`: those that are "
        "installed and configured; `none`."
    ),
]
Device = Annotated[Literal["auto", "cpu", "cuda"], Field(description="Device to train on.")]
Gpus = Annotated[
    Annotated[int, Field(ge=1, le=64)] | Literal["all"],
    Field(description="GPUs that share each step, or `all`. With device=cpu: processes."),
]
ClusterName = Annotated[
    str,
    Field(min_length=1, max_length=100, description="Train on this cluster of clusters.toml, not here."),
]
Threads = Annotated[int, Field(ge=1, le=1024, description="CPU threads. Default: one per physical core.")]
Questions = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=4000)]],
    Field(max_length=50, description="Asked before and after training; the result contains both answers."),
]
MaxNewTokens = Annotated[int, Field(ge=1, le=4096, description="Maximum tokens per answer.")]
SystemPrompt = Annotated[str, Field(description="System message for the questions; may be empty.")]
NumRuns = Annotated[int, Field(ge=1, le=50, description="Number of runs. Default: one per task, else 5.")]
SamplesPerRun = Annotated[int, Field(ge=1, description="Training rows per run. Default: equal parts.")]
StepsPerRun = Annotated[
    int, Field(ge=1, le=10_000_000, description="Optimizer steps per run. Default: by epochs.")
]
MergeMode = Annotated[
    Literal["slao", "simple", "average"],
    Field(
        description="`slao` merges so that earlier runs are remembered, `simple` "
        "trains on, `average` averages independent adapters."
    ),
]
MergeScale = Annotated[
    Literal["sqrt", "mean", "auto"],
    Field(description="Weight of run i in slao: `auto` the best of five (default), `sqrt` 1/√i, `mean` 1/i."),
]
LearningRateDecay = Annotated[
    float, Field(gt=0, le=1, description="Factor of the learning rate from run to run; 1 is constant.")
]
Replay = Annotated[
    float,
    Field(ge=0, le=0.5, description="Fraction of a run's rows that are drawn again from earlier runs."),
]
MaxForgetting = Annotated[
    float,
    Field(ge=0, description="Stop and keep the merge before if a task's loss rises by more than this."),
]
TaskName = Annotated[str, Field(min_length=1, max_length=100, description="Name of a task.")]
RowsPerTask = Annotated[int, Field(ge=1, le=10_000, description="Maximum rows that a task is scored on.")]
AnswersPerTask = Annotated[
    int,
    Field(
        ge=0, le=1000, description="Maximum questions of a task whose answers are compared; 0 compares none."
    ),
]
RollbackTo = Annotated[
    int, Field(ge=1, description="With continue_from: go on from the merge after this run, not the last.")
]
Prompts = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=20_000)]],
    Field(min_length=1, max_length=32, description="What to ask; each begins a conversation of its own."),
]
JobText = Annotated[str, Field(max_length=512)]
TurnText = Annotated[str, Field(max_length=200_000)]
StopTexts = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=4)]
CompareBase = Annotated[bool, Field(description="Also answer without the adapter.")]
AnswerTokens = Annotated[int, Field(ge=1, le=2048, description="Maximum tokens per answer.")]
Temperature = Annotated[float, Field(ge=0, le=5, description="0: the most likely token; above: sampled.")]
TopP = Annotated[
    float, Field(gt=0, le=1, description="Sample from the likeliest tokens with this total probability.")
]
AnswerSystem = Annotated[str, Field(max_length=20_000, description="System message; may be empty.")]
Metrics = Annotated[
    list[Literal["loss", "exact_match", "contains", "f1", "regex", "multiple_choice"]],
    Field(
        min_length=1,
        description="What to measure; the first gives the verdict. Default: all that the rows allow.",
    ),
]
Pattern = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1000,
        description="Regular expression for `regex`: right if found in the answer; with a group, if it "
        "captures the same there as in the right answer.",
    ),
]
RunReference = Annotated[str, Field(description="The run whose adapter is used.")]
PreviewRows = Annotated[int, Field(ge=0, le=20, description="Number of rows to show as the model sees them.")]
ExportFormat = Annotated[
    Literal["gguf", "merged", "lora"],
    Field(
        description="`gguf`: one GGUF file; `merged`: safetensors with merged LoRA; `lora`: only the adapter."
    ),
]
Quantization = Annotated[
    str,
    Field(
        min_length=1,
        max_length=20,
        description="GGUF type: f32, f16, bf16, q8_0; with the extra `export` also q6_k, q4_k_m, … "
        "Default: q4_k_m; without the extra, q8_0.",
    ),
]
ImportanceMatrix = Annotated[
    bool, Field(description="Weight a K-quant's errors by activations on the run's held-out rows.")
]
AllowOtherBase = Annotated[bool, Field(description="Accept a changed base model.")]
ExportOutput = Annotated[
    str,
    Field(min_length=1, description="The .gguf file, or folder, to write. Default: in the run folder."),
]
GgufFile = Annotated[str, Field(min_length=1, description="Absolute path of a .gguf file.")]
OllamaName = Annotated[
    str,
    Field(min_length=1, max_length=350, description="Model name in Ollama: [host/][namespace/]model[:tag]."),
]
OllamaSystem = Annotated[str, Field(description="System prompt of the model in Ollama.")]
OllamaParameters = Annotated[
    dict[str, Any], Field(description='Ollama model parameters, e.g. {"temperature": 0.2, "num_ctx": 4096}.')
]
KeepTemplate = Annotated[bool, Field(description="Let the Ollama server choose the chat template.")]
OllamaQuestion = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4000,
        description="Question for the model. Default: one that its run answered, or from its held-out rows.",
    ),
]
Overwrite = Annotated[bool, Field(description="Replace an existing model of this name.")]
RepoName = Annotated[str, Field(min_length=3, max_length=96, description="Hub repository as owner/name.")]
Private = Annotated[bool, Field(description="Create a new repository as private.")]
OutputFolder = Annotated[
    str, Field(min_length=1, description="Also copy the finished adapter to this folder.")
]
