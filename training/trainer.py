"""Trainer: trains and exports in the caller's process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from .config.arguments import TrainArguments
from .config.fields import ExportFormat, MergeMode, MergeScale, Metrics
from .config.ledger import Ledger
from .config.quantizations import note_on_default
from .config.results import (
    EvaluateResult,
    ExportResult,
    GeneratedAnswer,
    GenerateResult,
    MultiRunResult,
    PushResult,
    TrainResult,
)
from .config.settings import load_settings
from .config.specs import KindName, TrainSpec
from .data.local_source import local_source
from .errors import InputError
from .events import Event, Report, ShouldStop, Step, never_stop, no_report
from .files.output_folder import check_output
from .files.paths import PathPolicy, without_uri
from .logs import configure_logging, logger
from .models.presets import AUTO, classify_model
from .next_step import then
from .requests.argument_paths import with_resolved_paths
from .requests.evaluate import evaluate_spec
from .requests.export import check_export_output, export_spec
from .requests.generate import generate_spec
from .requests.multi_run import multi_run_spec_of
from .requests.push import push_spec
from .requests.settings import alias_notes
from .requests.train import require_alone, train_spec
from .runs.folder import RunFolder, RunState, Status
from .runs.kinds import device_request
from .runs.store import RunStore
from .worker.in_process import Execute, run_in_process


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called during training; each gets one event.

    An exception in a callback fails the training: a callback is part of the caller's program.
    """

    on_step: Callable[[Event], None] | None = None
    on_epoch: Callable[[Event], None] | None = None
    on_save: Callable[[Event], None] | None = None
    on_complete: Callable[[Event], None] | None = None
    on_error: Callable[[Event], None] | None = None

    def __call__(self, event: Event) -> None:
        callback = {
            "step": self.on_step,
            "epoch": self.on_epoch,
            "saved": self.on_save,
            "done": self.on_complete,
            "error": self.on_error,
        }.get(event.kind)
        if callback:
            callback(event)


@dataclass(frozen=True)
class TrainingRun:
    """A training that has ended.

    Args:
        result: all that was measured, e.g. the losses on the held-out rows.
        warnings: what the user should know before the adapter is used, e.g. that it is worse than the base.
    """

    run_id: str
    status: Status
    steps: int
    total_steps: int
    losses: list[float]
    adapter_path: Path
    run_folder: Path
    duration_s: float
    result: TrainResult
    warnings: list[str] = field(default_factory=list[str])
    answers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    @property
    def first_loss(self) -> float | None:
        return self.losses[0] if self.losses else None

    @property
    def final_loss(self) -> float | None:
        return self.losses[-1] if self.losses else None

    @property
    def eval_loss_before(self) -> float | None:
        """The base model's loss on the held-out rows; None if none were held out."""
        return self.result.eval_loss_before

    @property
    def eval_loss(self) -> float | None:
        """The adapter's loss on the held-out rows; None if none were held out."""
        return self.result.eval_loss


@dataclass(frozen=True)
class MultiRun:
    """A multi-run that has ended.

    Args:
        adapter_path: the merged adapter.
        result: with the ledger: the score on every task after each run.
        warnings: what the user should know before the adapter is used.
    """

    run_id: str
    status: Status
    adapter_path: Path
    run_folder: Path
    duration_s: float
    result: MultiRunResult
    warnings: list[str] = field(default_factory=list[str])

    @property
    def ledger(self) -> Ledger:
        return self.result.ledger


@dataclass(frozen=True)
class Export:
    """A file or folder that an export wrote.

    Args:
        bytes: its size.
        proof: one sentence for each check of a GGUF.
    """

    run_id: str
    path: Path
    bytes: int
    proof: list[str]


class Trainer:
    """Fine-tunes a model in this process.

    Args:
        model: preset, Hub id, or path of a model folder. Default: from the settings, else by this machine.
        output_dir: the home folder for this trainer's runs. Default: `~/.backpropagate`.
        settings: any setting by its flat name, e.g. `lora_r=8, learning_rate=1e-4`.

    Raises:
        InputError: a setting is unknown or out of bounds, or the model name is not valid.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        output_dir: str | Path | None = None,
        **settings: Unpack[TrainArguments],
    ) -> None:
        self._defaults = load_settings()
        configure_logging(self._defaults, own_process=False)
        self._arguments: dict[str, Any] = {
            **settings,
            "model": without_uri(model or self._defaults.model.name),
        }
        if self._arguments["model"] != AUTO:
            classify_model(self._arguments["model"])
        self._store = RunStore(
            Path(output_dir).expanduser().absolute() if output_dir else self._defaults.home
        )
        self._last: TrainingRun | MultiRun | None = None
        # Wrong settings raise here, not at the start of the training.
        train_spec(self._defaults, arguments={"dataset": "any", **self._arguments})
        for note in alias_notes(self._arguments):
            logger().warning(note)

    def train(
        self,
        dataset: str | Path | Sequence[str | Path] | None = None,
        steps: int | None = None,
        samples: int | None = None,
        callback: Callbacks | None = None,
        should_stop: ShouldStop = never_stop,
        resume_from: str | None = None,
    ) -> TrainingRun:
        """Fine-tune on a dataset, and record it as a run.

        Args:
            dataset: a file, a glob pattern, a folder, a list of files, or a Hub dataset.
            steps: optimizer steps; None: from the settings, or by epochs.
            samples: use only this many rows.
            callback: called with events.
            should_stop: called between steps; True stops the training and saves the adapter.
            resume_from: resume this run of the home folder from its last checkpoint, with its own dataset
                and settings; `dataset` is not needed then. Of the trainer's settings, `allow_other_base`
                counts: it accepts a base model that has changed since the training began.

        Raises:
            InputError: the dataset or a setting is not valid.
            BackpropagateError: the training failed; the run records the error too.
            TrainingAbortedError: it was stopped before its first step.
        """
        from .worker import train

        if resume_from is None:
            spec = self._spec(dataset, steps, samples)
            device_request(spec)  # raises before the run is created if the requested GPU is missing
            run = self._store.create(spec)
        else:
            run = self._resumed(resume_from, "train")
        recorder = _Recorder(callback or Callbacks())
        started = time.monotonic()
        state = self._execute(train.run, run, recorder, should_stop)
        self._last = last = recorder.summary(run, state, time.monotonic() - started)
        return last

    def _resumed(self, run_id: str, kind: KindName) -> RunFolder:
        run = self._store.find(run_id)
        state = self._store.observe(run)
        if state.kind != kind:
            raise InputError(f"Run {run.run_id} is of kind {state.kind}, not {kind}.")
        allowed = self._arguments.get("allow_other_base") is True
        if self._store.requeue(run, state.attempt, allow_other_base=allowed) is None:
            raise InputError(f"Run {run.run_id} is {state.status}.", next=then("get_run", run_id=run.run_id))
        return run

    def multi_run(
        self,
        dataset: str | Path | Sequence[str | Path] | None = None,
        num_runs: int | None = None,
        steps_per_run: int | None = None,
        samples_per_run: int | None = None,
        merge_mode: MergeMode | None = None,
        *,
        tasks: Sequence[object] | Mapping[str, object] | None = None,
        merge_scale: MergeScale | None = None,
        learning_rate_decay: float | None = None,
        replay: float | None = None,
        max_forgetting: float | None = None,
        rows_per_task: int | None = None,
        answers_per_task: int | None = None,
        continue_from: str | None = None,
        rollback_to: int | None = None,
        callback: Callbacks | None = None,
        should_stop: ShouldStop = never_stop,
        resume_from: str | None = None,
    ) -> MultiRun:
        """Train on parts of a dataset, or on several datasets, one after the other, merged into one adapter.

        All settings of the trainer apply to every run. Afterwards `export`, `save` and `push_to_hub` use the
        merged adapter.

        Args:
            dataset: as for `train`; cut into `num_runs` disjoint parts.
            tasks: instead of `dataset`, one dataset per run: paths, or names and datasets.
            num_runs: default 5, or one per task.
            steps_per_run: optimizer steps of each run; None: from the settings, or by epochs.
            samples_per_run: training rows of each run; None: all, divided equally.
            merge_mode: "slao" (default) merges so that earlier runs are remembered, "simple" trains one
                adapter on, "average" averages independent adapters.
            merge_scale: with "slao", the weight of run i: "auto" (default) tries five on the scored rows,
                "sqrt" is 1/√i, "mean" is 1/i. With `continue_from`, that of the earlier multi-run.
            learning_rate_decay: factor of the learning rate from run to run.
            replay: fraction of a run's rows, up to 0.5, that are drawn again from earlier runs.
            max_forgetting: stop, and keep the merge before, when a task's score falls by more than this.
            rows_per_task: maximum rows that a task is scored on; default 100.
            answers_per_task: maximum questions of a task whose answers are compared; default 20, 0 is none.
            continue_from: add the runs to this multi-run, or to this training as run 1: its run id. Model
                and LoRA settings are those of that run, whose folder is only read.
            rollback_to: with `continue_from`, go on from the merge after this run instead of the last;
                without data, only deliver it.
            resume_from: resume this multi-run, with its own data and settings.

        Raises:
            InputError, InvalidSettingError: the data or a setting is not valid, or there are too few rows.
            PartialSuccessError: a run failed; the merged adapter of the runs before it is saved.
            BackpropagateError: the first run failed.
            TrainingAbortedError: it was stopped before the first merge.
        """
        from .worker import multi_run

        multi = {
            "num_runs": num_runs,
            "steps_per_run": steps_per_run,
            "samples_per_run": samples_per_run,
            "merge_mode": merge_mode,
            "merge_scale": merge_scale,
            "learning_rate_decay": learning_rate_decay,
            "replay": replay,
            "max_forgetting": max_forgetting,
            "rows_per_task": rows_per_task,
            "answers_per_task": answers_per_task,
            "rollback_to": rollback_to,
        }
        if resume_from is None:
            run = self._new_multi_run(dataset, tasks, multi, continue_from)
        else:
            given = {"dataset": dataset, "tasks": tasks, "continue_from": continue_from, **multi}
            require_alone(name for name, value in given.items() if value is not None)
            run = self._resumed(resume_from, "multi_run")
        started = time.monotonic()
        state = self._execute(multi_run.run, run, callback or Callbacks(), should_stop)
        result = state.result
        assert isinstance(result, MultiRunResult)
        duration_s = round(time.monotonic() - started, 2)
        self._last = last = MultiRun(
            run.run_id, state.status, run.adapter_path, run.path, duration_s, result, list(state.warnings)
        )
        return last

    def _new_multi_run(
        self,
        dataset: str | Path | Sequence[str | Path] | None,
        tasks: Sequence[object] | Mapping[str, object] | None,
        multi: Mapping[str, Any],
        continue_from: str | None,
    ) -> RunFolder:
        arguments = self._arguments | ({"dataset": dataset} if dataset else {})
        spec = multi_run_spec_of(arguments, multi, tasks, self._defaults, self._store, continue_from)
        for data in spec.datasets:
            local_source(data, lambda path: None)
        device_request(spec)  # raises before the run is created if the requested GPU is missing
        return self._store.create(spec)

    def export(
        self,
        format: ExportFormat = "gguf",
        *,
        quantization: str | None = None,
        imatrix: bool = False,
        output: str | Path | None = None,
        allow_other_base: bool = False,
        should_stop: ShouldStop = never_stop,
    ) -> Export:
        """Export the last training, and record it as a run. A GGUF is verified before it gets its name.

        Args:
            format: "gguf", "merged" (safetensors) or "lora" (the adapter alone).
            quantization: of a GGUF: f32, f16, bf16, q8_0; with the extra `export` also q6_k, q4_k_m, ….
                Default: q4_k_m; without the extra, q8_0 with a warning in the log.
            imatrix: weight a K-quant's errors by activations on the run's held-out rows.
            output: the .gguf file, or folder, to write. Default: in the run folder.
            allow_other_base: accept a base model that is no longer the one that was trained on.
            should_stop: called often; True stops the export without keeping any files.

        Raises:
            InputError: there is no training yet, or an argument is wrong.
            ExportError: it cannot be exported, or the written file differs from the model.
            MissingExtraError: the quantization needs llama-cpp-python.
        """
        from .worker import export

        if self._last is None:
            raise InputError("There is no training to export yet.", hint="Call train() first.")
        paths = PathPolicy.for_person(self._defaults.home)
        spec = export_spec(
            self._last.run_id,
            self._store,
            paths,
            format=format,
            quantization=quantization,
            imatrix=imatrix,
            allow_other_base=allow_other_base,
            output=paths.resolve(str(output), "output", write=True) if output else None,
        )
        note = note_on_default(quantization, spec.quantization)
        if note:
            logger().warning(note)
        check_export_output(spec)
        run = self._store.create(spec)
        state = self._execute(export.run, run, no_report, should_stop)
        assert isinstance(state.result, ExportResult)
        return Export(run.run_id, Path(state.result.path), state.result.bytes, state.result.proof)

    def _execute(
        self,
        execute: Execute,
        run: RunFolder,
        listener: Report,
        should_stop: ShouldStop,
    ) -> RunState:
        runtime = self._defaults.runtime_dir
        return run_in_process(execute, run, self._store, runtime, listener, should_stop)

    def generate(
        self,
        prompts: str | Sequence[str],
        source: str | Path | None = None,
        *,
        compare_base: bool = True,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float | None = None,
        seed: int = 42,
        system: str | None = None,
        load_in_4bit: bool | None = None,
        allow_other_base: bool = False,
        should_stop: ShouldStop = never_stop,
    ) -> list[GeneratedAnswer]:
        """Ask the last training, or another model, and record it as a run.

        Args:
            prompts: 1 to 32; each begins a conversation of its own.
            source: a run's id, the path of an adapter or model folder, or a model's name. Default: the last
                training, or else the trainer's model.
            compare_base: also answer without the adapter.
            max_new_tokens: of each answer.
            temperature: 0 takes the most likely token; above, it is sampled with the seed.
            top_p: sample from the likeliest tokens with this total probability; None: from all.
            system: the system message; "" is an empty one.
            load_in_4bit: load the base in 4 bits; None: as it was trained.
            allow_other_base: accept a base model that is no longer the one that was trained on.
            should_stop: called after each token; True ends with the answers that are done.

        Returns:
            One answer for each prompt: `base` and `tuned`, each with its text, its tokens, and whether the
            model ended it.

        Raises:
            InputError: the source does not exist, or a prompt is too long.
            GpuOutOfMemoryError: the model or an answer does not fit into memory.
        """
        from .worker import generate

        last = self._last.run_id if self._last else self._arguments["model"]
        if source is None and last == AUTO:
            raise InputError("There is no training to ask yet.", hint="Call train() first, or give a source.")
        spec = generate_spec(
            str(source or last),
            [prompts] if isinstance(prompts, str) else prompts,
            self._store,
            PathPolicy.for_person(self._defaults.home),
            compare_base=compare_base,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            system=system,
            device=self._arguments.get("device"),
            load_in_4bit=load_in_4bit,
            allow_other_base=allow_other_base,
        )
        device_request(spec)  # raises before the run is created if the requested GPU is missing
        state = self._execute(generate.run, self._store.create(spec), no_report, should_stop)
        assert isinstance(state.result, GenerateResult)
        return state.result.answers

    def evaluate(
        self,
        source: str | Path | None = None,
        dataset: str | Path | Sequence[str | Path] | None = None,
        against: str | Path | None = None,
        *,
        metrics: Metrics | None = None,
        pattern: str | None = None,
        max_new_tokens: int | None = None,
        load_in_4bit: bool | None = None,
        allow_other_base: bool = False,
        should_stop: ShouldStop = never_stop,
        **settings: Any,
    ) -> EvaluateResult:
        """Compare two models on the same rows, and record it as a run. docs/evaluate.md has the metrics.

        Args:
            source: a run's id, the path of an adapter or model folder, or a model's name. Default: the last
                training.
            dataset: the rows, as for `train`; None: the rows that the run held out.
            against: as `source`; None or "base": the source without its adapter.
            metrics: of "loss", "exact_match", "contains", "f1", "regex", "multiple_choice"; the first gives
                the verdict. Default: all that the rows allow.
            pattern: the regular expression of "regex".
            max_new_tokens: of each answer; None: as the right answers need, at least 64.
            load_in_4bit: load the bases in 4 bits; None: as they were trained.
            allow_other_base: accept a base model that is no longer the one that was trained on.
            should_stop: called often; True ends the evaluation without a result.
            settings: data settings, e.g. `samples=200, columns={"prompt": "Frage"}`.

        Raises:
            InputError: a model or the dataset does not exist, or there is nothing to compare.
            DatasetError: the dataset cannot be used.
            GpuOutOfMemoryError: a model does not fit into memory.
            TrainingAbortedError: it was stopped.
        """
        from .worker import evaluate

        last = self._last.run_id if self._last else None
        if source is None and last is None:
            raise InputError(
                "There is no training to evaluate yet.", hint="Call train() first, or give a source."
            )
        spec = evaluate_spec(
            str(source or last),
            self._store,
            PathPolicy.for_person(self._defaults.home),
            self._defaults,
            dataset=dataset,
            against=None if against is None else str(against),
            settings={name: value for name, value in settings.items() if value is not None},
            metrics=metrics,
            pattern=pattern,
            max_new_tokens=max_new_tokens,
            device=self._arguments.get("device"),
            load_in_4bit=load_in_4bit,
            allow_other_base=allow_other_base,
        )
        if spec.data.source is not None:
            local_source(spec.data, lambda path: None)
        device_request(spec)  # raises before the run is created if the requested GPU is missing
        state = self._execute(evaluate.run, self._store.create(spec), no_report, should_stop)
        assert isinstance(state.result, EvaluateResult)
        return state.result

    def save(self, path: str | Path) -> Path:
        """Copy the adapter of the last training to a new or empty folder.

        Raises:
            InputError: there is no training yet, or the folder is in use.
        """
        from .worker.save_adapter import copy_adapter_folder

        if self._last is None:
            raise InputError("There is no adapter to save yet.", hint="Call train() first.")
        target = Path(path).expanduser().absolute()
        check_output(str(target))
        copy_adapter_folder(self._last.adapter_path, str(target))
        return target

    def push_to_hub(self, repo: str, private: bool = True, *, overwrite: bool = False) -> str:
        """Publish the adapter of the last training on the Hub, with its model card, and record it as a run.

        The access token comes from HF_TOKEN or `hf auth login`.

        Args:
            repo: `owner/name`; created if it does not exist.
            private: create a new repository as private.
            overwrite: replace other weights in the repository.

        Raises:
            InputError: there is no training yet.
            HubPushError: the push failed; the message contains the next step.
        """
        from .worker import push

        if self._last is None:
            raise InputError("There is no adapter to publish yet.", hint="Call train() first.")
        paths = PathPolicy.for_person(self._defaults.home)
        folder = str(self._last.adapter_path)
        spec = push_spec(folder, repo, self._store, paths, private=private, overwrite=overwrite)
        state = self._execute(push.run, self._store.create(spec), no_report, never_stop)
        assert isinstance(state.result, PushResult)
        return state.result.url

    def _spec(
        self, dataset: str | Path | Sequence[str | Path] | None, steps: int | None, samples: int | None
    ) -> TrainSpec:
        given = {"dataset": dataset or None, "steps": steps, "samples": samples}
        arguments = self._arguments | {name: value for name, value in given.items() if value is not None}
        spec = train_spec(self._defaults, arguments=with_resolved_paths(arguments, self._defaults))
        local_source(spec.data, lambda path: None)
        check_output(spec.output)
        return spec


class _Recorder:
    """Collects the losses, and calls the callbacks."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._losses: list[float] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            self._losses.append(event.loss)
        self._callbacks(event)

    def summary(self, run: RunFolder, state: RunState, duration_s: float) -> TrainingRun:
        result = state.result
        assert isinstance(result, TrainResult)
        return TrainingRun(
            run_id=run.run_id,
            status=state.status,
            steps=result.steps,
            total_steps=result.total_steps,
            losses=self._losses,
            adapter_path=run.adapter_path,
            run_folder=run.path,
            duration_s=round(duration_s, 2),
            result=result,
            warnings=list(state.warnings),
            answers=[answer.model_dump(exclude_none=True) for answer in result.answers],
        )
