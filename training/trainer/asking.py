"""The part of a `Trainer` that asks models, compares them, and holds one in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config.fields import Metrics
from ..config.results import EvaluateResult, GeneratedAnswer, GenerateResult
from ..data.local_source import local_source
from ..events import ShouldStop, never_stop, no_report
from ..requests.evaluate import evaluate_spec
from ..requests.generate import generate_spec
from ..requests.rows_in_memory import as_file
from ..runs.kinds import device_request
from .loaded import load_model
from .session import Rows, Session


class Asking(Session):
    """Asks models and compares them."""

    @property
    def model(self) -> Any:
        """The last training's model in memory, of PEFT; before a training, the base of transformers.

        Loaded when it is first asked for, and let go by the next training. Raises as `load_model`.
        """
        return self.load_model()[0]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of `model`."""
        return self.load_model()[1]

    def load_model(self) -> tuple[Any, Any]:
        """`model` and `tokenizer`."""
        if self._loaded is None:
            self._loaded = load_model(
                self._source_to_ask(),
                load_in_4bit=self._arguments.get("load_in_4bit"),
                allow_other_base=self._arguments.get("allow_other_base") is True,
                home=self._store.home,
            )
        return self._loaded

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
        from ..worker import generate

        spec = generate_spec(
            str(source or self._source_to_ask()),
            [prompts] if isinstance(prompts, str) else prompts,
            self._store,
            self._paths,
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
        dataset: Rows | None = None,
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
        from ..worker import evaluate

        spec = evaluate_spec(
            str(source or self._trained("training to evaluate").run_id),
            self._store,
            self._paths,
            self._defaults,
            dataset=as_file(dataset, self._store.home),
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
