"""The vocabulary of settings: the type, bounds, unit and meaning of each, once.

Specs, tool arguments and command-line options are all made of these.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ..models.presets import PRESETS

ModelName = Annotated[
    str,
    Field(
        min_length=1,
        description=f"Preset ({', '.join(PRESETS)}), Hub id, or absolute path of a folder.",
    ),
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
Samples = Annotated[int, Field(ge=1, description="Use only this many rows, drawn with the seed.")]
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
WarmupSteps = Annotated[
    int, Field(ge=0, description="Steps over which the learning rate rises; 5, or a tenth of few.")
]
WeightDecay = Annotated[float, Field(ge=0, le=1, description="AdamW weight decay; 0 is off.")]
MaxGradNorm = Annotated[float, Field(ge=0, description="Clip the gradient's norm to this; 0 is off.")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1, description="Seed of every random choice.")]
WarmupRatio = Annotated[float, Field(ge=0, le=1, description="Share of all steps to warm up over.")]
EngineName = Annotated[
    Literal["auto", "packed", "autograd", "trl", "unsloth"],
    Field(
        description="Training engine; auto takes packed where the model allows it, else autograd. unsloth "
        "needs BACKPROPAGATE_UNSLOTH__PYTHON, a Python interpreter that has it."
    ),
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
ExportFormat = Annotated[
    Literal["gguf", "merged", "lora"],
    Field(description="One GGUF file; safetensors with the LoRA merged in; or the adapter alone."),
]
Quantization = Annotated[
    str,
    Field(
        min_length=1,
        max_length=20,
        description="GGUF type: f32, f16, bf16, q8_0; with the extra `export` also q6_k, q4_k_m, … "
        "By default q4_k_m; without the extra, q8_0.",
    ),
]
ImportanceMatrix = Annotated[
    bool, Field(description="Weigh a K-quant's errors by what the run's held-out rows activate.")
]
ExportOutput = Annotated[
    str,
    Field(min_length=1, description="The .gguf file, or folder, to write; by default inside the run folder."),
]
GgufFile = Annotated[str, Field(min_length=1, description="Absolute path of a .gguf file.")]
OllamaName = Annotated[
    str,
    Field(min_length=1, max_length=350, description="Model name for Ollama: [host/][namespace/]model[:tag]."),
]
OllamaSystem = Annotated[str, Field(description="System prompt that the model gets in Ollama.")]
OllamaParameters = Annotated[
    dict[str, Any], Field(description='Ollama\'s run parameters, e.g. {"temperature": 0.2, "num_ctx": 4096}.')
]
KeepTemplate = Annotated[bool, Field(description="Leave the chat template to the Ollama server.")]
OllamaQuestion = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4000,
        description="Asked of the model; by default one that its run has answered, or has held out.",
    ),
]
Overwrite = Annotated[bool, Field(description="Replace what is there under this name.")]
RepoName = Annotated[str, Field(min_length=3, max_length=96, description="Hub repository as owner/name.")]
Private = Annotated[bool, Field(description="Whether a repository that is made for this is private.")]
OutputFolder = Annotated[
    str, Field(min_length=1, description="Also copy the finished adapter to this folder.")
]
